"""One rule of a route: where its requests go, and the clusters that this needs.

A rule with one kind of backend has one cluster with a weighted locality for each (the shape of
Envoy Gateway, which users' patches name). Pools, header filters of single backends, and addresses
of different kinds need a cluster for each, under weights on the route. A reference that leads
nowhere answers 500 for its share of the requests, no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.gateway import clusters, filters, names, pools
from pointsman.gateway.backends import Destination, Resolution, Resolver, Unresolved, ref_of
from pointsman.gateway.messages import packed, seconds, wrapped
from pointsman.gateway.snapshot import EnvoyResource
from pointsman.resources.base import Ref
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.gateway_api import HTTPBackendRef, HTTPRoute, RouteMatch, RouteRule

MIN_IDLE_TIMEOUT_S = 3600.0
"""A stream with a timeout of its own may be silent for at least this long (Envoy Gateway)."""

POOL_IDLE_TIMEOUT_S = 3600.0
"""A route to a pool has no total timeout unless the user sets one: answers stream for long."""

POOL_RETRIES = 2
POOL_RETRY_ON = "connect-failure,reset-before-request"

PickerOf = Callable[[Ref], pools.Picker | None]
"""Who picks for the pool of that reference."""


@dataclass(frozen=True, slots=True)
class RuleBackend:
    """A backendRef and what it leads to."""

    ref: HTTPBackendRef
    index: int
    found: Resolution


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with its references followed."""

    route: HTTPRoute
    index: int
    spec: RouteRule
    backends: tuple[RuleBackend, ...]

    @property
    def name(self) -> str:
        """The rule's name, which is also its cluster's."""
        meta = self.route.metadata
        return names.rule(self.route.KIND.kind, meta.namespace, meta.name, self.index)

    @property
    def problems(self) -> list[Unresolved]:
        """Why some of its references lead nowhere."""
        return [item.found for item in self.backends if isinstance(item.found, Unresolved)]

    @property
    def pools(self) -> list[Destination]:
        """The pools among its backends."""
        return [item for item in self.destinations if item.pool is not None]

    @property
    def destinations(self) -> list[Destination]:
        """Where it leads."""
        return [item.found for item in self.backends if isinstance(item.found, Destination)]

    @property
    def unsupported(self) -> list[str]:
        """What it asks for and is not served, in words."""
        found = [
            *filters.unsupported(self.spec.filters),
            *(kind for item in self.backends for kind in filters.unsupported(item.ref.filters)),
        ]
        problems = [f"filter {kind}" for kind in dict.fromkeys(found)]
        if self.spec.retry is not None:
            problems.append("retry")
        if self.spec.session_persistence is not None:
            problems.append("sessionPersistence")
        return problems


def follow(route: HTTPRoute, resolver: Resolver) -> list[Rule]:
    """The rules of a route with their references followed."""
    result = []
    for index, spec in enumerate(route.spec.rules):
        backends = []
        for position, ref in enumerate(spec.backend_refs):
            target = ref_of(route.metadata.namespace, ref.group, ref.kind, ref.namespace, ref.name)
            found = resolver.resolve(route.ref, target, ref.port)
            backends.append(RuleBackend(ref, position, found))
        result.append(Rule(route, index, spec, tuple(backends)))
    return result


def rule_clusters(rule: Rule) -> list[EnvoyResource]:
    """The clusters of a rule, but for those of pools, which rules share."""
    own = [item for item in _weighted(rule) if _is_plain(item.found)]
    if not own:
        return []
    origins = (rule.route.ref, *(item.ref for item in rule.destinations))
    if _shares_cluster(rule):
        return _cluster(rule.name, rule, own, origins)
    return [
        resource
        for item in own
        for resource in _cluster(names.rule_backend(rule.name, item.index), rule, [item], origins)
    ]


def envoy_route(rule: Rule, match: RouteMatch, picker_of: PickerOf) -> route_pb2.Route:
    """What happens to requests that meet `match`; its name and match are for the caller."""
    result = route_pb2.Route()
    filters.apply_headers(rule.spec.filters, result)
    redirect = filters.redirect_of(rule.spec.filters)
    if redirect is not None:
        result.redirect.CopyFrom(filters.redirect_action(redirect, match))
        return result
    targets = _weighted(rule)
    if not any(isinstance(item.found, Destination) for item in targets):
        result.direct_response.status = 500
        return result
    _send(rule, targets, result, picker_of)
    filters.rewrite(rule.spec.filters, match, result.route)
    _limit_time(rule, result.route)
    return result


def _send(
    rule: Rule,
    targets: Sequence[RuleBackend],
    result: route_pb2.Route,
    picker_of: PickerOf,
) -> None:
    action = result.route
    action.upgrade_configs.add(upgrade_type="websocket")
    if _shares_cluster(rule):
        action.cluster = rule.name
        return
    if len(targets) == 1 and isinstance(targets[0].found, Destination):
        action.cluster = _target_cluster(rule, targets[0])
        filters.apply_headers(targets[0].ref.filters, result)
        filters.rewrite(targets[0].ref.filters, rule.spec.matches[0], action)
        _ask_picker(targets[0].found, result, picker_of)
        return
    action.cluster_not_found_response_code = (
        route_pb2.RouteAction.ClusterNotFoundResponseCode.INTERNAL_SERVER_ERROR
    )
    for item in targets:
        weighted = action.weighted_clusters.clusters.add(
            name=_target_cluster(rule, item), weight=wrapped(item.ref.weight)
        )
        filters.apply_headers(item.ref.filters, weighted)
        if isinstance(item.found, Destination):
            _ask_picker(item.found, weighted, picker_of)


def _ask_picker(
    destination: Destination,
    target: route_pb2.Route | route_pb2.WeightedCluster.ClusterWeight,
    picker_of: PickerOf,
) -> None:
    if destination.pool is None:
        return
    picker = picker_of(destination.ref)
    if picker is not None:
        override = pools.route_override(destination.pool, picker)
        target.typed_per_filter_config[names.POOL_FILTER].CopyFrom(packed(override))


def _limit_time(rule: Rule, action: route_pb2.RouteAction) -> None:
    limit_s = _timeout_s(rule.spec)
    if limit_s is not None:
        action.timeout.CopyFrom(seconds(limit_s))
        action.idle_timeout.CopyFrom(seconds(max(MIN_IDLE_TIMEOUT_S, limit_s)))
    elif rule.pools:
        action.timeout.CopyFrom(seconds(0))
        action.idle_timeout.CopyFrom(seconds(POOL_IDLE_TIMEOUT_S))
    if rule.pools:
        action.retry_policy.retry_on = POOL_RETRY_ON
        action.retry_policy.num_retries.value = POOL_RETRIES


def _timeout_s(spec: RouteRule) -> float | None:
    """The one timeout that Envoy Gateway v1.3 knows: of two, that of the backend counts."""
    if spec.timeouts is None:
        return None
    text = spec.timeouts.backend_request or spec.timeouts.request
    return gateway_seconds(text) if text is not None else None


def _weighted(rule: Rule) -> list[RuleBackend]:
    return [item for item in rule.backends if item.ref.weight > 0]


def _is_plain(found: Resolution) -> bool:
    return isinstance(found, Destination) and found.pool is None


def _shares_cluster(rule: Rule) -> bool:
    """All backends fit into one cluster: plain, resolved, alike, without own filters."""
    targets = _weighted(rule)
    kinds = {
        (item.found.needs_dns, item.found.is_http2)
        for item in targets
        if isinstance(item.found, Destination)
    }
    return len(kinds) == 1 and all(
        _is_plain(item.found) and not item.ref.filters for item in targets
    )


def _cluster(
    name: str, rule: Rule, backends: Sequence[RuleBackend], origins: tuple[Ref, ...]
) -> list[EnvoyResource]:
    found = [(item, item.found) for item in backends if isinstance(item.found, Destination)]
    members = [
        clusters.locality(rule.name, item.index, item.ref.weight, destination)
        for item, destination in found
    ]
    settings = clusters.ClusterSettings(is_http2=any(each.is_http2 for _, each in found))
    make = (
        clusters.dns_cluster if any(each.needs_dns for _, each in found) else clusters.eds_cluster
    )
    return make(name, members, settings, origins)


def _target_cluster(rule: Rule, backend: RuleBackend) -> str:
    if isinstance(backend.found, Unresolved):
        return names.INVALID_BACKEND_CLUSTER
    if backend.found.pool is not None:
        return names.pool(backend.found.ref)
    return names.rule_backend(rule.name, backend.index)
