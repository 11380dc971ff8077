"""ClientTrafficPolicy of Envoy Gateway: how listeners speak with clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pointsman.resources.backend_settings import HTTP2, TCPKeepalive
from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.envoy_gateway import GROUP
from pointsman.resources.fields import Broken, Duration, Flag, Quantity, UInt32
from pointsman.resources.gateways import SecretObjectRef
from pointsman.resources.http_routes import HeaderModifier
from pointsman.resources.policy_targets import PolicyTargets

PLAIN_HEADER = r"^[A-Za-z0-9-]+$"
SPKIHash = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""SHA-256 in base64."""
CertificateHash = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$")]
"""SHA-256 in hexadecimal, with or without colons."""
TLSVersion = Literal["Auto", "1.0", "1.1", "1.2", "1.3"]
_LEAST = {"Auto": 0, "1.0": 1, "1.1": 2, "1.2": 3, "1.3": 4}
_MOST = {"1.0": 1, "1.1": 2, "1.2": 3, "1.3": 4, "Auto": 5}


class HTTPClientTimeout(Model):
    """How long a client may take."""

    request_received_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    stream_idle_timeout: Duration | None = None


class TCPClientTimeout(Model):
    """How long a connection of bytes may be silent."""

    idle_timeout: Duration | None = None


class ClientTimeout(Model):
    """Timeouts towards clients."""

    http: HTTPClientTimeout | None = None
    tcp: TCPClientTimeout | None = None


class ConnectionLimit(Model):
    """How many connections a listener takes at once."""

    value: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)] | None = None
    close_delay: Duration | None = None
    max_connection_duration: Duration | None = None
    max_requests_per_connection: UInt32 | None = None
    max_stream_duration: Duration | None = None


class ClientConnection(Model):
    """Connections of clients; buffers in bytes, or a quantity like `32Ki`."""

    connection_limit: ConnectionLimit | None = None
    buffer_limit: Quantity | None = None
    socket_buffer_limit: Quantity | None = None
    max_accept_per_socket_event: UInt32 | None = None


class HTTP10(Model):
    """HTTP/1.0 is spoken."""

    use_default_host: Flag | None = None


class HTTP1(Model):
    """Settings of HTTP/1."""

    enable_trailers: Flag | None = None
    preserve_header_case: Flag | None = None
    http10: HTTP10 | None = None
    disable_safe_max_connection_duration: Flag | None = None
    ignored_upgrade_types: tuple[dict[str, Any], ...] = ()


class PathSettings(Model):
    """What is made of a client's path."""

    escaped_slashes_action: (
        Literal["KeepUnchanged", "RejectRequest", "UnescapeAndForward", "UnescapeAndRedirect"]
        | None
    ) = None
    disable_merge_slashes: Flag | None = None


class ClientHeaders(Model):
    """What is made of a client's headers."""

    enable_envoy_headers: Flag | None = None
    disable_rate_limit_headers: Flag | None = None
    x_forwarded_client_cert: dict[str, Any] | None = None
    with_underscores_action: Literal["Allow", "RejectRequest", "DropHeader"] | None = None
    preserve_x_request_id: Flag | None = Field(default=None, alias="preserveXRequestID")
    request_id: Literal["PreserveOrGenerate", "Preserve", "Generate", "Disable"] | None = Field(
        default=None, alias="requestID"
    )
    early_request_headers: HeaderModifier | None = None
    late_response_headers: HeaderModifier | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.preserve_x_request_id is not None and self.request_id is not None:
            yield ("preserveXRequestID",), "must not stand beside requestID"


class XForwardedFor(Model):
    """Proxies in front of the gateway: how many, or which."""

    num_trusted_hops: UInt32 | None = None
    trusted_cidrs: tuple[str, ...] = Field(default=(), alias="trustedCIDRs")
    disable_x_forwarded_for_append: Flag | None = None

    def _broken(self) -> Iterator[Broken]:
        if (self.num_trusted_hops is not None) == bool(self.trusted_cidrs):
            yield (), "must have exactly one of numTrustedHops and trustedCIDRs"


class CustomHeader(Model):
    """A trusted header that holds the client's address."""

    name: str = Field(min_length=1, max_length=255, pattern=PLAIN_HEADER)
    fail_closed: Flag | None = None


class ClientIPDetection(Model):
    """Where a client's address is found."""

    x_forwarded_for: XForwardedFor | None = None
    custom_header: CustomHeader | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.x_forwarded_for is not None and self.custom_header is not None:
            yield ("customHeader",), "must not stand beside xForwardedFor"


class StringMatch(Model):
    """A text as it must be."""

    type: Literal["Exact", "Prefix", "Suffix", "RegularExpression"] = "Exact"
    value: str = Field(min_length=1, max_length=1024)


class OtherName(StringMatch):
    """A name of another type, by its OID."""

    oid: str


class AltNames(Model):
    """Names of which a certificate must have one."""

    dns_names: tuple[StringMatch, ...] = ()
    email_addresses: tuple[StringMatch, ...] = ()
    ip_addresses: tuple[StringMatch, ...] = ()
    uris: tuple[StringMatch, ...] = ()
    other_names: tuple[OtherName, ...] = ()


class ClientValidation(Model):
    """Which certificates of clients are taken."""

    optional: Flag = False
    ca_certificate_refs: tuple[SecretObjectRef, ...] = Field(default=(), max_length=8)
    spki_hashes: tuple[SPKIHash, ...] = ()
    certificate_hashes: tuple[CertificateHash, ...] = ()
    subject_alt_names: AltNames | None = None
    crl: dict[str, Any] | None = None


class ClientTLS(Model):
    """TLS towards clients."""

    min_version: TLSVersion | None = None
    max_version: TLSVersion | None = None
    ciphers: tuple[str, ...] = ()
    ecdh_curves: tuple[str, ...] = ()
    signature_algorithms: tuple[str, ...] = ()
    alpn_protocols: tuple[Literal["http/1.0", "http/1.1", "h2"], ...] | None = None
    client_validation: ClientValidation | None = None
    session: dict[str, Any] | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.min_version == "1.3" and self.ciphers:
            yield ("ciphers",), "has no effect when minVersion is 1.3; leave it out"
        if self.max_version is not None:
            least = self.min_version or "1.2"
            if _LEAST[least] > _MOST[self.max_version]:
                yield ("maxVersion",), f"must not be below minVersion, which is {least}"


class ListenerHealthCheck(Model):
    """A path that the gateway itself answers with 200."""

    path: str = Field(min_length=1, max_length=1024)


class ProxyProtocolSettings(Model):
    """Connections begin with the client's address."""

    optional: Flag = False


class ClientPolicySpec(PolicyTargets):
    """How listeners of the targets speak with clients."""

    TARGET_KINDS: ClassVar[tuple[str, ...]] = ("Gateway", "ListenerSet")

    tcp_keepalive: TCPKeepalive | None = None
    enable_proxy_protocol: Flag | None = None
    proxy_protocol: ProxyProtocolSettings | None = None
    client_ip_detection: ClientIPDetection | None = Field(default=None, alias="clientIPDetection")
    tls: ClientTLS | None = None
    path: PathSettings | None = None
    headers: ClientHeaders | None = None
    timeout: ClientTimeout | None = None
    connection: ClientConnection | None = None
    http1: HTTP1 | None = None
    http2: HTTP2 | None = None
    http3: dict[str, Any] | None = None
    grpc: dict[str, Any] | None = None
    health_check: ListenerHealthCheck | None = None
    scheme: Literal["Preserve", "MatchBackend"] | None = None


class ClientTrafficPolicy(Resource):
    """Timeouts, limits, protocols, TLS and headers, for listeners."""

    KIND: ClassVar[Kind] = Kind(
        GROUP, "v1alpha1", "ClientTrafficPolicy", "clienttrafficpolicies", ("ctp",)
    )

    spec: ClientPolicySpec
