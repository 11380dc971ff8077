"""What a policy of Envoy Gateway may say of a cluster, written into the cluster.

The same settings come from a BackendTrafficPolicy for a route's servers and from the
`backendSettings` of an EnvoyExtensionPolicy for an external processor's. Defaults are those of the
cluster as it was made; a policy changes what it names. On the cluster of a pool a load balancer
changes nothing, because the pool's picker picks.

What Envoy would refuse is found here, as a problem of the policy, so that it costs no cluster.
"""

from __future__ import annotations

from collections.abc import Iterator

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import address_pb2, protocol_pb2
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from pointsman.gateway import names
from pointsman.gateway.backends import health_checks, load_balancing, socket_options
from pointsman.gateway.messages import packed, seconds, wrapped
from pointsman.resources.backend_settings import (
    HTTP2,
    BackendConnection,
    BackendSettings,
    CircuitBreaker,
    HTTPTimeout,
    TCPKeepalive,
)
from pointsman.resources.durations import gateway_seconds, go_seconds
from pointsman.resources.quantities import quantity_bytes
from pointsman.resources.traffic_policies import TrafficPolicySpec

LOOKUP_FAMILIES = {
    "IPv4": "V4_ONLY",
    "IPv6": "V6_ONLY",
    "IPv4Preferred": "V4_PREFERRED",
    "IPv6Preferred": "AUTO",
    "IPv4AndIPv6": "ALL",
}
"""Envoy's AUTO asks for IPv6 first."""

PRESERVE_CASE = "envoy.http.stateful_header_formatters.preserve_case"
LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES = 65_535, 2**31 - 1
MOST_BUFFER_BYTES = 2**32 - 1
MOST_SOCKET_BUFFER_BYTES = 2**31 - 1
LEAST_REFRESH_S = 0.001
MOST_PRECONNECT_PERCENT = 300


def problems(settings: BackendSettings) -> list[str]:
    """What Envoy would refuse: the field, and what is wrong."""
    return list(_problems(settings))


def apply(
    settings: BackendSettings, cluster: cluster_pb2.Cluster, host: str, *, is_pool: bool = False
) -> None:
    """Write the settings into a cluster that is complete but for them.

    `host` is what health checks say in their Host where the policy names none.
    """
    protocol = _protocol(cluster)
    is_http2 = protocol.explicit_http_config.HasField("http2_protocol_options")
    tcp = settings.timeout.tcp if settings.timeout is not None else None
    if tcp is not None and tcp.connect_timeout is not None:
        cluster.connect_timeout.CopyFrom(seconds(gateway_seconds(tcp.connect_timeout)))
    if settings.timeout is not None and settings.timeout.http is not None:
        _http_timeouts(settings.timeout.http, protocol.common_http_protocol_options)
    if settings.circuit_breaker is not None:
        _breakers(settings.circuit_breaker, cluster)
        limit = settings.circuit_breaker.max_requests_per_connection
        if limit:
            options = protocol.common_http_protocol_options
            options.max_requests_per_connection.value = limit
    if settings.connection is not None:
        _connection(settings.connection, cluster)
    if settings.tcp_keepalive is not None:
        cluster.upstream_connection_options.CopyFrom(_keepalive(settings.tcp_keepalive))
    if settings.http2 is not None and is_http2:
        write_http2(settings.http2, protocol.explicit_http_config.http2_protocol_options)
    if settings.load_balancer is not None and not is_pool:
        load_balancing.apply(settings.load_balancer, cluster)
    if isinstance(settings, TrafficPolicySpec) and settings.use_client_protocol and not is_pool:
        _use_client_protocol(protocol)
    _health(settings, cluster, host, is_http2)
    _names(settings, cluster)
    if protocol.ByteSize():
        _keep_protocol(cluster, protocol)


def keep_header_case(cluster: cluster_pb2.Cluster) -> None:
    """Send headers on with their letters as they came, where HTTP/1 is spoken."""
    protocol = _protocol(cluster)
    if protocol.HasField("use_downstream_protocol_config"):
        options = protocol.use_downstream_protocol_config.http_protocol_options
    else:
        options = protocol.explicit_http_config.http_protocol_options
    formatter = options.header_key_format.stateful_formatter
    formatter.name = PRESERVE_CASE
    formatter.typed_config.CopyFrom(packed(preserve_case_pb2.PreserveCaseFormatterConfig()))
    _keep_protocol(cluster, protocol)


def write_http2(settings: HTTP2, options: protocol_pb2.Http2ProtocolOptions) -> None:
    """HTTP/2's windows, streams, pings and what a broken message ends."""
    if settings.initial_stream_window_size is not None:
        size = quantity_bytes(settings.initial_stream_window_size)
        options.initial_stream_window_size.value = size
    if settings.initial_connection_window_size is not None:
        size = quantity_bytes(settings.initial_connection_window_size)
        options.initial_connection_window_size.value = size
    if settings.max_concurrent_streams is not None:
        options.max_concurrent_streams.value = settings.max_concurrent_streams
    if settings.on_invalid_message is not None:
        only_stream = settings.on_invalid_message == "TerminateStream"
        options.override_stream_error_on_invalid_http_message.value = only_stream
    pings = settings.connection_keepalive
    if pings is not None:
        for name in ("interval", "timeout", "connection_idle_interval"):
            text = getattr(pings, name)
            if text is not None:
                getattr(options.connection_keepalive, name).CopyFrom(seconds(gateway_seconds(text)))


def http2_problems(settings: HTTP2) -> Iterator[str]:
    """What Envoy would refuse of HTTP/2's settings."""
    for name, value in (
        ("initialStreamWindowSize", settings.initial_stream_window_size),
        ("initialConnectionWindowSize", settings.initial_connection_window_size),
    ):
        if value is not None and not (
            LEAST_WINDOW_BYTES <= quantity_bytes(value) <= MOST_WINDOW_BYTES
        ):
            yield f"http2.{name} must be from {LEAST_WINDOW_BYTES} to {MOST_WINDOW_BYTES} bytes"
    pings = settings.connection_keepalive
    if pings is not None:
        if pings.timeout is None:
            yield "http2.connectionKeepalive.timeout is required"
        elif gateway_seconds(pings.timeout) <= 0:
            yield "http2.connectionKeepalive.timeout must be longer than 0s"
        for name, text in (
            ("interval", pings.interval),
            ("connectionIdleInterval", pings.connection_idle_interval),
        ):
            if text is not None and gateway_seconds(text) <= 0:
                yield f"http2.connectionKeepalive.{name} must be longer than 0s"


def size_problem(name: str, value: int | str | None, most: int) -> Iterator[str]:
    """A number of bytes that is none, or more than Envoy can count."""
    if value is not None and not 0 < quantity_bytes(value) <= most:
        yield f"{name} must be from 1 to {most} bytes"


def _problems(settings: BackendSettings) -> Iterator[str]:
    tcp = settings.timeout.tcp if settings.timeout is not None else None
    if tcp is not None and tcp.connect_timeout and gateway_seconds(tcp.connect_timeout) == 0:
        yield "timeout.tcp.connectTimeout must be longer than 0s"
    connection = settings.connection
    if connection is not None:
        yield from size_problem(
            "connection.bufferLimit", connection.buffer_limit, MOST_BUFFER_BYTES
        )
        yield from size_problem(
            "connection.socketBufferLimit",
            connection.socket_buffer_limit,
            MOST_SOCKET_BUFFER_BYTES,
        )
        ahead = connection.preconnect
        percent = ahead.predictive_percent if ahead is not None else None
        if percent is not None and percent > MOST_PRECONNECT_PERCENT:
            most = MOST_PRECONNECT_PERCENT
            yield f"connection.preconnect.predictivePercent must be at most {most}"
    if settings.http2 is not None:
        yield from http2_problems(settings.http2)
    rate = settings.dns.dns_refresh_rate if settings.dns is not None else None
    if rate is not None and go_seconds(rate) <= LEAST_REFRESH_S:
        yield "dns.dnsRefreshRate must be longer than 1ms"
    if settings.health_check is not None:
        for text in health_checks.problems(settings.health_check):
            yield f"healthCheck.{text}"
    yield from _retry_problems(settings)


def _retry_problems(settings: BackendSettings) -> Iterator[str]:
    per = settings.retry.per_retry if settings.retry is not None else None
    wait = per.back_off if per is not None else None
    if wait is None:
        return
    base = gateway_seconds(wait.base_interval) if wait.base_interval is not None else None
    most = gateway_seconds(wait.max_interval) if wait.max_interval is not None else None
    if base is not None and base <= 0:
        yield "retry.perRetry.backOff.baseInterval must be longer than 0s"
    if most is not None and (base is None or most < base):
        yield "retry.perRetry.backOff.maxInterval must not be shorter than baseInterval"


def _http_timeouts(settings: HTTPTimeout, options: protocol_pb2.HttpProtocolOptions) -> None:
    named = {
        "idle_timeout": settings.connection_idle_timeout,
        "max_connection_duration": settings.max_connection_duration,
        "max_stream_duration": settings.max_stream_duration,
    }
    for name, text in named.items():
        if text is not None:
            getattr(options, name).CopyFrom(seconds(gateway_seconds(text)))


def _breakers(settings: CircuitBreaker, cluster: cluster_pb2.Cluster) -> None:
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds
    limits = cluster.circuit_breakers
    del limits.thresholds[:]
    limits.thresholds.append(
        thresholds(
            max_connections=wrapped(settings.max_connections),
            max_pending_requests=wrapped(settings.max_pending_requests),
            max_requests=wrapped(settings.max_parallel_requests),
            max_retries=wrapped(settings.max_parallel_retries),
        )
    )
    if settings.per_endpoint is not None:
        most = wrapped(settings.per_endpoint.max_connections)
        limits.per_host_thresholds.append(thresholds(max_connections=most))


def _connection(settings: BackendConnection, cluster: cluster_pb2.Cluster) -> None:
    if settings.buffer_limit is not None:
        cluster.per_connection_buffer_limit_bytes.value = quantity_bytes(settings.buffer_limit)
    if settings.socket_buffer_limit is not None:
        options = socket_options.buffers(quantity_bytes(settings.socket_buffer_limit))
        cluster.upstream_bind_config.CopyFrom(address_pb2.BindConfig(socket_options=options))
    ahead = settings.preconnect
    if ahead is not None and ahead.per_endpoint_percent is not None:
        ratio = cluster.preconnect_policy.per_upstream_preconnect_ratio
        ratio.value = ahead.per_endpoint_percent / 100
    if ahead is not None and ahead.predictive_percent is not None:
        cluster.preconnect_policy.predictive_preconnect_ratio.value = ahead.predictive_percent / 100


def _keepalive(settings: TCPKeepalive) -> cluster_pb2.UpstreamConnectionOptions:
    probes = address_pb2.TcpKeepalive()
    if settings.probes is not None:
        probes.keepalive_probes.value = settings.probes
    if settings.idle_time is not None:
        probes.keepalive_time.value = round(gateway_seconds(settings.idle_time))
    if settings.interval is not None:
        probes.keepalive_interval.value = round(gateway_seconds(settings.interval))
    return cluster_pb2.UpstreamConnectionOptions(tcp_keepalive=probes)


def _health(
    settings: BackendSettings, cluster: cluster_pb2.Cluster, host: str, is_http2: bool
) -> None:
    given = settings.health_check
    if given is None:
        return
    # Envoy refuses a cluster with a gRPC check that does not speak HTTP/2.
    if given.active is not None and (is_http2 or given.active.type != "GRPC"):
        del cluster.health_checks[:]
        cluster.health_checks.append(health_checks.active_check(given.active, host, is_http2))
    if given.passive is not None:
        cluster.outlier_detection.CopyFrom(health_checks.outlier_detection(given.passive))
    if given.panic_threshold is not None:
        cluster.common_lb_config.healthy_panic_threshold.value = given.panic_threshold


def _names(settings: BackendSettings, cluster: cluster_pb2.Cluster) -> None:
    """How names are resolved; it is nothing to a cluster of addresses."""
    given = settings.dns
    if given is None or cluster.type != cluster_pb2.Cluster.STRICT_DNS:
        return
    if given.dns_refresh_rate is not None:
        cluster.dns_refresh_rate.CopyFrom(seconds(go_seconds(given.dns_refresh_rate)))
    if given.respect_dns_ttl is not None:
        cluster.respect_dns_ttl = given.respect_dns_ttl
    if given.lookup_family is not None:
        family = LOOKUP_FAMILIES[given.lookup_family]
        cluster.dns_lookup_family = cluster_pb2.Cluster.DnsLookupFamily.Value(family)


def _use_client_protocol(protocol: http_protocol_options_pb2.HttpProtocolOptions) -> None:
    known = protocol.explicit_http_config.http2_protocol_options
    http2 = protocol_pb2.Http2ProtocolOptions()
    http2.CopyFrom(known)
    protocol.use_downstream_protocol_config.http_protocol_options.SetInParent()
    protocol.use_downstream_protocol_config.http2_protocol_options.CopyFrom(http2)


def _protocol(cluster: cluster_pb2.Cluster) -> http_protocol_options_pb2.HttpProtocolOptions:
    """The protocol that a cluster speaks as it was made."""
    result = http_protocol_options_pb2.HttpProtocolOptions()
    if names.HTTP_PROTOCOL_OPTIONS in cluster.typed_extension_protocol_options:
        cluster.typed_extension_protocol_options[names.HTTP_PROTOCOL_OPTIONS].Unpack(result)
    return result


def _keep_protocol(
    cluster: cluster_pb2.Cluster, protocol: http_protocol_options_pb2.HttpProtocolOptions
) -> None:
    if protocol.WhichOneof("upstream_protocol_options") is None:
        protocol.explicit_http_config.http_protocol_options.SetInParent()
    cluster.typed_extension_protocol_options[names.HTTP_PROTOCOL_OPTIONS].CopyFrom(packed(protocol))
