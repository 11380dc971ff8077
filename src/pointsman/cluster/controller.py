"""The controller of a cluster: everything that `pointsman controller` runs.

    API server ─▶ source ─▶ store ─▶ control plane ─▶ xDS, over mutual TLS ─▶ Envoys
                              ▲            │
                              │            ├─▶ plan ─▶ applier ─▶ Deployments, Services, ...
                              └─ status writer ◀┘

Every replica translates and serves Envoys. The leader alone writes: statuses, objects, and the
authority of certificates.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pointsman import __version__
from pointsman.admin import server as admin_server
from pointsman.admin.control_plane import listener_rows, problem_row, xds_rows
from pointsman.admin.instances import SOCKET_NAME, InstanceError, instance_folder
from pointsman.admin.providers import Providers
from pointsman.background import Background
from pointsman.cluster import envoys
from pointsman.cluster.applier import Applier
from pointsman.cluster.envoys import Made
from pointsman.cluster.fleets import completed, fleets
from pointsman.cluster.health import Sample, serving_health, serving_metrics
from pointsman.cluster.key_ring import KeyRing, fleet_of
from pointsman.cluster.pickers import is_picker_superfluous, picker_objects, wanted_pickers
from pointsman.cluster.settings import (
    MANAGED,
    MANAGED_LABEL,
    MANAGER,
    OWN_CONTROLLER,
    Installation,
)
from pointsman.cluster.status_writer import StatusWriter
from pointsman.gateway.listeners.access_logs import JSON_ON_STDOUT, AccessLog
from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import EnvoyFacts, Status
from pointsman.gateway.translate import Translation
from pointsman.resources import apps, core, gateway_api, kinds, unused
from pointsman.resources.base import Ref, Resource
from pointsman.sources.kubernetes.api import Api
from pointsman.sources.kubernetes.lease import Lease
from pointsman.sources.kubernetes.source import Interest, KubernetesSource
from pointsman.store import Store
from pointsman.xds.binary import envoy_version
from pointsman.xds.controller import Controller

LEASE_NAME = "pointsman"
INSTANCE = "controller"
"""How the commands that ask a running instance call this one."""
CERTIFICATE_INTERVAL_S = 30.0
"""Between two looks at the certificates, or a hundredth of their life if that is less."""
PLAN_FOLD_S = 0.05
"""Changes that come this soon after a plan wait for each other."""

CLUSTER_WIDE: tuple[type[Resource], ...] = (
    *(cls for cls in kinds.USED if not cls.KIND.namespaced),
    unused.CustomResourceDefinition,
)
NAMESPACED: tuple[type[Resource], ...] = tuple(
    cls for cls in kinds.USED if cls.KIND.namespaced and cls is not apps.Deployment
)
MADE: tuple[type[Resource], ...] = (
    apps.Deployment,
    unused.PodDisruptionBudget,
    unused.RoleBinding,
    unused.ServiceAccount,
)
"""Kinds of which only what we have made is of interest."""
SECRETS = ",".join(
    f"type!={each}"
    for each in (
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
        "kubernetes.io/basic-auth",
        "kubernetes.io/dockercfg",
        "kubernetes.io/dockerconfigjson",
        "kubernetes.io/service-account-token",
        "kubernetes.io/ssh-auth",
    )
)
"""A field selector: no certificate and no authority is in Secrets of these types. They are often
the most and the largest."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """How the controller is run."""

    installation: Installation
    identity: str
    """Tells this replica from the others: the pod's name."""
    controllers: tuple[str, ...] = (OWN_CONTROLLER,)
    """The controllers whose classes are served."""
    watch_namespaces: tuple[str, ...] = ()
    """Of which namespaces; () for all."""
    elects_leader: bool = True
    bind: str = "0.0.0.0"
    health_port: int = 8081
    metrics_port: int = 9090
    access_logs: tuple[AccessLog, ...] = field(default=(JSON_ON_STDOUT,))


def interests(settings: ControllerSettings) -> list[Interest]:
    """What a controller watches."""
    own = settings.installation.namespace
    wanted = settings.watch_namespaces
    # In its own namespace is its authority.
    namespaces = tuple(dict.fromkeys((*wanted, own))) if wanted else ("",)
    return [
        *(Interest(cls) for cls in CLUSTER_WIDE),
        *(
            Interest(cls, namespace, fields=SECRETS if cls is core.Secret else "")
            for cls in NAMESPACED
            for namespace in namespaces
        ),
        *(Interest(cls, namespace, MANAGED) for cls in MADE for namespace in namespaces),
    ]


class ClusterController:
    """The parts of one replica; `running` makes them live."""

    def __init__(self, settings: ControllerSettings, api: Api) -> None:
        self._settings = settings
        installation = settings.installation
        self.store = Store()
        self.source = KubernetesSource(self.store, api, interests(settings))
        self.options = Options(
            controllers=frozenset(settings.controllers), access_logs=settings.access_logs
        )
        self.lease = Lease(api, installation.namespace, LEASE_NAME, settings.identity)
        self.key_ring = KeyRing(self.store, api, installation)
        self.writer = StatusWriter(
            self.store,
            api,
            frozenset(settings.controllers),
            self.is_leader,
            self._own_gateways,
            self.source.version,
        )
        self.applier = Applier(
            self.store,
            api,
            installation.identity,
            self.is_leader,
            self._is_abandoned,
            self._reconsider,
        )
        self.control = Controller(self.store, self.options, self._publish, self._complete)
        self._made: dict[Ref, Made] = {}
        self._inputs: dict[Ref, tuple[Any, ...]] = {}
        """What each was made from."""
        self._plan_wanted = asyncio.Event()
        self._is_serving = False
        self._background: Background | None = None

    def is_leader(self) -> bool:
        """Whether this replica may write."""
        return self.lease.is_held or not self._settings.elects_leader

    def waiting_for(self) -> list[str]:
        """What is not up yet, in words."""
        found = list(self.source.complaints) if not self.source.is_synced else []
        if not self.source.is_synced:
            found.append("not everything of the cluster has been read")
        elif not self._is_serving:
            found.append("there is no authority of certificates yet")
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ClusterController]:
        """The controller lives inside this context."""
        settings = self._settings
        background = self._background = Background()
        async with AsyncExitStack() as stack:
            bind = settings.bind
            await stack.enter_async_context(
                serving_health(bind, settings.health_port, self.waiting_for)
            )
            await stack.enter_async_context(
                serving_metrics(bind, settings.metrics_port, self._samples)
            )
            await self._serve_admin(stack)
            # The authority is read and made while the rest goes on.
            await background.keep(stack, self._serve(background), "controller")
            yield self

    async def _serve_admin(self, stack: AsyncExitStack) -> None:
        """Answer `pointsman get` and `status` of who may enter the pod."""
        try:
            folder = stack.enter_context(instance_folder(INSTANCE))
        except InstanceError as error:
            log.warning("`pointsman status` will not find this controller: %s", error)
            return
        providers = Providers(
            is_ready=lambda: not self.waiting_for(),
            version=lambda: {"pointsman": __version__, "envoy": envoy_version()},
            listeners=lambda: listener_rows(self.control, self.options),
            xds=lambda: xds_rows(self.control),
            problems=lambda: [problem_row(item) for item in self.source.problems],
        )
        await stack.enter_async_context(
            admin_server.serve(self.store, providers, folder / SOCKET_NAME)
        )

    async def failed(self) -> None:
        """Returns never, unless a part breaks: then raises why."""
        if self._background is not None:
            await self._background.failed()

    async def _serve(self, background: Background) -> None:
        settings = self._settings
        async with AsyncExitStack() as stack:
            await self.source.start()
            log.info("The cluster has been read: %d objects", sum(1 for _ in self.store))
            await background.keep(stack, self.source.follow(), "source")
            if settings.elects_leader:
                await background.keep(stack, self.lease.run(self._on_lease), "lease")
            await background.keep(stack, self._keep_certificates(), "certificates")
            await background.keep(stack, self.control.run(), "control plane")
            await self.key_ring.ready()
            # Who comes earlier would not find what it has already.
            await self.control.is_serving.wait()
            address = f"{settings.bind}:{settings.installation.xds_port}"
            await stack.enter_async_context(
                self.control.discovery.listening_tls(address, self.key_ring.credentials(), fleet_of)
            )
            await background.keep(stack, self._follow(), "plan")
            await background.keep(stack, self.applier.run(), "applier")
            await background.keep(stack, self.writer.run(), "statuses")
            self._is_serving = True
            log.info("Serving Envoys on port %d", settings.installation.xds_port)
            await asyncio.Event().wait()

    def _on_lease(self, is_held: bool) -> None:
        if is_held:
            self._plan_wanted.set()
            self.applier.look_again()
            self.writer.look_again()

    def _reconsider(self) -> None:
        self.control.reconsider()

    def _own_gateways(self) -> frozenset[tuple[str, str]]:
        translation = self.control.translation
        found = translation.scene.gateway_of if translation is not None else {}
        return frozenset((ref.namespace, ref.name) for ref in found)

    async def _publish(self, found: Mapping[Ref, Status]) -> None:
        self._plan_wanted.set()
        await self.writer.publish(found)

    def _complete(self, facts: EnvoyFacts, translation: Translation) -> EnvoyFacts:
        # Also at the start, when nothing is planned yet: what is there is there.
        self._remake(translation)
        return completed(facts, translation, fleets(self.store, self._made, self.applier.problems))

    async def _follow(self) -> None:
        """Plan what must be there, whenever something of it may have changed."""
        with self.store.subscribe() as subscription:
            while True:
                changes = asyncio.create_task(subscription.batch())
                wanted = asyncio.create_task(self._plan_wanted.wait())
                try:
                    await asyncio.wait({changes, wanted}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changes.cancel()
                    wanted.cancel()
                await asyncio.sleep(PLAN_FOLD_S)
                self._plan_wanted.clear()
                touched = (*_result(changes), *subscription.take())
                self._plan()
                if any(_is_made(change.old) or _is_made(change.new) for change in touched):
                    self.applier.look_again()
                    # How many Envoys are ready, and where they are, is in their statuses.
                    self.control.reconsider()
                self.writer.look_again()

    def _plan(self) -> None:
        translation = self.control.translation
        if translation is None:
            return
        self._remake(translation)
        objects = [each for item in self._made.values() for each in item.objects]
        objects += self._certificates()
        for ref, pool in wanted_pickers(self.store, translation, self._settings.installation):
            objects += picker_objects(ref, pool, self._settings.installation)
        self.applier.want(objects)

    def _remake(self, translation: Translation) -> None:
        self._made = {item.gateway: item for item in self._planned(translation)}

    def _planned(self, translation: Translation) -> Iterator[Made]:
        scene = translation.scene
        ports = envoys.ports_of(scene.listeners)
        before, self._inputs = self._inputs, {}
        for served in scene.gateways:
            if served.problem is not None:
                continue
            ref = served.gateway.ref
            inputs = (served.gateway, scene.proxies.of_gateway.get(ref), ports.get(ref, ()))
            known = self._made.get(ref)
            self._inputs[ref] = inputs
            if known is not None and before.get(ref) == inputs:
                yield known
                continue
            try:
                yield envoys.made_for(*inputs, self._settings.installation)
            except Exception as error:
                # A fault of ours with one Gateway must cost no other.
                log.exception("%s: what it needs cannot be made", ref)
                yield Made(ref, envoys.name_of(served.gateway), problem=f"A fault: {error!r}")

    def _is_abandoned(self, item: Resource) -> bool:
        """Whether something that was made is for nobody any more.

        What is broken at this moment loses nothing: only a Gateway that is another controller's by
        now or has another class, and a pool that needs no picker of ours any more.
        """
        for owner in item.metadata.owner_references:
            group = owner.api_version.rpartition("/")[0]
            found = self.store.find(Ref(group, owner.kind, item.metadata.namespace, owner.name))
            if found is None or found.metadata.uid != owner.uid:
                continue  # the cluster takes away what it left
            if isinstance(found, gateway_api.Gateway):
                return self._has_left(found, item.metadata.name)
            return is_picker_superfluous(found)
        return False

    def _has_left(self, gateway: gateway_api.Gateway, name: str) -> bool:
        made = self._made.get(gateway.ref)
        if made is not None:
            return bool(made.objects) and made.name != name
        of_class = self.store.get(gateway_api.GatewayClass, "", gateway.spec.gateway_class_name)
        controllers = self._settings.controllers
        return of_class is not None and of_class.spec.controller_name not in controllers

    def _certificates(self) -> Iterator[dict[str, Any]]:
        """The Secrets of the Envoys: as they are while they are good, and else new ones."""
        self.key_ring.forget(self._made)
        for made in self._made.values():
            if not made.objects:
                continue
            namespace = made.gateway.namespace
            secret = self.store.get(core.Secret, namespace, made.name)
            if secret is not None and self.key_ring.is_good(secret):
                parts = (secret.value("tls.crt"), secret.value("tls.key"), secret.value("ca.crt"))
            else:
                parts = self.key_ring.client(made.gateway) or (None, None, None)
            certificate, key, authorities = parts
            if certificate and key and authorities:
                yield envoys.certificate_secret(made, certificate, key, authorities)

    async def _keep_certificates(self) -> None:
        life_s = self._settings.installation.certificate_life.total_seconds()
        interval_s = min(CERTIFICATE_INTERVAL_S, max(1.0, life_s / 100))
        while True:
            if self.is_leader():
                await self.key_ring.maintain()
            self._plan_wanted.set()
            has_none = self.key_ring.authority is None
            await asyncio.sleep(0.2 if has_none else interval_s)

    def _samples(self) -> Iterator[Sample]:
        translation = self.control.translation
        facts = self.control.discovery.facts
        name = "pointsman_controller"
        gauges: dict[str, tuple[str, float]] = {
            "leader": ("Whether this replica writes", float(self.is_leader())),
            "synced": ("Whether the cluster has been read", float(self.source.is_synced)),
            "unheard_kinds": ("Kinds that are not heard of", len(self.source.complaints)),
            "unread_objects": ("Objects that cannot be read", len(self.source.problems)),
            "envoys": ("Envoys that are connected here", facts.connected),
            "refused_resources": ("Resources that Envoys refuse", len(facts.refused)),
            "gateways": (
                "Gateways that are served",
                len(translation.gateways) if translation is not None else 0,
            ),
            "unmade_objects": ("Objects that cannot be made", len(self.applier.problems)),
        }
        for key, (text, value) in gauges.items():
            yield Sample(f"{name}_{key}", "gauge", text, value)
        counters: dict[str, tuple[str, float]] = {
            "status_writes_total": ("Statuses written", self.writer.writes),
            "status_conflicts_total": ("Writes that met another version", self.writer.conflicts),
            "status_errors_total": ("Statuses that were not taken", self.writer.errors),
            "applied_objects_total": ("Objects applied", self.applier.applied),
        }
        for key, (text, value) in counters.items():
            yield Sample(f"{name}_{key}", "counter", text, value)


def _is_made(item: Resource | None) -> bool:
    return item is not None and item.metadata.labels.get(MANAGED_LABEL) == MANAGER


def _result(task: asyncio.Task[Any]) -> tuple[Any, ...]:
    return tuple(task.result()) if task.done() and not task.cancelled() else ()
