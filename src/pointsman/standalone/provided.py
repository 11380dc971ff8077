"""Pickers that policies name and files lack.

A pool whose picker is not there is served by the instance's own picker, over a Unix socket. An
EnvoyExtensionPolicy is different: it names a Service, and users' patches give the cluster of that
Service TLS. So the Service and its Deployment are made here, just as the files would have them, for
the pool that names the same Service (or the only pool of the namespace). They go when the files
bring their own.
"""

from __future__ import annotations

from pointsman.inference.pools import pools
from pointsman.resources.apps import Deployment
from pointsman.resources.base import Ref, Resource
from pointsman.resources.core import PROVIDED_ANNOTATION, Service
from pointsman.resources.envoy_gateway import EnvoyExtensionPolicy
from pointsman.standalone.images import PICKER_IMAGE, PICKER_PORT
from pointsman.store import Store

_PROVIDED = {PROVIDED_ANNOTATION: "true"}


class ProvidedServices:
    """Keeps the pickers that are needed and nobody else defines."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made: dict[Ref, Resource] = {}

    async def run(self) -> None:
        """Follow the store until cancelled."""
        with self._store.subscribe() as subscription:
            self.reconcile()
            async for _ in subscription:
                self.reconcile()

    def reconcile(self) -> None:
        """Make what is missing, and take away what is no longer."""
        wanted = {item.ref: item for item in self._wanted()}
        gone = [
            ref for ref in self._made if ref not in wanted and is_provided(self._store.find(ref))
        ]
        fresh = [item for ref, item in wanted.items() if self._made.get(ref) != item]
        self._made = wanted
        if fresh or gone:
            self._store.apply(fresh, gone)

    def _wanted(self) -> list[Resource]:
        result: list[Resource] = []
        for ref, port in _named_services(self._store).items():
            found = self._store.find(ref)
            pool = _pool_of(self._store, ref)
            if pool is not None and (found is None or is_provided(found)):
                result.extend(_picker(ref, port, pool))
        return result


def is_provided(item: Resource | None) -> bool:
    """Whether an object was made here."""
    return item is not None and PROVIDED_ANNOTATION in item.metadata.annotations


def _named_services(store: Store) -> dict[Ref, int]:
    """The Services that policies name as external processors, with their ports."""
    result: dict[Ref, int] = {}
    for policy in store.list(EnvoyExtensionPolicy):
        for processor in policy.spec.ext_proc:
            for backend in processor.backend_refs:
                if (backend.group, backend.kind) != (Service.KIND.group, Service.KIND.kind):
                    continue
                namespace = backend.namespace or policy.metadata.namespace
                ref = Ref(backend.group, backend.kind, namespace, backend.name)
                result[ref] = backend.port or PICKER_PORT
    return result


def _pool_of(store: Store, service: Ref) -> str | None:
    """The pool that a Service would pick for."""
    near = [pool for (namespace, _), pool in pools(store).items() if namespace == service.namespace]
    naming = [
        pool
        for pool in near
        if pool.spec.endpoint_picker_ref is not None
        and pool.spec.endpoint_picker_ref.name == service.name
    ]
    found = naming or (near if len(near) == 1 else [])
    return found[0].metadata.name if found else None


def _picker(service: Ref, port: int, pool: str) -> list[Resource]:
    labels = {PROVIDED_ANNOTATION: service.name}
    meta = {
        "name": service.name,
        "namespace": service.namespace,
        "annotations": _PROVIDED,
        "uid": f"provided-{service.namespace}-{service.name}",
        "generation": 1,
    }
    arguments = ["-poolName", pool, "-poolNamespace", service.namespace, "-grpcPort", str(port)]
    container = {"name": "picker", "image": PICKER_IMAGE, "args": arguments}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return [
        Service.model_validate(
            {
                "apiVersion": Service.KIND.api_version,
                "kind": Service.KIND.kind,
                "metadata": meta,
                "spec": {"selector": labels, "ports": [{"port": port}]},
            }
        ),
        Deployment.model_validate(
            {
                "apiVersion": Deployment.KIND.api_version,
                "kind": Deployment.KIND.kind,
                "metadata": meta,
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            }
        ),
    ]
