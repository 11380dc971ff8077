"""Which routes attach to which listeners, and under which hostnames.

A route names a Gateway or a ListenerSet as its parent. One that names a Gateway attaches to the
Gateway's own listeners and not to those of its ListenerSets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pointsman.gateway import conditions
from pointsman.gateway.listeners import hostnames
from pointsman.gateway.listeners.binding import PROTOCOLS, BoundListener
from pointsman.gateway.listeners.classes import ServedGateway
from pointsman.gateway.listeners.listener_sets import NamespaceLabels, selects
from pointsman.resources.base import Ref
from pointsman.resources.gateway_api import GRPCRoute, HTTPRoute, ParentRef, Route
from pointsman.store import Store


@dataclass(frozen=True, slots=True)
class Attachment:
    """A route on a listener, under the hostnames that both take."""

    route: Route
    listener: BoundListener
    hostnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteParent:
    """What became of one parentRef of a route."""

    route: Route
    parent: ParentRef
    served: ServedGateway
    attachments: tuple[Attachment, ...]
    refusal: tuple[str, str] | None
    """Reason and message, where nothing was attached."""
    listeners: tuple[str, ...] = ()
    """The names of the listeners that count it, ready or not.

    Rule (Gateway API, ListenerStatus.attachedRoutes): what is wrong with a listener keeps no route
    from being attached to it.
    """


def attach(
    route: Route,
    served: Mapping[Ref, ServedGateway],
    listeners: Mapping[Ref, Sequence[BoundListener]],
    namespace_labels: NamespaceLabels,
) -> Iterator[RouteParent]:
    """What becomes of each parentRef of a route that names something of ours.

    `served` has the Gateways by themselves and by their ListenerSets, `listeners` those of each
    Gateway and of each ListenerSet, `namespace_labels` those of each Namespace by name.
    """
    for parent in route.spec.parent_refs:
        owner = parent_ref(route, parent)
        found = served.get(owner)
        if found is not None:
            mine = listeners.get(owner, ())
            yield _attach_one(route, parent, found, mine, namespace_labels)


def held_routes(store: Store) -> Iterator[tuple[Ref, Route, int]]:
    """Every route of whatever kind, with its reference and its version in the store."""
    for held in (*store.held(HTTPRoute), *store.held(GRPCRoute)):
        if isinstance(held.item, Route):
            yield held.ref, held.item, held.version


def parent_ref(route: Route, parent: ParentRef) -> Ref:
    """The object that a parentRef names."""
    namespace = parent.namespace or route.metadata.namespace
    return Ref(parent.group, parent.kind, namespace, parent.name)


def _attach_one(
    route: Route,
    parent: ParentRef,
    served: ServedGateway,
    listeners: Sequence[BoundListener],
    namespace_labels: NamespaceLabels,
) -> RouteParent:
    def refused(reason: str, message: str) -> RouteParent:
        return RouteParent(route, parent, served, (), (reason, message))

    owner = parent_ref(route, parent)
    if not listeners:
        return refused("NoMatchingParent", f"{owner} has no listeners, for it is not accepted")
    named = [
        item
        for item in listeners
        if parent.section_name in (None, item.spec.name) and parent.port in (None, item.spec.port)
    ]
    if not named:
        known = ", ".join(f"{item.spec.name} (port {item.spec.port})" for item in listeners)
        return refused("NoMatchingParent", f"No such listener; {owner} has: {known}")
    allowed = [item for item in named if _allows(item, route, namespace_labels)]
    if not allowed:
        message = f"No listener of {owner} allows this route"
        return refused("NotAllowedByListeners", message)
    meeting = [
        (item, found)
        for item in allowed
        if (found := hostnames.common(item.hostname, route.spec.hostnames))
    ]
    if not meeting:
        return refused("NoMatchingListenerHostname", conditions.ROUTE_NO_HOSTNAMES)
    attachments = tuple(Attachment(route, *pair) for pair in meeting if pair[0].is_served)
    names = tuple(item.xds_name for item, _ in meeting)
    return RouteParent(route, parent, served, attachments, None, names)


def _allows(listener: BoundListener, route: Route, namespace_labels: NamespaceLabels) -> bool:
    if listener.spec.protocol not in PROTOCOLS:
        return False
    allowed = listener.spec.allowed_routes
    if allowed.kinds and not any(
        item.group == route.KIND.group and item.kind == route.KIND.kind for item in allowed.kinds
    ):
        return False
    home = listener.owner.metadata.namespace
    return selects(allowed.namespaces, home, route.metadata.namespace, namespace_labels)
