"""What one route adds to Envoy's configuration.

A route's part is made from the route, from what its references lead to, and from the scene, and
from nothing else. While these stay, the part stays as it is, whatever happens to other routes: one
changed route among thousands costs the making of one part. Envoy's routes are kept as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from envoy.config.route.v3 import route_components_pb2 as components_pb2
from google.protobuf.message import Message

from pointsman.gateway import names
from pointsman.gateway.backends.references import Destination, Resolver, Unresolved
from pointsman.gateway.listeners import attachment, hostnames
from pointsman.gateway.listeners.attachment import Attachment, RouteParent
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.messages import packed
from pointsman.gateway.options import Options
from pointsman.gateway.policies.extensions import Extension
from pointsman.gateway.routes import labels, rules, upstreams
from pointsman.gateway.routes.meetings import Meeting, Meetings, PolicyView, policy_view
from pointsman.gateway.scene import Scene
from pointsman.gateway.snapshot import EnvoyResource
from pointsman.resources.base import Ref
from pointsman.resources.gateway_api import ParentRef, Route
from pointsman.resources.traffic_policies import TrafficPolicySpec

SortKey = tuple[Any, ...]


class Host(NamedTuple):
    """A virtual host: the route configuration that it is in, and its hostname."""

    route_config: str
    hostname: str


class Entry(NamedTuple):
    """One of Envoy's routes."""

    order: SortKey
    """Sorts it among the routes of its host: the first that matches counts."""
    content: bytes


@dataclass(frozen=True, slots=True)
class HostEntries:
    """What a route adds to one virtual host."""

    listener: BoundListener
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RoutePart:
    """A route, what became of its parentRefs, and what it adds."""

    ref: Ref
    age_key: tuple[str, str, str]
    view: PolicyView
    route: Route
    version: int
    """Of the route in the store."""
    parents: tuple[RouteParent, ...] = ()
    orphans: tuple[ParentRef, ...] = ()
    """The parentRefs that name nothing that is served, where nobody else will say so."""
    rules: tuple[rules.Rule, ...] = ()
    hosts: Mapping[Host, HostEntries] = field(default_factory=dict)
    """Empty where the route is not served."""
    gateways: tuple[Ref, ...] = ()
    """Those through which it is served."""
    clusters: tuple[EnvoyResource, ...] = ()

    pools: tuple[Destination, ...] = ()
    """The pools that it leads to."""
    filters: Mapping[str, Message] = field(default_factory=dict)
    """The HTTP filters that it switches on, by name, beside the processors."""
    processors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The filters of policies' processors that it switches on, by route configuration."""
    pool_policies: Mapping[Ref, TrafficPolicySpec] = field(default_factory=dict)
    """What its policies say of the servers of the pools that it leads to."""

    listeners: tuple[str, ...] = ()
    """The names of the listeners that count it as theirs."""
    refused: str | None = None
    """What Envoy has to say of it, where it is left out for that."""
    fault: Exception | None = None
    """What went wrong in Pointsman itself, where it is left out for that."""


def part_of(
    route: Route, version: int, scene: Scene, resolver: Resolver, refused: str | None = None
) -> RoutePart:
    """The part of a route as it is now; `refused` is what Envoy is known to say of it."""
    parents = _parents(route, scene)
    orphans = tuple(_orphans(route, scene)) if scene.options.is_alone else ()
    followed = tuple(
        rules.follow(route, resolver, is_counted=labels.route_name(route) in scene.counted)
    )
    attachments = [item for parent in parents for item in parent.attachments]
    view = policy_view(route, followed, parents)
    known = (route.ref, route.age_key, view, route, version, parents, orphans, followed)
    # A route that asks for what is not served is not served by half.
    if any(rule.unsupported for rule in followed):
        return RoutePart(*known)
    if refused is not None:
        return RoutePart(*known, refused=refused)
    listeners = tuple(dict.fromkeys(name for parent in parents for name in parent.listeners))
    if not attachments:
        return RoutePart(*known, listeners=listeners)
    met = Meetings(route, scene)
    certificate = _client_certificate(attachments, scene)
    hosts: dict[Host, HostEntries] = {}
    for item in attachments:
        meetings = [met.at(rule, item.listener) for rule in followed]
        sharing = scene.neighbours[item.listener.port_name]
        door = _door(item.listener, scene.options)
        for hostname in item.hostnames:
            host = Host(item.listener.route_config, hostname)
            if host not in hosts and _owns(item.listener, hostname, sharing):
                entries = tuple(
                    entry for meeting in meetings for entry in _entries(meeting, hostname, door)
                )
                hosts[host] = HostEntries(item.listener, entries)
    return RoutePart(
        *known,
        hosts,
        gateways=tuple(dict.fromkeys(item.listener.gateway.ref for item in hosts.values())),
        clusters=tuple(
            each
            for rule in followed
            for each in upstreams.rule_clusters(
                rule, replace(met.asked_of(rule), client_certificate=certificate)
            )
        ),
        pools=tuple(each for rule in followed for each in rule.pools),
        filters={
            name: config for rule in followed for name, config in rule.listener_filters.items()
        }
        | met.filters,
        processors=met.processors,
        pool_policies=met.pool_policies,
        listeners=listeners,
    )


def _client_certificate(attachments: Sequence[Attachment], scene: Scene) -> Ref | None:
    """What the backends of a route are shown: the certificate that all of its Gateways have.

    A cluster speaks for all Gateways that lead to it, so it names none where they do not agree.
    """
    found = {scene.client_certificates.get(item.listener.gateway.ref) for item in attachments}
    agreed = found.pop() if len(found) == 1 else None
    return None if isinstance(agreed, Unresolved) else agreed


def faulty_part(
    route: Route, version: int, scene: Scene, refused: str | None, fault: Exception
) -> RoutePart:
    """The part of a route with which something went wrong in Pointsman itself: it is not served."""
    parents = _parents(route, scene)
    view = policy_view(route, (), parents)
    known = (route.ref, route.age_key, view, route, version, parents)
    return RoutePart(*known, refused=refused, fault=fault)


def leads_where_it_led(part: RoutePart, resolver: Resolver) -> bool:
    """Whether all references of a part lead to what they led to when it was made."""
    return all(
        resolver.resolve(part.ref, target, port) is found
        for rule in part.rules
        for target, port, found in rule.references
    )


def _parents(route: Route, scene: Scene) -> tuple[RouteParent, ...]:
    return tuple(
        attachment.attach(route, scene.parent_of, scene.listeners_of, scene.namespace_labels)
    )


def _orphans(route: Route, scene: Scene) -> Iterator[ParentRef]:
    for parent in route.spec.parent_refs:
        if attachment.parent_ref(route, parent) not in scene.parent_of:
            yield parent


def _owns(listener: BoundListener, hostname: str, sharing: Sequence[BoundListener]) -> bool:
    """No narrower listener of the port takes the hostname: a request belongs to one listener."""
    rank = hostnames.specificity(listener.hostname)
    return not any(
        hostnames.specificity(other.hostname) < rank and hostnames.covers(other.hostname, hostname)
        for other in sharing
    )


def _door(listener: BoundListener, options: Options) -> rules.Door:
    spec = listener.spec
    # On one machine clients come to the port that is really bound.
    port = options.bound_port(spec.port) if options.is_alone else spec.port
    return rules.Door(spec.protocol.lower(), port)


def _entries(meeting: Meeting, hostname: str, door: rules.Door) -> Iterator[Entry]:
    rule, extension = meeting.rule, meeting.extension
    for index, match in enumerate(rule.matches):
        if extension is not None and extension.problem is not None:
            route = components_pb2.Route(match=match.envoy, direct_response={"status": 500})
        else:
            route = rules.envoy_route(rule, match, door, meeting.policy)
            _enable(extension, route)
        route.name = names.route(rule.name, index, hostname)
        order = (*match.precedence, *rule.route.age_key, rule.index, index)
        yield Entry(order, route.SerializeToString(deterministic=True))


def _enable(extension: Extension | None, route: components_pb2.Route) -> None:
    """Switch the processors of a policy on for this route; on the listener they are off."""
    if extension is None or route.WhichOneof("action") == "redirect":
        return
    # A filter configuration that says nothing but: on.
    on = packed(components_pb2.FilterConfig(config={}))
    for processor in extension.processors:
        route.typed_per_filter_config[processor.filter_name].CopyFrom(on)
