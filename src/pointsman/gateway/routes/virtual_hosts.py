"""The route configuration of a port: its virtual hosts, each with its routes in order.

A route configuration is put together from bytes: what a virtual host holds is only sorted and
joined, and a virtual host that is as it was is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as components_pb2
from envoy.config.route.v3 import route_pb2

from pointsman.gateway import names, snapshot
from pointsman.gateway.listeners import hostnames
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.routes.parts import Entry, HostEntries, RoutePart
from pointsman.gateway.scene import Scene
from pointsman.gateway.snapshot import EnvoyResource, Key
from pointsman.gateway.wire_format import with_entries
from pointsman.resources.base import Ref

_in_order = attrgetter("order")
_MISDIRECTED = (
    Entry(
        (),
        components_pb2.Route(
            name="misdirected", match={"prefix": "/"}, direct_response={"status": 421}
        ).SerializeToString(deterministic=True),
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class VirtualHost:
    """A virtual host as it was put together, and from what."""

    parts: tuple[HostEntries, ...]
    content: bytes


@dataclass(frozen=True, slots=True, eq=False)
class RouteConfigurations:
    """All route configurations, with what helps to make the next ones."""

    hosts: Mapping[str, Mapping[str, VirtualHost]] = field(default_factory=dict)
    """By the name of the route configuration and by hostname."""
    resources: Mapping[str, EnvoyResource] = field(default_factory=dict)
    """By name."""


def route_configurations(
    scene: Scene, parts: Iterable[RoutePart], before: RouteConfigurations
) -> RouteConfigurations:
    """The route configurations of every port; what is as it was comes from `before`.

    `before` was made with the same scene, or is empty.
    """
    found: dict[str, dict[str, list[HostEntries]]] = {}
    sources: dict[str, dict[Ref, None]] = {name: {} for name in scene.sharing}
    for name, sharing in scene.sharing.items():
        found[name] = _without_routes(name, scene.neighbours[sharing[0].port_name])
    for part in parts:
        for host, entries in part.hosts.items():
            found[host.route_config].setdefault(host.hostname, []).append(entries)
            sources[host.route_config][part.ref] = None
    hosts: dict[str, Mapping[str, VirtualHost]] = {}
    resources: dict[str, EnvoyResource] = {}
    for name, sharing in scene.sharing.items():
        known = before.hosts.get(name, {})
        made = {
            hostname: _virtual_host(hostname, items, known.get(hostname))
            for hostname, items in found[name].items()
        }
        hosts[name] = made
        resources[name] = (
            before.resources[name]
            if made == known and name in before.resources
            else _resource(name, sharing, made, sources[name])
        )
    return RouteConfigurations(hosts, resources)


def _without_routes(name: str, neighbours: Sequence[BoundListener]) -> dict[str, list[HostEntries]]:
    """What a route configuration has before its routes, where several listeners share a port.

    A listener without routes still keeps its hostname away from its wider neighbours. A request for
    a host of a listener that another certificate leads to came by the wrong connection, which the
    client is told (421, RFC 9110 section 15.5.20), so that it opens one of its own.
    """
    if len(neighbours) < 2:
        return {}
    return {
        item.hostname: [HostEntries(item, () if item.route_config == name else _MISDIRECTED)]
        for item in neighbours
    }


def _resource(
    name: str,
    sharing: Sequence[BoundListener],
    hosts: Mapping[str, VirtualHost],
    routes: Iterable[Ref],
) -> EnvoyResource:
    message = route_pb2.RouteConfiguration(name=name, ignore_port_in_host_matching=True)
    ordered = sorted(hosts, key=hostnames.specificity)
    content = with_entries(message, "virtual_hosts", (hosts[item].content for item in ordered))
    gateways = dict.fromkeys(item.gateway.ref for item in sharing)
    return EnvoyResource.of_content(
        Key(snapshot.ROUTE_CONFIGURATION, name), content, (*routes, *gateways)
    )


def _virtual_host(
    hostname: str, items: Sequence[HostEntries], before: VirtualHost | None
) -> VirtualHost:
    if before is not None and _are_the_same(before.parts, items):
        return before
    listener = items[0].listener
    message = components_pb2.VirtualHost(
        name=names.virtual_host(listener.xds_name, hostname),
        domains=[hostname],
        metadata=_metadata(listener),
    )
    entries: list[Entry] = sorted((each for item in items for each in item.entries), key=_in_order)
    content = with_entries(message, "routes", (entry.content for entry in entries))
    return VirtualHost(tuple(items), content)


def _are_the_same(before: Sequence[HostEntries], now: Sequence[HostEntries]) -> bool:
    return len(before) == len(now) and all(
        old.entries is new.entries for old, new in zip(before, now, strict=True)
    )


def _metadata(listener: BoundListener) -> base_pb2.Metadata:
    """Whose virtual host it is, in Envoy Gateway's form.

    Envoy Gateway writes the like into every route. Ours say it by their names alone: it would be
    two thirds of what a change costs Envoy.
    """
    gateway = listener.gateway
    named = {
        "kind": gateway.KIND.kind,
        "name": gateway.metadata.name,
        "namespace": gateway.metadata.namespace,
        "sectionName": listener.spec.name,
    }
    result = base_pb2.Metadata()
    result.filter_metadata[names.METADATA_NAMESPACE].update({"resources": [named]})
    return result
