"""EnvoyProxy of Envoy Gateway: how the Envoys of a Gateway or GatewayClass are run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.envoy_gateway import GROUP
from pointsman.resources.envoy_infrastructure import KubernetesProvider
from pointsman.resources.fields import Broken, Flag, GoDuration, set_for_type

LogLevel = Literal["trace", "debug", "info", "warn", "error"]
LogComponent = Literal[
    "default",
    "system",
    "upstream",
    "http",
    "connection",
    "admin",
    "client",
    "filter",
    "main",
    "router",
    "runtime",
]


class ProxyProvider(Model):
    """What an Envoy is made of; in a cluster, a Deployment and a Service."""

    type: Literal["Kubernetes", "Host"]
    kubernetes: KubernetesProvider | None = None
    host: dict[str, Any] | None = None


class ProxyLogging(Model):
    """How much Envoy says, by component."""

    level: dict[LogComponent, LogLevel] = Field(default_factory=dict)


class BootstrapPatch(Model):
    """One JSON patch operation (RFC 6902) on the bootstrap."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str | None = None
    json_path: str | None = None
    from_: str | None = Field(default=None, alias="from")
    value: Any = None


class ProxyBootstrap(Model):
    """What is changed of Envoy's first configuration."""

    type: Literal["Merge", "Replace", "JSONPatch"] = "Replace"
    value: str | None = None
    """YAML."""
    json_patches: tuple[BootstrapPatch, ...] = ()

    def _broken(self) -> Iterator[Broken]:
        if self.type == "JSONPatch":
            yield from set_for_type(
                self.type,
                (
                    ("JSONPatch", "jsonPatches", self.json_patches or None),
                    ("Merge", "value", self.value),
                ),
            )
        elif self.value is None:
            yield ("value",), f"is required when type is {self.type}"


class Shutdown(Model):
    """How an Envoy ends."""

    drain_timeout: GoDuration | None = None
    min_drain_duration: GoDuration | None = None


class FilterPosition(Model):
    """Where an HTTP filter stands, by its kind (`envoy.filters.http.ext_proc`)."""

    name: str
    before: str | None = None
    after: str | None = None

    def _broken(self) -> Iterator[Broken]:
        if (self.before is None) == (self.after is None):
            yield (), "must have exactly one of before and after"


class AccessLogFormat(Model):
    """What a line of the access log says."""

    type: Literal["Text", "JSON"] | None = None
    text: str | None = None
    json_: dict[str, str] | None = Field(default=None, alias="json")

    def _broken(self) -> Iterator[Broken]:
        wanted = self.type or ("JSON" if self.json_ is not None else "Text")
        fields = (("Text", "text", self.text), ("JSON", "json", self.json_))
        yield from set_for_type(wanted, fields)


class FileSink(Model):
    """A file that access logs go to; `/dev/stdout` is the output of Envoy."""

    path: str = Field(min_length=1)


class AccessLogSink(Model):
    """Where access logs go."""

    type: Literal["File", "ALS", "OpenTelemetry"]
    file: FileSink | None = None
    als: dict[str, Any] | None = None
    open_telemetry: dict[str, Any] | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (
            ("File", "file", self.file),
            ("ALS", "als", self.als),
            ("OpenTelemetry", "openTelemetry", self.open_telemetry),
        )
        yield from set_for_type(self.type, fields)


class AccessLogSettings(Model):
    """One access log: its format, its sinks, and which requests it tells of."""

    format: AccessLogFormat | None = None
    matches: tuple[str, ...] = ()
    """Expressions of CEL; all must hold."""
    sinks: tuple[AccessLogSink, ...] = Field(default=(), max_length=50)
    type: Literal["Listener", "Route"] | None = None


class AccessLog(Model):
    """The access logs of an Envoy."""

    disable: Flag = False
    settings: tuple[AccessLogSettings, ...] = ()


class PrometheusMetrics(Model):
    """Metrics for Prometheus."""

    disable: Flag = False
    compression: dict[str, Any] | None = None


class ProxyMetrics(Model):
    """The metrics of an Envoy."""

    prometheus: PrometheusMetrics | None = None
    sinks: tuple[dict[str, Any], ...] = ()
    matches: tuple[dict[str, Any], ...] = ()
    enable_virtual_host_stats: Flag | None = None
    enable_per_endpoint_stats: Flag | None = None
    enable_request_response_sizes_stats: Flag | None = None
    cluster_stat_name: str | None = None


class ProxyTelemetry(Model):
    """What an Envoy tells of its requests."""

    access_log: AccessLog | None = None
    tracing: dict[str, Any] | None = None
    metrics: ProxyMetrics | None = None
    request_id: dict[str, Any] | None = Field(default=None, alias="requestID")


class ProxySpec(Model):
    """How Envoys are run. What is only kept for show is a plain mapping."""

    provider: ProxyProvider | None = None
    logging: ProxyLogging = ProxyLogging()
    telemetry: ProxyTelemetry | None = None
    bootstrap: ProxyBootstrap | None = None
    concurrency: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] | None = None
    routing_type: Literal["Service", "Endpoint"] | None = None
    extra_args: tuple[str, ...] = ()
    merge_gateways: Flag | None = None
    shutdown: Shutdown | None = None
    filter_order: tuple[FilterPosition, ...] = ()
    backend_tls: dict[str, Any] | None = Field(default=None, alias="backendTLS")
    ip_family: Literal["IPv4", "IPv6", "DualStack"] | None = Field(default=None, alias="ipFamily")
    preserve_route_order: Flag | None = None
    lua_validation: str | None = None
    dynamic_modules: tuple[dict[str, Any], ...] = ()
    geo_ip: dict[str, Any] | None = Field(default=None, alias="geoIP")


class EnvoyProxy(Resource):
    """How the Envoys of a Gateway or GatewayClass are run."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1alpha1", "EnvoyProxy", "envoyproxies", ("eproxy", "ep"))

    spec: ProxySpec = ProxySpec()
