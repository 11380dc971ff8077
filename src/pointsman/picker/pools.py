"""The pools as the picker sees them, kept up to date from the store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pointsman.inference.models import PoolModels, pool_models
from pointsman.inference.pools import pools
from pointsman.picker.endpoints.table import Endpoint, Place, Table
from pointsman.resources.core import Pod, pod_address, pod_is_ready
from pointsman.resources.inference_extension import (
    EXPERIMENTAL_GROUP,
    GROUP,
    InferencePool,
    InferencePoolV1Alpha2,
)
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


@dataclass(frozen=True, slots=True)
class Selection:
    """A pool as far as its members go: which pods, on which ports."""

    namespace: str
    name: str
    matches: Callable[[Mapping[str, str]], bool]
    """Whether a pod with these labels is a member."""
    ports: tuple[int, ...]

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Scope:
    """Which pools count."""

    only: str | None = None
    """`namespace/name` of the only one."""
    group: str = ""
    """The API group whose pools count; "" for both, of which the newer one's count."""
    made: Selection | None = None
    """One that no object describes, in place of all others."""

    def selections(self, store: Store) -> list[Selection]:
        """The pools that the store has, or the one that is made."""
        if self.made is not None:
            return [self.made]
        if self.group == GROUP:
            found = store.list(InferencePool)
        elif self.group == EXPERIMENTAL_GROUP:
            found = [pool.to_v1() for pool in store.list(InferencePoolV1Alpha2)]
        else:
            found = list(pools(store).values())
        return [made for pool in found if self.only in (None, (made := _selection(pool)).key)]


EVERYTHING = Scope()


class Pools:
    """Every pool of the store that counts; the writer of the endpoint table."""

    def __init__(
        self,
        store: Store,
        table: Table,
        on_change: Callable[[list[Endpoint], list[Endpoint]], None] | None = None,
        scope: Scope = EVERYTHING,
        on_refresh: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._table = table
        self._on_change = on_change
        self._on_refresh = on_refresh
        self._scope = scope
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
        found = self._scope.selections(self._store)
        members = {each.key: _members(self._store, each) for each in found}
        came, went = self._table.replace(
            item for places in members.values() for item in places.values()
        )
        views: dict[str, PoolView] = {}
        for each in found:
            endpoints = [self._table.get(address) for address in members[each.key]]
            views[each.key] = PoolView(
                each.namespace,
                each.name,
                pool_models(self._store, each.namespace, each.name),
                tuple(endpoint for endpoint in endpoints if endpoint is not None),
                len({place.pod for place, _ in members[each.key].values()}),
            )
        self._views = views
        if (came or went) and self._on_change is not None:
            self._on_change(came, went)
        if self._on_refresh is not None:
            self._on_refresh()

    async def follow(self) -> None:
        """Refresh whenever the store changes, for ever."""
        with self._store.subscribe() as subscription:
            self.refresh()
            async for _ in subscription:
                try:
                    self.refresh()
                except Exception:
                    log.exception("The pools could not be refreshed; the last state stays")


def _selection(pool: InferencePool) -> Selection:
    selector = pool.spec.selector.match_labels
    # An empty selector, which the older generation allows, selects nothing.
    return Selection(
        pool.metadata.namespace,
        pool.metadata.name,
        lambda labels: bool(selector) and labels_match(selector, labels),
        tuple(port.number for port in pool.spec.target_ports),
    )


def _members(store: Store, of: Selection) -> dict[str, tuple[Place, Mapping[str, str]]]:
    """Address to place and labels of every endpoint of a pool."""
    members: dict[str, tuple[Place, Mapping[str, str]]] = {}
    for pod in store.list(Pod, of.namespace):
        if not of.matches(pod.metadata.labels) or not pod_is_ready(pod):
            continue
        for port in _active_ports(pod, of.ports):
            at = pod_address(pod, port)
            if at is not None:
                rank = of.ports.index(port)
                place = Place(*at, pod.metadata.namespace, pod.metadata.name, rank)
                members[place.address] = (place, pod.metadata.labels)
    return members


def _active_ports(pod: Pod, ports: tuple[int, ...]) -> tuple[int, ...]:
    for name in ACTIVE_PORTS_ANNOTATIONS:
        text = pod.metadata.annotations.get(name)
        if text is not None:
            active = {part.strip() for part in text.split(",")}
            return tuple(port for port in ports if str(port) in active)
    return ports
