"""Which server of a cluster is next, and what of a request says that it is the same one again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.gateway.messages import seconds, wrapped
from pointsman.resources.backend_settings import ConsistentHash, LoadBalancer
from pointsman.resources.durations import gateway_seconds

POLICIES = {
    "RoundRobin": "ROUND_ROBIN",
    "LeastRequest": "LEAST_REQUEST",
    "Random": "RANDOM",
    "ConsistentHash": "MAGLEV",
}


def ignored(settings: LoadBalancer) -> Iterator[str]:
    """Fields that change nothing here."""
    if settings.endpoint_override is not None:
        yield "loadBalancer.endpointOverride"
    if settings.zone_aware is not None:
        yield "loadBalancer.zoneAware"


def apply(settings: LoadBalancer, cluster: cluster_pb2.Cluster) -> None:
    """Write how a cluster's servers are chosen."""
    cluster.lb_policy = cluster_pb2.Cluster.LbPolicy.Value(POLICIES[settings.type])
    if settings.slow_start is not None:
        window = {"slow_start_window": seconds(gateway_seconds(settings.slow_start.window))}
        if settings.type == "RoundRobin":
            cluster.round_robin_lb_config.slow_start_config.CopyFrom(_slow_start(window))
        elif settings.type == "LeastRequest":
            cluster.least_request_lb_config.slow_start_config.CopyFrom(_slow_start(window))
    if settings.consistent_hash is not None:
        size = wrapped(settings.consistent_hash.table_size)
        cluster.maglev_lb_config.CopyFrom(cluster_pb2.Cluster.MaglevLbConfig(table_size=size))


def hash_policies(settings: LoadBalancer | None) -> list[route_pb2.RouteAction.HashPolicy]:
    """What of a request is hashed; several together make one key."""
    spec = settings.consistent_hash if settings is not None else None
    if spec is None:
        return []
    if spec.type == "SourceIP":
        return [_hash(connection_properties={"source_ip": True})]
    if spec.cookie is not None:
        return [_cookie(spec)]
    named = (spec.header, *spec.headers) if spec.header is not None else spec.headers
    return [
        *(_hash(header={"header_name": item.name}) for item in named),
        *(_hash(query_parameter={"name": item.name}) for item in spec.query_params),
    ]


def _cookie(spec: ConsistentHash) -> route_pb2.RouteAction.HashPolicy:
    cookie: dict[str, Any] = {}
    if spec.cookie is not None:
        cookie["name"] = spec.cookie.name
        if spec.cookie.ttl is not None:
            cookie["ttl"] = seconds(gateway_seconds(spec.cookie.ttl))
        cookie["attributes"] = [
            {"name": name, "value": value} for name, value in sorted(spec.cookie.attributes.items())
        ]
    return _hash(cookie=cookie)


def _hash(**what: Any) -> route_pb2.RouteAction.HashPolicy:
    return route_pb2.RouteAction.HashPolicy(**what)


def _slow_start(window: dict[str, Any]) -> cluster_pb2.Cluster.SlowStartConfig:
    return cluster_pb2.Cluster.SlowStartConfig(**window)
