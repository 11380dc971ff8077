"""Clusters and their endpoints, in the shape of Envoy Gateway v1.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.any_pb2 import Any as AnyMessage

from pointsman.gateway import names, snapshot
from pointsman.gateway.backends import cluster_settings
from pointsman.gateway.backends.references import Address, Destination
from pointsman.gateway.backends.upstream_tls import UpstreamTLS, transport_socket
from pointsman.gateway.messages import ADS, packed, pipe_address, seconds, socket_address, wrapped
from pointsman.gateway.snapshot import EnvoyResource, Key
from pointsman.resources.backend_settings import BackendSettings
from pointsman.resources.base import Ref

CONNECT_TIMEOUT_S = 10.0
BUFFER_LIMIT_BYTES = 32 * 1024
DNS_REFRESH_S = 30
MAX_RETRIES = 1024

HTTP2_OPTIONS = {
    "initial_stream_window_size": wrapped(64 * 1024),
    "initial_connection_window_size": wrapped(1024 * 1024),
}


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What a policy may say of a cluster."""

    connect_timeout_s: float = CONNECT_TIMEOUT_S
    breakers: dict[str, Any] = field(default_factory=dict)
    """Fields of Envoy's circuit breaker thresholds."""
    is_http2: bool = False
    policy: BackendSettings | None = None
    """What a policy changes of all this."""
    keeps_header_case: bool = False
    """Headers of HTTP/1 go on with their letters as clients write them."""
    check_host: str = ""
    """What health checks say in their Host where the policy names none."""
    tls: UpstreamTLS | None = None
    """How to speak TLS to the servers; None for in the clear."""
    client_certificate: Ref | None = None
    """The Secret with the certificate that servers are shown that ask for one."""


@dataclass(frozen=True, slots=True)
class Locality:
    """One backend among those of a cluster."""

    region: str
    weight: int
    addresses: tuple[Address, ...]
    is_fallback: bool = False
    """It gets requests only where the others are not well enough."""


def locality(
    rule: str, label: str, weight: int, destination: Destination, *, is_fallback: bool = False
) -> Locality:
    """A backend of a rule, or of a policy's processor."""
    region = names.rule_backend(rule, label)
    return Locality(region, weight, destination.addresses, is_fallback or destination.is_fallback)


def host_of(destination: Destination) -> str:
    """What health checks say in their Host: the first server's name, or the object's."""
    if destination.needs_dns and destination.addresses:
        return destination.addresses[0].host
    return f"{destination.ref.name}.{destination.ref.namespace}"


def eds_cluster(
    name: str, localities: Sequence[Locality], settings: ClusterSettings, origins: tuple[Ref, ...]
) -> list[EnvoyResource]:
    """A cluster whose addresses are known: the cluster, and its endpoints beside it."""
    message = _cluster(name, settings)
    message.type = cluster_pb2.Cluster.EDS
    message.eds_cluster_config.CopyFrom(
        cluster_pb2.Cluster.EdsClusterConfig(eds_config=ADS, service_name=name)
    )
    message.ignore_health_on_host_removal = True
    _follow_policy(message, settings)
    return [
        EnvoyResource.of(Key(snapshot.CLUSTER, name), message, origins),
        endpoints(name, localities, origins),
    ]


def dns_cluster(
    name: str, localities: Sequence[Locality], settings: ClusterSettings, origins: tuple[Ref, ...]
) -> list[EnvoyResource]:
    """A cluster whose hosts are names that Envoy resolves and resolves again."""
    message = _cluster(name, settings)
    message.type = cluster_pb2.Cluster.STRICT_DNS
    message.dns_refresh_rate.CopyFrom(seconds(DNS_REFRESH_S))
    message.respect_dns_ttl = True
    message.load_assignment.CopyFrom(_load_assignment(name, localities))
    _follow_policy(message, settings)
    return [EnvoyResource.of(Key(snapshot.CLUSTER, name), message, origins)]


def endpoints(name: str, localities: Sequence[Locality], origins: tuple[Ref, ...]) -> EnvoyResource:
    """The endpoints of an EDS cluster."""
    message = _load_assignment(name, localities)
    return EnvoyResource.of(Key(snapshot.ENDPOINTS, name), message, origins)


def http2_protocol_options() -> dict[str, AnyMessage]:
    """Speak HTTP/2 to the servers of a cluster, whatever the client speaks."""
    options = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": HTTP2_OPTIONS}
    )
    return {names.HTTP_PROTOCOL_OPTIONS: packed(options)}


def _cluster(name: str, settings: ClusterSettings) -> cluster_pb2.Cluster:
    breakers = {"max_retries": wrapped(MAX_RETRIES), **settings.breakers}
    tls = settings.tls
    return cluster_pb2.Cluster(
        name=name,
        connect_timeout=seconds(settings.connect_timeout_s),
        lb_policy="LEAST_REQUEST",
        dns_lookup_family="V4_PREFERRED",
        common_lb_config={"locality_weighted_lb_config": {}},
        per_connection_buffer_limit_bytes=wrapped(BUFFER_LIMIT_BYTES),
        circuit_breakers={"thresholds": [breakers]},
        transport_socket=(
            transport_socket(tls, settings.is_http2, settings.client_certificate)
            if tls is not None and not tls.is_broken
            else None
        ),
        typed_extension_protocol_options=(http2_protocol_options() if settings.is_http2 else None),
    )


def _follow_policy(message: cluster_pb2.Cluster, settings: ClusterSettings) -> None:
    if settings.policy is not None:
        cluster_settings.apply(settings.policy, message, settings.check_host)
    if settings.keeps_header_case and not settings.is_http2:
        cluster_settings.keep_header_case(message)


def _load_assignment(
    name: str, localities: Sequence[Locality]
) -> endpoint_pb2.ClusterLoadAssignment:
    # Envoy's priorities begin at 0, whoever is there to have it.
    has_first = any(item.weight > 0 and not item.is_fallback for item in localities)
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[
            {
                "locality": {"region": item.region},
                "load_balancing_weight": wrapped(item.weight),
                "priority": int(item.is_fallback and has_first),
                "lb_endpoints": [
                    {
                        "load_balancing_weight": wrapped(1),
                        "endpoint": {"address": _address(address)},
                    }
                    for address in item.addresses
                ],
            }
            for item in localities
            if item.weight > 0
        ],
    )


def _address(address: Address) -> dict[str, Any]:
    if address.port == 0:
        return pipe_address(address.host)
    return socket_address(address.host, address.port)
