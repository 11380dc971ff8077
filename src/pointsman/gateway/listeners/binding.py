"""Which listeners live, and where: those of Gateways, and of the ListenerSets that they take in.

On one machine listeners of one port and the same addresses share one listener of Envoy, whatever
Gateway they are of; in a cluster those of one Gateway do, for each has an Envoy of its own.

Of two that take the same hostname the first counts (older Gateways first; of one Gateway its own
listeners, then those of its ListenerSets, older sets first); so it is with the protocol of a port.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pointsman.gateway import names
from pointsman.gateway.backends.references import Resolver, Unresolved
from pointsman.gateway.listeners import hostnames, tls
from pointsman.gateway.listeners.classes import ServedGateway
from pointsman.gateway.listeners.client_trust import ClientTrust, client_trust
from pointsman.gateway.listeners.listener_sets import ServedSet
from pointsman.resources.base import Ref
from pointsman.resources.gateway_api import Gateway, Listener, ListenerSet

HTTP = "HTTP"
PROTOCOLS = frozenset({HTTP, tls.HTTPS})
"""What listeners here can speak, and routes for it attach to."""
UDP = "UDP"
"""Its ports are others than those of TCP."""
CONFLICTS = frozenset({"HostnameConflict", "ProtocolConflict"})
"""Reasons for which a listener stands in the way of another."""


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
    hosts: tuple[str, ...] = ()
    """The IPs that it binds to."""
    has_own_hosts: bool = False
    """Its Gateway asks for them."""
    listener_set: ListenerSet | None = None
    """The ListenerSet that it is of, where it is not the Gateway's own."""
    trust: ClientTrust | Unresolved | None = None
    """Whose certificates clients must show, or what is wrong with that."""
    overlaps: tuple[str, ...] = ()
    """Other HTTPS listeners of the port that may take a hostname of its own."""

    @property
    def owner(self) -> Gateway | ListenerSet:
        """The object that it is written in."""
        return self.listener_set if self.listener_set is not None else self.gateway

    @property
    def is_served(self) -> bool:
        """Nothing is in its way."""
        return self.conflict is None and not isinstance(self.certificates, Unresolved)

    @property
    def sockets(self) -> dict[str, str]:
        """The names of its listeners in Envoy, by the IP that each is at.

        Addresses that a Gateway asks for are a listener each, so that one that cannot be had, or
        comes later, costs the others nothing.
        """
        if not self.has_own_hosts:
            return dict.fromkeys(self.hosts, self.port_name)
        return {host: names.listener_at(self.port_name, host) for host in self.hosts}

    def is_bound_in(self, listeners: Container[str]) -> bool:
        """All of its listeners are among those that Envoy has taken."""
        return all(name in listeners for name in self.sockets.values())

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
        meta = self.owner.metadata
        if self.listener_set is not None:
            return names.set_listener(meta.namespace, meta.name, self.spec.name)
        return names.listener(meta.namespace, meta.name, self.spec.name)


def bind_listeners(
    gateways: Sequence[ServedGateway], resolver: Resolver, sets: Sequence[ServedSet] = ()
) -> list[BoundListener]:
    """All listeners of accepted Gateways, with those that share a port under one name.

    On one machine Gateways share the ports; in a cluster each has an Envoy of its own.
    """
    ports = _Ports()
    bound: list[BoundListener] = []
    for served in gateways:
        if served.problem is not None:
            continue
        if not resolver.options.is_alone:
            ports = _Ports()
        own = [
            ports.take(_candidate(served, None, spec, resolver))
            for spec in served.gateway.spec.listeners
        ]
        bound += own
        # A Gateway without a valid listener is not accepted, and takes nobody in.
        if any(item.is_served for item in own):
            bound += [ports.take(item) for item in _of_sets(served, sets, resolver)]
    return _with_overlaps(bound)


def _of_sets(
    served: ServedGateway, sets: Sequence[ServedSet], resolver: Resolver
) -> Iterator[BoundListener]:
    for item in sets:
        if item.served.gateway.ref == served.gateway.ref and item.refusal is None:
            for spec in item.listener_set.spec.listeners:
                yield _candidate(served, item.listener_set, spec, resolver)


def _candidate(
    served: ServedGateway, listener_set: ListenerSet | None, spec: Listener, resolver: Resolver
) -> BoundListener:
    gateway = served.gateway
    bound = BoundListener(
        gateway,
        spec,
        "",
        hosts=served.binding.hosts(resolver.options),
        has_own_hosts=bool(served.binding.addresses),
        listener_set=listener_set,
    )
    problem = _own_problem(served, spec)
    if problem is not None:
        return replace(bound, conflict=problem)
    certificates = tls.certificate_refs(resolver, bound.owner, spec)
    trust = client_trust(resolver, gateway, spec.port) if spec.protocol == tls.HTTPS else None
    if isinstance(trust, Unresolved):
        problem = ("NoValidCACertificate", trust.message)
    return replace(bound, certificates=certificates, trust=trust, conflict=problem)


def _own_problem(served: ServedGateway, spec: Listener) -> tuple[str, str] | None:
    if spec.protocol not in PROTOCOLS:
        message = f"Protocol {spec.protocol} is not supported; use HTTP or HTTPS"
        return ("UnsupportedProtocol", message)
    if not served.binding.is_bound:
        return ("AddressNotUsable", served.binding.unusable or "The Gateway has no address")
    return None


@dataclass(slots=True)
class _Ports:
    """Who has which port already."""

    names: dict[tuple[tuple[str, ...], int], str] = field(default_factory=dict)
    """By addresses and port: the name of Envoy's listener."""
    owners: dict[tuple[tuple[str, ...], int], list[BoundListener]] = field(default_factory=dict)
    groups: dict[tuple[str, int], tuple[str, ...]] = field(default_factory=dict)
    """By address and port: the addresses of the listener that is there."""

    def take(self, bound: BoundListener) -> BoundListener:
        """Give a listener its place, or say who stands there."""
        if bound.conflict is not None:
            # What cannot be had at all is told only where another has not got the port.
            is_foreign = bound.spec.protocol not in (*PROTOCOLS, UDP)
            problem = self._protocol_conflict(bound) if is_foreign else None
            return replace(bound, port_name=bound.xds_name, conflict=problem or bound.conflict)
        place = (bound.hosts, bound.spec.port)
        problem = self._problem(bound)
        if problem is not None:
            return replace(
                bound, port_name=bound.xds_name, conflict=problem, certificates=(), trust=None
            )
        result = replace(bound, port_name=self.names.get(place, bound.xds_name))
        if result.is_served:
            self.names.setdefault(place, bound.xds_name)
            for host in bound.hosts:
                self.groups.setdefault((host, bound.spec.port), bound.hosts)
        self.owners.setdefault(place, []).append(result)
        return result

    def _problem(self, bound: BoundListener) -> tuple[str, str] | None:
        port = bound.spec.port
        for host in bound.hosts:
            if self.groups.get((host, port), bound.hosts) != bound.hosts:
                message = (
                    f"Another Gateway has port {port} of {host} with other addresses beside it"
                )
                return ("PortUnavailable", message)
        conflict = self._protocol_conflict(bound)
        if conflict is not None:
            return conflict
        for other in self.owners.get((bound.hosts, port), ()):
            if other.hostname.lower() == bound.hostname.lower():
                message = (
                    f"Port {port} with hostname {bound.hostname} is taken by listener "
                    f"{other.spec.name} of {other.owner.ref}"
                )
                return ("HostnameConflict", message)
        return None

    def _protocol_conflict(self, bound: BoundListener) -> tuple[str, str] | None:
        port = bound.spec.port
        for first in self.owners.get((bound.hosts, port), ())[:1]:
            if first.spec.protocol != bound.spec.protocol:
                message = (
                    f"Port {port} speaks {first.spec.protocol} for listener {first.spec.name} of "
                    f"{first.owner.ref}"
                )
                return ("ProtocolConflict", message)
        return None


def _with_overlaps(bound: Sequence[BoundListener]) -> list[BoundListener]:
    """Each HTTPS listener with those of its port whose hostnames meet its own."""
    secure = [item for item in bound if item.spec.protocol == tls.HTTPS and item.conflict is None]
    found = {
        item.xds_name: tuple(
            other.spec.name
            for other in secure
            if other is not item
            and other.port_name == item.port_name
            and hostnames.intersection(item.hostname, other.hostname) is not None
        )
        for item in secure
    }
    return [
        replace(item, overlaps=found[item.xds_name]) if found.get(item.xds_name) else item
        for item in bound
    ]
