"""The objects of Envoy Gateway: Backend, EnvoyExtensionPolicy, EnvoyPatchPolicy, EnvoyGateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pointsman.resources.backend_settings import BackendSettings, HTTPStatus
from pointsman.resources.backend_tls import LocalObjectRef
from pointsman.resources.base import Kind, Lenient, Model, Resource
from pointsman.resources.fields import (
    DNS_NAME,
    Broken,
    Duration,
    Flag,
    Group,
    Int32,
    KindName,
    NamespaceName,
    ObjectName,
    Port,
    PreciseHostname,
)
from pointsman.resources.filter_code import Lua, Wasm
from pointsman.resources.policy_targets import PolicyTargets

GROUP = "gateway.envoyproxy.io"
DEFAULT_CONTROLLER_NAME = "gateway.envoyproxy.io/gatewayclass-controller"
CONFIG_KEY = "envoy-gateway.yaml"
"""The key of a ConfigMap under which an EnvoyGateway configuration is found."""

IP_ADDRESS = (
    r"^((25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)$"
    r"|^(([0-9a-fA-F]{1,4}:){1,7}[0-9a-fA-F]{1,4}|::"
    r"|(([0-9a-fA-F]{1,4}:){0,5})?(:[0-9a-fA-F]{1,4}){1,2})$"
)
ATTRIBUTE = (
    r"^(connection\.|source\.|destination\.|request\.|response\.|upstream\.|xds\.route_)[a-z_1-9]*$"
)
PATCHED_TYPES = Literal[
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
]
BackendPort = Annotated[int, Field(strict=True, ge=0, le=65535)]
Attribute = Annotated[str, Field(pattern=ATTRIBUTE)]


class FQDNEndpoint(Model):
    """A server by its DNS name."""

    hostname: str = Field(min_length=1, max_length=253, pattern=DNS_NAME)
    port: BackendPort


class IPEndpoint(Model):
    """A server by its address."""

    address: str = Field(min_length=3, max_length=45, pattern=IP_ADDRESS)
    port: BackendPort


class UnixSocket(Model):
    """A server of this machine by its socket."""

    path: str


class BackendEndpoint(Model):
    """One server; exactly one of the fields is set."""

    fqdn: FQDNEndpoint | None = None
    ip: IPEndpoint | None = None
    unix: UnixSocket | None = None

    def _broken(self) -> Iterator[Broken]:
        given = [item for item in (self.fqdn, self.ip, self.unix) if item is not None]
        if len(given) != 1:
            yield (), "must have exactly one of fqdn, ip and unix"


class BackendTLS(Model):
    """TLS to a Backend's servers; a BackendTLSPolicy for it goes before all of this."""

    ca_certificate_refs: tuple[LocalObjectRef, ...] = Field(default=(), max_length=8)
    well_known_ca_certificates: Literal["System"] | None = Field(
        default=None, alias="wellKnownCACertificates"
    )
    insecure_skip_verify: Flag = False
    sni: PreciseHostname | None = None
    client_certificate_ref: dict[str, Any] | None = None
    min_version: str | None = None
    max_version: str | None = None
    ciphers: tuple[str, ...] = ()
    ecdh_curves: tuple[str, ...] = ()
    signature_algorithms: tuple[str, ...] = ()
    alpn_protocols: tuple[str, ...] | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.ca_certificate_refs and self.well_known_ca_certificates is not None:
            yield ("wellKnownCACertificates",), "must not stand beside caCertificateRefs"
        believed = bool(self.ca_certificate_refs) or self.well_known_ca_certificates is not None
        if self.insecure_skip_verify and believed:
            yield ("insecureSkipVerify",), "must not stand beside authorities"
        if not self.insecure_skip_verify and not believed:
            message = "needs caCertificateRefs, wellKnownCACertificates or insecureSkipVerify"
            yield (), message


class BackendSpec(Model):
    """Servers outside of the cluster, and how they are spoken to."""

    endpoints: Annotated[tuple[BackendEndpoint, ...], Field(min_length=1, max_length=64)] = ()
    app_protocols: tuple[
        Literal[
            "gateway.envoyproxy.io/h2c", "gateway.envoyproxy.io/ws", "gateway.envoyproxy.io/wss"
        ],
        ...,
    ] = ()
    fallback: Flag | None = None
    tls: BackendTLS | None = None

    def _broken(self) -> Iterator[Broken]:
        named = [item.fqdn is not None for item in self.endpoints]
        if any(named) and not all(named):
            yield ("endpoints",), "must not mix fqdn with other kinds of address"


class Backend(Resource):
    """Servers that are no Service."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1alpha1", "Backend", "backends", ("be",))

    spec: BackendSpec


class ExtensionBackendRef(Model):
    """The server of an extension: a Service or a Backend."""

    group: Group = ""
    kind: KindName = "Service"
    name: ObjectName
    namespace: NamespaceName | None = None
    port: Port | None = None
    fallback: Flag | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.kind not in ("Service", "Backend"):
            yield ("kind",), f"must be Service or Backend, is {self.kind}"
        if self.group not in ("", GROUP):
            yield ("group",), f"must be '' or {GROUP}, is {self.group}"
        if self.group == "" and self.kind == "Service" and self.port is None:
            yield ("port",), "is required for a Service"


class ProcessingSide(Model):
    """What of requests (or of responses) the processor is sent beside the headers."""

    body: Literal["Streamed", "Buffered", "BufferedPartial", "FullDuplexStreamed"] | None = None
    attributes: tuple[Attribute, ...] = ()


class ProcessingMode(Model):
    """What the processor is sent; a side that is absent is not sent at all."""

    allow_mode_override: Flag = False
    request: ProcessingSide | None = None
    response: ProcessingSide | None = None


class ExtProcMetadata(Model):
    """Which dynamic metadata the processor may read and write."""

    accessible_namespaces: tuple[str, ...] = ()
    writable_namespaces: tuple[str, ...] = Field(default=(), max_length=8)

    def _broken(self) -> Iterator[Broken]:
        for position, namespace in enumerate(self.writable_namespaces):
            if namespace.startswith("envoy.filters.http"):
                where = ("writableNamespaces", position)
                yield where, "must not be the namespace of one of Envoy's own HTTP filters"


class ExtProc(Model):
    """An external processor that requests are shown to."""

    backend_ref: dict[str, Any] | None = None
    """Refused, as Envoy Gateway does; named here so that the refusal can say what to do."""
    backend_refs: tuple[ExtensionBackendRef, ...] = Field(default=(), max_length=16)
    backend_settings: BackendSettings | None = None
    message_timeout: Duration | None = None
    fail_open: Flag = False
    status_on_error: HTTPStatus | None = None
    """What a client is answered where the processor fails and that is not let pass."""
    shadow_mode: Flag = False
    """The processor is shown everything, and nobody waits for what it says."""
    processing_mode: ProcessingMode | None = None
    metadata: ExtProcMetadata | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.backend_ref is not None:
            yield ("backendRef",), "is not supported, use backendRefs"


class ExtensionPolicySpec(PolicyTargets):
    """Extensions, and which Gateways or routes they are for."""

    ext_proc: tuple[ExtProc, ...] = Field(default=(), max_length=16)
    lua: tuple[Lua, ...] = Field(default=(), max_length=16)
    wasm: tuple[Wasm, ...] = Field(default=(), max_length=16)


class EnvoyExtensionPolicy(Resource):
    """External processors for Gateways and routes."""

    KIND: ClassVar[Kind] = Kind(
        GROUP, "v1alpha1", "EnvoyExtensionPolicy", "envoyextensionpolicies", ("eep",)
    )

    spec: ExtensionPolicySpec


class PatchOperation(Model):
    """One JSON patch operation (RFC 6902), its place also by JSONPath."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str | None = None
    json_path: str | None = None
    from_: str | None = Field(default=None, alias="from")
    value: Any = None

    @property
    def has_value(self) -> bool:
        """A value was written down (a null is none)."""
        return self.value is not None


class EnvoyPatch(Model):
    """A patch of one generated Envoy resource."""

    type: PATCHED_TYPES
    name: str
    operation: PatchOperation


class PatchTargetRef(Model):
    """The Gateway whose Envoy is patched."""

    group: Group
    kind: KindName
    name: ObjectName


class PatchPolicySpec(Model):
    """Patches, and whose Envoy they are for."""

    type: Literal["JSONPatch"]
    target_ref: PatchTargetRef
    json_patches: tuple[EnvoyPatch, ...] = ()
    priority: Int32 = 0
    """Lower is applied first."""


class EnvoyPatchPolicy(Resource):
    """Patches of the generated Envoy configuration."""

    KIND: ClassVar[Kind] = Kind(
        GROUP, "v1alpha1", "EnvoyPatchPolicy", "envoypatchpolicies", ("epp",)
    )

    spec: PatchPolicySpec


class GatewayConfig(Lenient):
    """Which GatewayClasses are ours."""

    controller_name: str = DEFAULT_CONTROLLER_NAME


class ExtensionAPIs(Lenient):
    """Switches of the optional kinds."""

    enable_backend: Flag = False
    enable_envoy_patch_policy: Flag = False
    disable_lua: Flag = False
    """Lua is not run at all, so that there is nothing to switch off."""


class ProviderConfig(Lenient):
    """Where Envoy Gateway runs; kept for show."""

    type: str = "Kubernetes"
    kubernetes: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


class EnvoyGatewayConfig(Lenient):
    """The configuration of Envoy Gateway itself, as a ConfigMap carries it."""

    api_version: Literal["gateway.envoyproxy.io/v1alpha1"]
    kind: Literal["EnvoyGateway"]
    gateway: GatewayConfig = GatewayConfig()
    provider: ProviderConfig = ProviderConfig()
    extension_apis: ExtensionAPIs = ExtensionAPIs()
    admin: dict[str, Any] | None = None
    extension_manager: dict[str, Any] | None = None
    logging: dict[str, Any] | None = None
    rate_limit: dict[str, Any] | None = None
    telemetry: dict[str, Any] | None = None
