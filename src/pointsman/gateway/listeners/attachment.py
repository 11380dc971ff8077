"""Which Gateways are ours, which of their listeners live, and which routes attach to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pointsman.gateway import conditions, names
from pointsman.gateway.backends.references import Resolver, Unresolved
from pointsman.gateway.listeners import hostnames, tls
from pointsman.gateway.options import Options
from pointsman.resources.base import Ref
from pointsman.resources.core import Namespace
from pointsman.resources.envoy_gateway import EnvoyGatewayConfig
from pointsman.resources.gateway_api import (
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    Listener,
    ParentRef,
    Route,
)
from pointsman.store import Store

HTTP = "HTTP"


@dataclass(frozen=True, slots=True)
class ServedGateway:
    """A Gateway of a class of ours."""

    gateway: Gateway
    controller_name: str
    is_adopted: bool
    """Nobody defines its class; on one machine that is good enough."""


@dataclass(frozen=True, slots=True)
class BoundListener:
    """A listener of a Gateway and where it lives in Envoy."""

    gateway: Gateway
    spec: Listener
    port_name: str
    """Name of the Envoy listener and route configuration: the first listener of the port."""
    conflict: tuple[str, str] | None = None
    """Reason and message, where the listener cannot be served."""
    certificates: tuple[Ref, ...] | Unresolved = ()
    """The Secrets of an HTTPS listener, or what is wrong with them."""

    @property
    def is_served(self) -> bool:
        """Nothing is in its way."""
        return self.conflict is None and not isinstance(self.certificates, Unresolved)

    @property
    def route_config(self) -> str:
        """Its route configuration: of the port for HTTP, its own where SNI tells it apart."""
        return self.xds_name if self.spec.protocol == tls.HTTPS else self.port_name

    @property
    def hostname(self) -> str:
        """The hostname that the listener takes; `*` for any."""
        return self.spec.hostname or hostnames.ANY

    @property
    def xds_name(self) -> str:
        """The listener's own name, by which its virtual hosts are called."""
        meta = self.gateway.metadata
        return names.listener(meta.namespace, meta.name, self.spec.name)


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


def served_classes(
    store: Store, config: EnvoyGatewayConfig, options: Options
) -> dict[str, tuple[GatewayClass, dict[str, Any]]]:
    """Our GatewayClasses by name, each with its Accepted condition.

    On one machine every class is ours; elsewhere the oldest of our controller's is.
    """
    ours = sorted(store.list(GatewayClass), key=lambda item: item.age_key)
    if not options.is_alone:
        ours = [
            item for item in ours if item.spec.controller_name == config.gateway.controller_name
        ]
    result = {}
    taken: set[str] = set()
    for item in ours:
        controller = item.spec.controller_name
        if controller in taken and not options.is_alone:
            message = (
                "Invalid GatewayClass: another older GatewayClass with the same "
                "Spec.Controller exists"
            )
            found = conditions.not_accepted(item, "InvalidParameters", message)
        else:
            found = conditions.accepted(item, conditions.CLASS_ACCEPTED)
        taken.add(controller)
        result[item.metadata.name] = (item, found)
    return result


def served_gateways(
    store: Store, config: EnvoyGatewayConfig, options: Options
) -> list[ServedGateway]:
    """The Gateways of our classes, older ones first."""
    classes = served_classes(store, config, options)
    result = []
    for gateway in sorted(store.list(Gateway), key=lambda item: item.age_key):
        found = classes.get(gateway.spec.gateway_class_name)
        if found is not None:
            if found[1]["status"] == conditions.TRUE:
                result.append(ServedGateway(gateway, found[0].spec.controller_name, False))
        elif options.is_alone:
            result.append(ServedGateway(gateway, config.gateway.controller_name, True))
    return result


def bind_listeners(served: Iterable[ServedGateway], resolver: Resolver) -> list[BoundListener]:
    """All listeners, with those that share a port under one name and conflicts marked."""
    first_on_port: dict[int, str] = {}
    owners: dict[tuple[int, str], BoundListener] = {}
    result = []
    for item in served:
        meta = item.gateway.metadata
        for spec in item.gateway.spec.listeners:
            own_name = names.listener(meta.namespace, meta.name, spec.name)
            found = tls.certificate_refs(resolver, item.gateway, spec)
            port_name = first_on_port.get(spec.port, own_name)
            bound = BoundListener(item.gateway, spec, port_name, None, found)
            problem = _listener_problem(bound, owners)
            if problem is not None:
                result.append(BoundListener(item.gateway, spec, own_name, problem))
                continue
            if bound.is_served:
                first_on_port.setdefault(spec.port, own_name)
            owners[spec.port, bound.hostname] = bound
            result.append(bound)
    return result


def _listener_problem(
    bound: BoundListener, owners: dict[tuple[int, str], BoundListener]
) -> tuple[str, str] | None:
    spec = bound.spec
    if spec.protocol not in (HTTP, tls.HTTPS):
        message = f"Protocol {spec.protocol} is not supported; use HTTP or HTTPS"
        return ("UnsupportedProtocol", message)
    if spec.tls is not None and spec.tls.mode != "Terminate":
        return ("UnsupportedValue", f"TLS mode {spec.tls.mode} is not supported; use Terminate")
    neighbour = next((item for (port, _), item in owners.items() if port == spec.port), None)
    if neighbour is not None and neighbour.spec.protocol != spec.protocol:
        message = (
            f"Port {spec.port} speaks {neighbour.spec.protocol} for listener "
            f"{neighbour.spec.name} of {neighbour.gateway.ref}"
        )
        return ("ProtocolConflict", message)
    other = owners.get((spec.port, bound.hostname))
    if other is not None:
        return (
            "HostnameConflict",
            f"Port {spec.port} with hostname {bound.hostname} is taken by listener "
            f"{other.spec.name} of {other.gateway.ref}",
        )
    return None


def attach(
    store: Store, served: Sequence[ServedGateway], listeners: Sequence[BoundListener]
) -> list[RouteParent]:
    """Every parentRef of every route that names one of our Gateways, older routes first."""
    by_ref = {item.gateway.ref: item for item in served}
    labels = {item.metadata.name: item.metadata.labels for item in store.list(Namespace)}
    result = []
    for route in sorted(routes(store), key=lambda item: item.age_key):
        for parent in route.spec.parent_refs:
            found = by_ref.get(parent_ref(route, parent))
            if found is not None:
                result.append(_attach_one(route, parent, found, listeners, labels))
    return result


def routes(store: Store) -> list[Route]:
    """Every route of whatever kind."""
    return [*store.list(HTTPRoute), *store.list(GRPCRoute)]


def parent_ref(route: Route, parent: ParentRef) -> Ref:
    """The object that a parentRef names."""
    namespace = parent.namespace or route.metadata.namespace
    return Ref(parent.group, parent.kind, namespace, parent.name)


def _attach_one(
    route: Route,
    parent: ParentRef,
    served: ServedGateway,
    listeners: Sequence[BoundListener],
    namespace_labels: dict[str, dict[str, str]],
) -> RouteParent:
    def refused(reason: str, message: str) -> RouteParent:
        return RouteParent(route, parent, served, (), (reason, message))

    named = [
        item
        for item in listeners
        if item.gateway.ref == served.gateway.ref
        and parent.section_name in (None, item.spec.name)
        and parent.port in (None, item.spec.port)
    ]
    if not named:
        known = ", ".join(item.name for item in served.gateway.spec.listeners)
        return refused("NoMatchingParent", f"No such listener; the Gateway has: {known}")
    allowed = [item for item in named if _allows(item, route, namespace_labels)]
    if not allowed:
        message = f"No listener of {served.gateway.ref} allows this route"
        return refused("NotAllowedByListeners", message)
    ready = [item for item in allowed if item.is_served]
    if not ready:
        return refused("NoReadyListeners", conditions.ROUTE_NO_LISTENERS)
    attachments = tuple(
        Attachment(route, item, found)
        for item in ready
        if (found := hostnames.common(item.hostname, route.spec.hostnames))
    )
    if not attachments:
        return refused("NoMatchingListenerHostname", conditions.ROUTE_NO_HOSTNAMES)
    return RouteParent(route, parent, served, attachments, None)


def _allows(
    listener: BoundListener, route: Route, namespace_labels: dict[str, dict[str, str]]
) -> bool:
    allowed = listener.spec.allowed_routes
    if allowed.kinds and not any(
        item.group == route.KIND.group and item.kind == route.KIND.kind for item in allowed.kinds
    ):
        return False
    where = allowed.namespaces
    namespace = route.metadata.namespace
    if where.from_ == "All":
        return True
    if where.from_ == "Selector" and where.selector is not None:
        # A namespace without an object of its own has the one label that Kubernetes gives it.
        implied = {"kubernetes.io/metadata.name": namespace}
        return where.selector.matches(implied | namespace_labels.get(namespace, {}))
    return where.from_ == "Same" and namespace == listener.gateway.metadata.namespace
