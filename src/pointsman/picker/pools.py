"""The pools as the picker sees them, kept up to date from the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pointsman.inference.models import PoolModels, pool_models
from pointsman.inference.pools import pools
from pointsman.picker.endpoints.table import Endpoint, Place, Table
from pointsman.resources.core import Pod, pod_address, pod_is_ready
from pointsman.resources.inference_extension import InferencePool
from pointsman.resources.selectors import labels_match
from pointsman.store import Store

log = logging.getLogger(__name__)

ACTIVE_PORTS_ANNOTATIONS = (
    "llm-d.ai/active-ports",
    "inference.networking.k8s.io/active-ports",
)
"""On a pod: which of the pool's target ports it really serves, `8000,8001`."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool: what it serves and by whom."""

    namespace: str
    name: str
    models: PoolModels
    endpoints: tuple[Endpoint, ...]
    pods: int
    """Pods that are ready."""

    @property
    def key(self) -> str:
        """`namespace/name`, as our gateway sends it."""
        return f"{self.namespace}/{self.name}"


class Pools:
    """Every pool of the store; the writer of the endpoint table."""

    def __init__(
        self,
        store: Store,
        table: Table,
        on_change: Callable[[list[Endpoint], list[Endpoint]], None] | None = None,
        only: str | None = None,
    ) -> None:
        self._store = store
        self._table = table
        self._on_change = on_change
        self._only = only
        self._views: dict[str, PoolView] = {}

    def get(self, key: str) -> PoolView | None:
        """The pool of that `namespace/name`."""
        return self._views.get(key)

    def endpoint(self, address: str) -> Endpoint | None:
        """The endpoint of an address, of whatever pool."""
        return self._table.get(address)

    def all(self) -> list[PoolView]:
        """Every pool, by name."""
        return [self._views[key] for key in sorted(self._views)]

    def refresh(self) -> None:
        """Look at the store again; endpoints that stay keep their load book."""
        found = {
            key: pool
            for (namespace, name), pool in pools(self._store).items()
            if self._only in (None, key := f"{namespace}/{name}")
        }
        members = {key: _members(self._store, pool) for key, pool in found.items()}
        came, went = self._table.replace(
            item for places in members.values() for item in places.values()
        )
        views: dict[str, PoolView] = {}
        for key, pool in found.items():
            namespace, name = pool.metadata.namespace, pool.metadata.name
            endpoints = [self._table.get(address) for address in members[key]]
            views[key] = PoolView(
                namespace,
                name,
                pool_models(self._store, namespace, name),
                tuple(endpoint for endpoint in endpoints if endpoint is not None),
                len({place.pod for place, _ in members[key].values()}),
            )
        self._views = views
        if (came or went) and self._on_change is not None:
            self._on_change(came, went)

    async def follow(self) -> None:
        """Refresh whenever the store changes, for ever."""
        with self._store.subscribe() as subscription:
            self.refresh()
            async for _ in subscription:
                try:
                    self.refresh()
                except Exception:
                    log.exception("The pools could not be refreshed; the last state stays")


def _members(store: Store, pool: InferencePool) -> dict[str, tuple[Place, Mapping[str, str]]]:
    """Address to place and labels of every endpoint of a pool."""
    selector = pool.spec.selector.match_labels
    ports = [port.number for port in pool.spec.target_ports]
    members: dict[str, tuple[Place, Mapping[str, str]]] = {}
    for pod in store.list(Pod, pool.metadata.namespace):
        if not selector or not labels_match(selector, pod.metadata.labels) or not pod_is_ready(pod):
            continue
        for port in _active_ports(pod, ports):
            at = pod_address(pod, port)
            if at is not None:
                rank = ports.index(port)
                place = Place(*at, pod.metadata.namespace, pod.metadata.name, rank)
                members[place.address] = (place, pod.metadata.labels)
    return members


def _active_ports(pod: Pod, ports: list[int]) -> list[int]:
    for name in ACTIVE_PORTS_ANNOTATIONS:
        text = pod.metadata.annotations.get(name)
        if text is not None:
            active = {part.strip() for part in text.split(",")}
            return [port for port in ports if str(port) in active]
    return ports
