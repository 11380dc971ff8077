"""One rule of a route: where its requests go, and the clusters that this needs.

HTTPRoutes and GRPCRoutes are rules alike: matches, filters, backends. A rule with one kind of
backend has one cluster with a weighted locality for each (the shape of Envoy Gateway, which users'
patches name). Pools, header filters of single backends, and addresses of different kinds need a
cluster for each, under weights on the route. A reference that leads nowhere answers 500 for its
share of the requests (UNAVAILABLE to calls), no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from envoy.config.route.v3 import route_components_pb2 as route_pb2
from google.protobuf.message import Message

from pointsman.gateway import names
from pointsman.gateway.backends import pools
from pointsman.gateway.backends.references import (
    Destination,
    Picker,
    Resolution,
    Resolver,
    Unresolved,
    ref_of,
)
from pointsman.gateway.listeners import token_usage
from pointsman.gateway.messages import packed, wrapped
from pointsman.gateway.routes import cors, filters, labels, limits, sessions, traffic, trust
from pointsman.gateway.routes.matches import Match, grpc_match, http_match
from pointsman.resources.base import Ref
from pointsman.resources.gateway_api import (
    BackendObjectRef,
    CommonFilter,
    GRPCBackendRef,
    GRPCRoute,
    GRPCRouteMatch,
    GRPCRouteRule,
    HTTPBackendRef,
    RequestMirror,
    Retry,
    Route,
    RouteMatch,
    RouteRule,
    SessionPersistence,
    Timeouts,
)
from pointsman.resources.traffic_policies import TrafficPolicySpec

NOWHERE_STATUS = 500
NOWHERE_STATUS_OF_CALLS = 503
"""Envoy tells it to a gRPC client as UNAVAILABLE."""


@dataclass(frozen=True, slots=True)
class RuleBackend:
    """A backendRef and what it leads to."""

    ref: HTTPBackendRef | GRPCBackendRef
    index: int
    label: str
    """Tells it from its neighbours in names."""
    target: Ref
    resolved: Resolution
    blocked: Unresolved | None = None
    """A filter that nobody knows is in the way."""

    @property
    def found(self) -> Resolution:
        """Where its requests go."""
        return self.blocked or self.resolved


@dataclass(frozen=True, slots=True)
class Mirror:
    """A filter that copies requests, and what it leads to."""

    spec: RequestMirror
    index: int
    label: str
    target: Ref
    found: Resolution


@dataclass(frozen=True, slots=True)
class Door:
    """By which way requests come to a route."""

    scheme: str
    """`http` or `https`."""
    port: int
    """The port that clients know."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of whatever kind of route, with its references followed."""

    route: Route
    index: int
    identity: str
    """Tells it from the route's other rules in names."""
    matches: tuple[Match, ...]
    filters: tuple[CommonFilter, ...]
    backends: tuple[RuleBackend, ...]
    mirrors: tuple[Mirror, ...] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None
    blocked: Unresolved | None = None
    """A filter that nobody knows is in the way of all of its requests."""
    unsupported: tuple[str, ...] = ()
    """What it asks for and is not served, in words."""

    @property
    def is_grpc(self) -> bool:
        """Takes calls, and its backends speak HTTP/2."""
        return isinstance(self.route, GRPCRoute)

    @property
    def name(self) -> str:
        """The rule's name, which is also its cluster's."""
        meta = self.route.metadata
        return names.rule(self.route.KIND.kind, meta.namespace, meta.name, self.identity)

    @property
    def label(self) -> str | None:
        """The name that the user gives it, by which policies target it."""
        return self.route.spec.rules[self.index].name

    @property
    def problems(self) -> list[Unresolved]:
        """Why some of its references lead nowhere."""
        found = [*(item.found for item in self.backends), *(item.found for item in self.mirrors)]
        problems = [item for item in found if isinstance(item, Unresolved)]
        return [self.blocked, *problems] if self.blocked is not None else problems

    @property
    def references(self) -> Iterator[tuple[Ref, int | None, Resolution]]:
        """Every object that it names, the port, and what that led to."""
        for item in self.backends:
            yield item.target, item.ref.port, item.resolved
        for mirror in self.mirrors:
            yield mirror.target, mirror.spec.backend_ref.port, mirror.found

    @property
    def pools(self) -> list[Destination]:
        """The pools among its backends."""
        return [item for item in self.destinations if item.pool is not None]

    @property
    def destinations(self) -> list[Destination]:
        """Where it leads."""
        return [item.found for item in self.backends if isinstance(item.found, Destination)]

    @property
    def listener_filters(self) -> dict[str, Message]:
        """The HTTP filters that its routes switch on, by name, beside the processors."""
        found: dict[str, Message] = {}
        if filters.cors_of(self.filters) is not None:
            found[cors.FILTER] = cors.listener_filter()
        if self.session_persistence is not None:
            found[sessions.FILTER] = sessions.listener_filter()
        return found


def follow(route: Route, resolver: Resolver, *, is_counted: bool = False) -> list[Rule]:
    """The rules of a route with their references followed; `is_counted`: name them by position."""
    specs: Sequence[RouteRule | GRPCRouteRule] = route.spec.rules
    found = [_follow(route, index, spec, resolver) for index, spec in enumerate(specs)]
    if is_counted:
        return [_counted(rule) for rule in found]
    identities = labels.distinct(rule.identity for rule in found)
    return [
        replace(rule, identity=identity) if identity != rule.identity else rule
        for rule, identity in zip(found, identities, strict=True)
    ]


def _counted(rule: Rule) -> Rule:
    return replace(
        rule,
        identity=str(rule.index),
        backends=tuple(replace(item, label=str(item.index)) for item in rule.backends),
        mirrors=tuple(replace(item, label=str(item.index)) for item in rule.mirrors),
    )


def _follow(route: Route, index: int, spec: RouteRule | GRPCRouteRule, resolver: Resolver) -> Rule:
    def found(ref: BackendObjectRef) -> tuple[Ref, Resolution]:
        namespace = route.metadata.namespace
        target = ref_of(namespace, ref.group, ref.kind, ref.namespace, ref.name)
        return target, resolver.resolve(route.ref, target, ref.port)

    refs: Sequence[HTTPBackendRef | GRPCBackendRef] = spec.backend_refs
    where = f"rules[{index}]."
    blocked = filters.extension_problem(spec.filters, where)
    targets = [found(ref) for ref in refs]
    marks = labels.distinct(
        labels.target_label(target, ref.port)
        for ref, (target, _) in zip(refs, targets, strict=True)
    )
    backends = tuple(
        RuleBackend(
            *(ref, position, label, *target),
            filters.extension_problem(ref.filters, f"{where}backendRefs[{position}]."),
        )
        for position, (ref, label, target) in enumerate(zip(refs, marks, targets, strict=True))
    )
    copies = [
        (position, item, found(item.backend_ref))
        for position, item in filters.mirrors_of(spec.filters)
    ]
    marks = labels.distinct(
        labels.target_label(target, item.backend_ref.port) for _, item, (target, _) in copies
    )
    mirrors = tuple(
        Mirror(item, position, label, *target)
        for label, (position, item, target) in zip(marks, copies, strict=True)
    )
    matches = _matches(spec)
    identity = labels.rule_label(spec.name, matches)
    unserved = tuple(f"{where}{text}" for text in _unserved(spec, matches, backends, mirrors))
    if isinstance(spec, GRPCRouteRule):
        return Rule(
            *(route, index, identity, matches, spec.filters, backends, mirrors),
            blocked=blocked,
            unsupported=unserved,
        )
    return Rule(
        route,
        index,
        identity,
        matches,
        spec.filters,
        backends,
        mirrors,
        spec.timeouts,
        spec.retry,
        spec.session_persistence,
        blocked,
        unserved,
    )


def _matches(spec: RouteRule | GRPCRouteRule) -> tuple[Match, ...]:
    if isinstance(spec, GRPCRouteRule):
        return tuple(grpc_match(item) for item in spec.matches or (GRPCRouteMatch(),))
    return tuple(http_match(item) for item in spec.matches or (RouteMatch(),))


def _unserved(
    spec: RouteRule | GRPCRouteRule,
    matches: Sequence[Match],
    backends: Sequence[RuleBackend],
    mirrors: Sequence[Mirror],
) -> Iterator[str]:
    """Where in the rule, and in words."""
    for position, match in enumerate(matches):
        yield from (f"matches[{position}]: {text}" for text in match.problems)
    yield from filters.unserved(spec.filters, filters.OF_RULES)
    weighted = [item for item in backends if item.ref.weight > 0]
    # What one backend gets is what the rule gets, so more can be done to it.
    alone = filters.OF_BACKENDS | {"URLRewrite"} if len(weighted) == 1 else filters.OF_BACKENDS
    for backend in backends:
        for text in filters.unserved(backend.ref.filters, alone):
            yield f"backendRefs[{backend.index}].{text}"
    for mirror in mirrors:
        if isinstance(mirror.found, Destination) and mirror.found.pool is not None:
            yield f"filters[{mirror.index}]: RequestMirror to an InferencePool"
    if isinstance(spec, GRPCRouteRule):
        for backend in backends:
            found = backend.found
            if isinstance(found, Destination) and found.pool is not None and not found.is_http2:
                yield f"backendRefs[{backend.index}]: calls to an InferencePool without h2c"
    elif spec.session_persistence is not None:
        yield from sessions.unserved(spec.session_persistence)
        found_ones = [item for item in weighted if isinstance(item.found, Destination)]
        if any(not is_plain(item.found) for item in found_ones):
            yield "sessionPersistence: of an InferencePool"
        elif len(found_ones) > 1 and not _fit_one_cluster(found_ones, is_grpc=False):
            yield "sessionPersistence: of backends that need a cluster each"


def envoy_route(
    rule: Rule, match: Match, door: Door, policy: TrafficPolicySpec | None = None
) -> route_pb2.Route:
    """What happens to requests that meet `match`, under `policy`; its name is for the caller."""
    result = route_pb2.Route(match=match.envoy)
    filters.apply_headers(rule.filters, result)
    origins = filters.cors_of(rule.filters)
    if origins is not None:
        result.typed_per_filter_config[cors.FILTER].CopyFrom(packed(cors.policy(origins)))
    redirect = filters.redirect_of(rule.filters)
    if redirect is not None and rule.blocked is None:
        action = filters.redirect_action(redirect, match.prefix, door.scheme, door.port)
        result.redirect.CopyFrom(action)
        return result
    targets = weighted(rule)
    leads_somewhere = any(isinstance(item.found, Destination) for item in targets)
    if rule.blocked is not None or not leads_somewhere:
        result.direct_response.status = NOWHERE_STATUS_OF_CALLS if rule.is_grpc else NOWHERE_STATUS
        return result
    filters.rewrite(rule.filters, match.prefix, result.route)
    _send(rule, targets, match, result)
    _mirror(rule, result.route)
    _persist(rule, match, result)
    streams = rule.is_grpc or bool(rule.pools)
    limits.apply(rule.timeouts, rule.retry, streams, result.route)
    limits.retry_on_failure(rule.retry, bool(rule.pools), result.route)
    if any(isinstance(item.picker, Picker) and not item.picker.is_pointsman for item in rule.pools):
        limits.keep_for_another_try(result)
    if rule.is_grpc:
        limits.keep_callers_deadline(result.route)
    if policy is not None:
        traffic.apply(policy, rule.timeouts, rule.retry, bool(rule.pools), result)
    return result


def _send(
    rule: Rule,
    targets: Sequence[RuleBackend],
    match: Match,
    result: route_pb2.Route,
) -> None:
    action = result.route
    if not rule.is_grpc:
        action.upgrade_configs.add(upgrade_type="websocket")
    if shares_cluster(rule):
        action.cluster = rule.name
        return
    if len(targets) == 1 and isinstance(targets[0].found, Destination):
        action.cluster = _target_cluster(rule, targets[0])
        filters.apply_headers(targets[0].ref.filters, result)
        filters.rewrite(targets[0].ref.filters, match.prefix, action)
        _ask_picker(rule.route, targets[0].found, result)
        return
    codes = route_pb2.RouteAction.ClusterNotFoundResponseCode
    action.cluster_not_found_response_code = (
        codes.SERVICE_UNAVAILABLE if rule.is_grpc else codes.INTERNAL_SERVER_ERROR
    )
    for item in targets:
        weighted = action.weighted_clusters.clusters.add(
            name=_target_cluster(rule, item), weight=wrapped(item.ref.weight)
        )
        filters.apply_headers(item.ref.filters, weighted)
        if isinstance(item.found, Destination):
            _ask_picker(rule.route, item.found, weighted)


def _ask_picker(
    route: Route,
    destination: Destination,
    target: route_pb2.Route | route_pb2.WeightedCluster.ClusterWeight,
) -> None:
    if destination.pool is None:
        return
    if isinstance(destination.picker, Picker):
        believed = trust.trust_of(route) if destination.picker.is_pointsman else trust.Trust()
        told = believed.metadata
        override = pools.route_override(destination.pool, destination.picker, told)
        if believed.debug:
            trust.show_decision(target)
        target.typed_per_filter_config[names.POOL_FILTER].CopyFrom(packed(override))
    token_usage.on_route(target)


def _mirror(rule: Rule, action: route_pb2.RouteAction) -> None:
    for item in rule.mirrors:
        if isinstance(item.found, Destination):
            policy = filters.mirror_policy(item.spec, names.mirror(rule.name, item.label))
            action.request_mirror_policies.add(**policy)


def _persist(rule: Rule, match: Match, result: route_pb2.Route) -> None:
    if rule.session_persistence is None:
        return
    # Rules have sessions of their own; a cookie's name shows nothing of them.
    name = f"session-{hashlib.sha256(rule.name.encode()).hexdigest()[:12]}"
    config = sessions.on_route(rule.session_persistence, name, match.prefix)
    result.typed_per_filter_config[sessions.FILTER].CopyFrom(packed(config))


def weighted(rule: Rule) -> list[RuleBackend]:
    """The backends that get a share."""
    return [item for item in rule.backends if item.ref.weight > 0]


def is_plain(found: Resolution) -> bool:
    """Servers that get their addresses from the rule's own cluster."""
    return isinstance(found, Destination) and found.pool is None


def shares_cluster(rule: Rule) -> bool:
    """One cluster is enough for all of its backends."""
    return _fit_one_cluster(weighted(rule), rule.is_grpc)


def _fit_one_cluster(targets: Sequence[RuleBackend], is_grpc: bool) -> bool:
    """All fit into one cluster: plain, resolved, alike, without own filters."""
    kinds = {
        (item.found.needs_dns, item.found.is_http2 or is_grpc, item.found.tls)
        for item in targets
        if isinstance(item.found, Destination)
    }
    return len(kinds) == 1 and all(
        is_plain(item.found) and not item.ref.filters for item in targets
    )


def _target_cluster(rule: Rule, backend: RuleBackend) -> str:
    if isinstance(backend.found, Unresolved):
        return names.INVALID_BACKEND_CLUSTER
    if backend.found.pool is not None:
        return names.pool(backend.found.ref)
    return names.rule_backend(rule.name, backend.label)
