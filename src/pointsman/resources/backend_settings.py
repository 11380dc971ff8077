"""How Envoy Gateway's policies say that backends are spoken to: timeouts, breakers, checks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pointsman.resources.base import Model
from pointsman.resources.fields import (
    Broken,
    Count32,
    Duration,
    Flag,
    GoDuration,
    HeaderName,
    Int32,
    PreciseHostname,
    Quantity,
    UInt32,
    set_for_type,
)

Positive32 = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
HTTPStatus = Annotated[int, Field(strict=True, ge=100, le=600)]
RetryTrigger = Literal[
    "5xx",
    "gateway-error",
    "reset",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
]


class EndpointLimits(Model):
    """How much may be under way at once with one server."""

    max_connections: UInt32 = 1024


class CircuitBreaker(Model):
    """How much may be under way at once."""

    max_connections: UInt32 = 1024
    max_pending_requests: UInt32 = 1024
    max_parallel_requests: UInt32 = 1024
    max_parallel_retries: UInt32 = 1024
    max_requests_per_connection: UInt32 | None = None
    per_endpoint: EndpointLimits | None = None


class Preconnect(Model):
    """Connections that are opened before they are needed, in percent of those that are."""

    per_endpoint_percent: Annotated[int, Field(strict=True, ge=100, le=300)] | None = None
    predictive_percent: Annotated[int, Field(strict=True, ge=100, le=2**31 - 1)] | None = None


class BackendConnection(Model):
    """Buffers of a connection: bytes, or a quantity like `32Ki`."""

    buffer_limit: Quantity | None = None
    socket_buffer_limit: Quantity | None = None
    preconnect: Preconnect | None = None


class DNS(Model):
    """How names are resolved."""

    dns_refresh_rate: GoDuration | None = None
    respect_dns_ttl: Flag | None = None
    lookup_family: (
        Literal["IPv4", "IPv6", "IPv4Preferred", "IPv6Preferred", "IPv4AndIPv6"] | None
    ) = None


class HealthCheckPayload(Model):
    """Bytes to send or to expect, as text or as base64."""

    type: Literal["Text", "Binary"]
    text: str | None = None
    binary: str | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (("Text", "text", self.text), ("Binary", "binary", self.binary))
        yield from set_for_type(self.type, fields)


class HTTPHealthCheck(Model):
    """A check by an HTTP request."""

    hostname: PreciseHostname | None = None
    """What the check says in `Host`."""
    path: str = Field(min_length=1, max_length=1024)
    method: str | None = None
    expected_statuses: tuple[HTTPStatus, ...] = ()
    expected_response: HealthCheckPayload | None = None


class TCPHealthCheck(Model):
    """A check by bytes on a connection."""

    send: HealthCheckPayload | None = None
    receive: HealthCheckPayload | None = None


class GRPCHealthCheck(Model):
    """A check by the gRPC health service."""

    service: str | None = None


class ActiveHealthCheck(Model):
    """Servers are asked whether they are well."""

    type: Literal["HTTP", "TCP", "GRPC"]
    timeout: GoDuration = "1s"
    interval: GoDuration = "3s"
    initial_jitter: Duration | None = None
    unhealthy_threshold: Positive32 = 3
    healthy_threshold: Positive32 = 1
    http: HTTPHealthCheck | None = None
    tcp: TCPHealthCheck | None = None
    grpc: GRPCHealthCheck | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (("HTTP", "http", self.http), ("TCP", "tcp", self.tcp))
        yield from set_for_type(self.type, fields)
        if self.grpc is not None and self.type != "GRPC":
            yield ("grpc",), f"must not be set when type is {self.type}"


class PassiveHealthCheck(Model):
    """Servers that answer badly are left out for a while."""

    split_external_local_origin_errors: Flag = False
    interval: GoDuration = "3s"
    consecutive_local_origin_failures: Count32 = 5
    consecutive_gateway_errors: Count32 = 0
    consecutive_5xx_errors: Count32 = Field(default=5, alias="consecutive5XxErrors")
    base_ejection_time: GoDuration = "30s"
    max_ejection_percent: Int32 = 10
    failure_percentage_threshold: UInt32 | None = None
    always_eject_one_endpoint: Flag | None = None


class HealthCheck(Model):
    """How bad servers are noticed."""

    active: ActiveHealthCheck | None = None
    passive: PassiveHealthCheck | None = None
    panic_threshold: Annotated[int, Field(strict=True, ge=0, le=100)] | None = None
    """Percent: with fewer servers well, all are taken for well."""


class HTTP2Keepalive(Model):
    """Pings on a connection; one without an answer in time ends it."""

    interval: Duration | None = None
    timeout: Duration | None = None
    connection_idle_interval: Duration | None = None


class HTTP2(Model):
    """Settings of HTTP/2: bytes, or quantities like `64Ki`."""

    initial_stream_window_size: Quantity | None = None
    initial_connection_window_size: Quantity | None = None
    max_concurrent_streams: Positive32 | None = None
    on_invalid_message: Literal["TerminateConnection", "TerminateStream"] | None = None
    connection_keepalive: HTTP2Keepalive | None = None


class HashHeader(Model):
    """The header that is hashed."""

    name: HeaderName


class HashQueryParam(Model):
    """The query parameter that is hashed."""

    name: str = Field(min_length=1)


class HashCookie(Model):
    """The cookie that is hashed, and made when absent and `ttl` is set."""

    name: str = Field(min_length=1)
    ttl: Duration | None = None
    attributes: dict[str, str] = Field(default_factory=dict)


class ConsistentHash(Model):
    """The same key goes to the same server."""

    type: Literal["SourceIP", "Header", "Headers", "Cookie", "QueryParams"]
    header: HashHeader | None = None
    headers: tuple[HashHeader, ...] = ()
    cookie: HashCookie | None = None
    query_params: tuple[HashQueryParam, ...] = ()
    table_size: Annotated[int, Field(strict=True, ge=2, le=5_000_011)] = 65537

    def _broken(self) -> Iterator[Broken]:
        fields = (
            ("Header", "header", self.header),
            ("Headers", "headers", self.headers or None),
            ("Cookie", "cookie", self.cookie),
            ("QueryParams", "queryParams", self.query_params or None),
        )
        yield from set_for_type(self.type, fields)
        if not _is_prime(self.table_size):
            yield ("tableSize",), f"must be a prime number, is {self.table_size}"


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


class SlowStart(Model):
    """New servers get less at first."""

    window: Duration


class LoadBalancer(Model):
    """Which server is next."""

    type: Literal["ConsistentHash", "LeastRequest", "Random", "RoundRobin"]
    consistent_hash: ConsistentHash | None = None
    slow_start: SlowStart | None = None
    endpoint_override: dict[str, Any] | None = None
    """Kept for show: a server that a client's header names is a hole in the edge."""
    zone_aware: dict[str, Any] | None = None
    """Kept for show: one machine is one zone."""

    def _broken(self) -> Iterator[Broken]:
        fields = (("ConsistentHash", "consistentHash", self.consistent_hash),)
        yield from set_for_type(self.type, fields)
        if self.type in ("Random", "ConsistentHash") and self.slow_start is not None:
            yield ("slowStart",), f"must not be set when type is {self.type}"


class ProxyProtocol(Model):
    """The client's address is told ahead of a connection."""

    version: Literal["V1", "V2"]


class BackOff(Model):
    """How long to wait between tries."""

    base_interval: Duration | None = None
    max_interval: Duration | None = None


class PerRetry(Model):
    """Limits of one try."""

    timeout: Duration | None = None
    back_off: BackOff | None = None


class RetryOn(Model):
    """What is tried again."""

    triggers: tuple[RetryTrigger, ...] = ()
    http_status_codes: tuple[HTTPStatus, ...] = ()


class BackendRetry(Model):
    """Failed requests are tried again."""

    num_retries: Count32 = 2
    num_attempts_per_priority: Count32 | None = None
    """After so many tries the next are for servers of another priority."""
    retry_on: RetryOn | None = None
    per_retry: PerRetry | None = None


class TCPKeepalive(Model):
    """Probes on idle connections."""

    probes: UInt32 | None = None
    idle_time: Duration | None = None
    interval: Duration | None = None


class TCPTimeout(Model):
    """Timeouts of connections."""

    connect_timeout: Duration | None = None


class HTTPTimeout(Model):
    """Timeouts of HTTP."""

    connection_idle_timeout: Duration | None = None
    max_connection_duration: Duration | None = None
    max_stream_duration: Duration | None = None
    request_timeout: Duration | None = None
    stream_idle_timeout: Duration | None = None


class BackendTimeout(Model):
    """How long things may take."""

    tcp: TCPTimeout | None = None
    http: HTTPTimeout | None = None


class BackendSettings(Model):
    """How a backend is spoken to."""

    circuit_breaker: CircuitBreaker | None = None
    connection: BackendConnection | None = None
    dns: DNS | None = None
    health_check: HealthCheck | None = None
    http2: HTTP2 | None = None
    load_balancer: LoadBalancer | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry: BackendRetry | None = None
    tcp_keepalive: TCPKeepalive | None = None
    timeout: BackendTimeout | None = None
