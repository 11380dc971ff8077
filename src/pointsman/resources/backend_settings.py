"""How Envoy Gateway's policies say that backends are spoken to: timeouts, breakers, checks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from pointsman.resources.base import Model
from pointsman.resources.fields import (
    Broken,
    Count32,
    Duration,
    Flag,
    Int32,
    IntOrString,
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


class CircuitBreaker(Model):
    """How much may be under way at once."""

    max_connections: UInt32 = 1024
    max_pending_requests: UInt32 = 1024
    max_parallel_requests: UInt32 = 1024
    max_parallel_retries: UInt32 = 1024
    max_requests_per_connection: UInt32 | None = None


class BackendConnection(Model):
    """Buffers of a connection: bytes, or a quantity like `32Ki`."""

    buffer_limit: IntOrString | None = None
    socket_buffer_limit: IntOrString | None = None


class DNS(Model):
    """How names are resolved."""

    dns_refresh_rate: str | None = None
    """A Go duration."""
    respect_dns_ttl: Flag | None = None


class HealthCheckPayload(Model):
    """Bytes to send or to expect, as text or as base64."""

    type: str
    text: str | None = None
    binary: str | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (("Text", "text", self.text), ("Binary", "binary", self.binary))
        yield from set_for_type(self.type, fields)


class HTTPHealthCheck(Model):
    """A check by an HTTP request."""

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

    type: str
    timeout: str = "1s"
    interval: str = "3s"
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
    interval: str = "3s"
    consecutive_local_origin_failures: Int32 = 5
    consecutive_gateway_errors: Int32 = 0
    consecutive_5xx_errors: Int32 = Field(default=5, alias="consecutive5XxErrors")
    base_ejection_time: str = "30s"
    max_ejection_percent: Int32 = 10


class HealthCheck(Model):
    """How bad servers are noticed."""

    active: ActiveHealthCheck | None = None
    passive: PassiveHealthCheck | None = None


class HTTP2(Model):
    """Settings of HTTP/2: bytes, or quantities like `64Ki`."""

    initial_stream_window_size: IntOrString | None = None
    initial_connection_window_size: IntOrString | None = None
    max_concurrent_streams: Positive32 | None = None
    on_invalid_message: str | None = None


class HashHeader(Model):
    """The header that is hashed."""

    name: str


class HashCookie(Model):
    """The cookie that is hashed, and made when absent and `ttl` is set."""

    name: str
    ttl: str | None = None
    attributes: dict[str, str] = Field(default_factory=dict)


class ConsistentHash(Model):
    """The same key goes to the same server."""

    type: Literal["SourceIP", "Header", "Cookie"]
    header: HashHeader | None = None
    cookie: HashCookie | None = None
    table_size: Annotated[int, Field(strict=True, ge=2, le=5_000_011)] = 65537

    def _broken(self) -> Iterator[Broken]:
        fields = (("Header", "header", self.header), ("Cookie", "cookie", self.cookie))
        yield from set_for_type(self.type, fields)


class SlowStart(Model):
    """New servers get less at first."""

    window: str


class LoadBalancer(Model):
    """Which server is next."""

    type: Literal["ConsistentHash", "LeastRequest", "Random", "RoundRobin"]
    consistent_hash: ConsistentHash | None = None
    slow_start: SlowStart | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (("ConsistentHash", "consistentHash", self.consistent_hash),)
        yield from set_for_type(self.type, fields)
        if self.type in ("Random", "ConsistentHash") and self.slow_start is not None:
            yield ("slowStart",), f"must not be set when type is {self.type}"


class ProxyProtocol(Model):
    """The client's address is told ahead of a connection."""

    version: Literal["V1", "V2"]


class BackOff(Model):
    """How long to wait between tries (Go durations)."""

    base_interval: str | None = None
    max_interval: str | None = None


class PerRetry(Model):
    """Limits of one try."""

    timeout: str | None = None
    back_off: BackOff | None = None


class RetryOn(Model):
    """What is tried again."""

    triggers: tuple[RetryTrigger, ...] = ()
    http_status_codes: tuple[HTTPStatus, ...] = ()


class BackendRetry(Model):
    """Failed requests are tried again."""

    num_retries: Count32 = 2
    retry_on: RetryOn | None = None
    per_retry: PerRetry | None = None


class TCPKeepalive(Model):
    """Probes on idle connections."""

    probes: Int32 | None = None
    idle_time: Duration | None = None
    interval: Duration | None = None


class TCPTimeout(Model):
    """Timeouts of connections."""

    connect_timeout: Duration | None = None


class HTTPTimeout(Model):
    """Timeouts of HTTP."""

    connection_idle_timeout: Duration | None = None
    max_connection_duration: Duration | None = None
    request_timeout: Duration | None = None


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
