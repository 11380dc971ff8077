"""What a ClientTrafficPolicy says of a listener, written into Envoy's.

Whatever a policy says, the edge still strips the headers that only a picker may set, and those by
which a client could steer Envoy's router: what a policy does to headers comes before that.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.health_check.v3 import health_check_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.filters.network.connection_limit.v3 import connection_limit_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.http.header_formatters.preserve_case.v3 import preserve_case_pb2
from envoy.extensions.http.original_ip_detection.custom_header.v3 import custom_header_pb2
from envoy.extensions.http.original_ip_detection.xff.v3 import xff_pb2

from pointsman.gateway.backends import cluster_settings, socket_options
from pointsman.gateway.messages import packed, seconds, wrapped
from pointsman.resources.client_policies import (
    HTTP1,
    ClientConnection,
    ClientHeaders,
    ClientIPDetection,
    ClientPolicySpec,
    ClientTimeout,
    PathSettings,
)
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.http_routes import HeaderModifier
from pointsman.resources.quantities import quantity_bytes

CONNECTION_LIMIT = "envoy.filters.network.connection_limit"
PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol"
HEALTH_CHECK = "envoy.filters.http.health_check"

UNDERSCORES = {"Allow": "ALLOW", "RejectRequest": "REJECT_REQUEST", "DropHeader": "DROP_HEADER"}
SLASHES = {
    "KeepUnchanged": "KEEP_UNCHANGED",
    "RejectRequest": "REJECT_REQUEST",
    "UnescapeAndForward": "UNESCAPE_AND_FORWARD",
    "UnescapeAndRedirect": "UNESCAPE_AND_REDIRECT",
}

STEERING = (
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
)
"""Request headers that Envoy takes orders from. It removes them itself at an edge; where another
header tells the client's address it takes itself for no edge."""


def write_manager(
    spec: ClientPolicySpec, hostname: str | None, manager: hcm_pb2.HttpConnectionManager
) -> None:
    """How HTTP is spoken; `hostname` is that of the listener, for requests that name none."""
    common = manager.common_http_protocol_options
    if spec.timeout is not None:
        _timeouts(spec.timeout, manager)
    limit = spec.connection.connection_limit if spec.connection is not None else None
    if limit is not None:
        for name in ("max_connection_duration", "max_stream_duration"):
            text = getattr(limit, name)
            if text is not None:
                getattr(common, name).CopyFrom(seconds(gateway_seconds(text)))
        if limit.max_requests_per_connection:
            common.max_requests_per_connection.value = limit.max_requests_per_connection
    if spec.http1 is not None:
        _http1(spec.http1, hostname, manager)
    if spec.http2 is not None:
        cluster_settings.write_http2(spec.http2, manager.http2_protocol_options)
    if spec.path is not None:
        _path(spec.path, manager)
    if spec.headers is not None:
        _headers(spec.headers, manager)
    if spec.client_ip_detection is not None:
        _address(spec.client_ip_detection, manager)
    if spec.scheme == "MatchBackend":
        manager.scheme_header_transformation.match_upstream = True


def early_mutations(spec: ClientPolicySpec) -> list[dict[str, Any]]:
    """What becomes of request headers before all else, in Envoy's words."""
    modifier = spec.headers.early_request_headers if spec.headers is not None else None
    result = [*_mutations(modifier)] if modifier is not None else []
    if takes_address_from_header(spec):
        result.extend({"remove": name} for name in STEERING)
    return result


def takes_address_from_header(spec: ClientPolicySpec) -> bool:
    """The client's address comes from a header by an extension of Envoy's."""
    detection = spec.client_ip_detection
    if detection is None:
        return False
    trusted = detection.x_forwarded_for
    return detection.custom_header is not None or bool(trusted and trusted.trusted_cidrs)


def http_filters(spec: ClientPolicySpec) -> list[dict[str, Any]]:
    """What stands before all other HTTP filters."""
    if spec.health_check is None:
        return []
    config = health_check_pb2.HealthCheck(
        pass_through_mode=wrapped(False),
        headers=[{"name": ":path", "string_match": {"exact": spec.health_check.path}}],
    )
    return [{"name": HEALTH_CHECK, "typed_config": packed(config)}]


def network_filters(spec: ClientPolicySpec, stat_prefix: str) -> list[dict[str, Any]]:
    """What stands before HTTP on a connection."""
    limit = spec.connection.connection_limit if spec.connection is not None else None
    if limit is None or limit.value is None:
        return []
    config = connection_limit_pb2.ConnectionLimit(
        stat_prefix=stat_prefix, max_connections=wrapped(limit.value)
    )
    if limit.close_delay is not None:
        config.delay.CopyFrom(seconds(gateway_seconds(limit.close_delay)))
    return [{"name": CONNECTION_LIMIT, "typed_config": packed(config)}]


def write_socket(spec: ClientPolicySpec, listener: listener_pb2.Listener) -> None:
    """What is of a port and not of one of its listeners: buffers, probes, PROXY."""
    connection = spec.connection or ClientConnection()
    if connection.buffer_limit is not None:
        size = quantity_bytes(connection.buffer_limit)
        listener.per_connection_buffer_limit_bytes.value = size
    if connection.max_accept_per_socket_event:
        most = connection.max_accept_per_socket_event
        listener.max_connections_to_accept_per_socket_event.value = most
    if connection.socket_buffer_limit is not None:
        for option in socket_options.buffers(quantity_bytes(connection.socket_buffer_limit)):
            listener.socket_options.add(**option)
    if spec.tcp_keepalive is not None:
        for option in socket_options.keepalive(spec.tcp_keepalive):
            listener.socket_options.add(**option)
    if spec.proxy_protocol is not None or spec.enable_proxy_protocol:
        config = proxy_protocol_pb2.ProxyProtocol()
        if spec.proxy_protocol is not None:
            config.allow_requests_without_proxy_protocol = spec.proxy_protocol.optional
        listener.listener_filters.add(name=PROXY_PROTOCOL, typed_config=packed(config))


def of_sockets(spec: ClientPolicySpec) -> list[str]:
    """The fields of a policy that are of a port and not of one of its listeners."""
    connection = spec.connection or ClientConnection()
    named = {
        "connection.bufferLimit": connection.buffer_limit,
        "connection.socketBufferLimit": connection.socket_buffer_limit,
        "connection.maxAcceptPerSocketEvent": connection.max_accept_per_socket_event,
        "tcpKeepalive": spec.tcp_keepalive,
        "proxyProtocol": spec.proxy_protocol,
        "enableProxyProtocol": spec.enable_proxy_protocol,
    }
    return [name for name, value in named.items() if value is not None]


def _timeouts(timeout: ClientTimeout, manager: hcm_pb2.HttpConnectionManager) -> None:
    http = timeout.http
    if http is None:
        return
    if http.request_received_timeout is not None:
        manager.request_timeout.CopyFrom(seconds(gateway_seconds(http.request_received_timeout)))
    if http.idle_timeout is not None:
        idle = manager.common_http_protocol_options.idle_timeout
        idle.CopyFrom(seconds(gateway_seconds(http.idle_timeout)))
    if http.stream_idle_timeout is not None:
        manager.stream_idle_timeout.CopyFrom(seconds(gateway_seconds(http.stream_idle_timeout)))


def _http1(spec: HTTP1, hostname: str | None, manager: hcm_pb2.HttpConnectionManager) -> None:
    options = manager.http_protocol_options
    if spec.enable_trailers is not None:
        options.enable_trailers = spec.enable_trailers
    if spec.preserve_header_case:
        formatter = options.header_key_format.stateful_formatter
        formatter.name = cluster_settings.PRESERVE_CASE
        formatter.typed_config.CopyFrom(packed(preserve_case_pb2.PreserveCaseFormatterConfig()))
    if spec.http10 is not None:
        options.accept_http_10 = True
        if spec.http10.use_default_host and hostname is not None and hostname[0] != "*":
            options.default_host_for_http_10 = hostname


def _path(spec: PathSettings, manager: hcm_pb2.HttpConnectionManager) -> None:
    if spec.escaped_slashes_action is not None:
        action = SLASHES[spec.escaped_slashes_action]
        manager.path_with_escaped_slashes_action = (
            hcm_pb2.HttpConnectionManager.PathWithEscapedSlashesAction.Value(action)
        )
    if spec.disable_merge_slashes is not None:
        manager.merge_slashes = not spec.disable_merge_slashes


def _headers(spec: ClientHeaders, manager: hcm_pb2.HttpConnectionManager) -> None:
    if spec.with_underscores_action is not None:
        common = manager.common_http_protocol_options
        action = UNDERSCORES[spec.with_underscores_action]
        common.headers_with_underscores_action = common.HeadersWithUnderscoresAction.Value(action)
    identity = spec.request_id or ("PreserveOrGenerate" if spec.preserve_x_request_id else None)
    if identity is not None:
        manager.preserve_external_request_id = identity in ("PreserveOrGenerate", "Preserve")
        manager.generate_request_id.value = identity in ("PreserveOrGenerate", "Generate")


def _address(spec: ClientIPDetection, manager: hcm_pb2.HttpConnectionManager) -> None:
    hops = spec.x_forwarded_for
    if hops is not None and hops.num_trusted_hops is not None:
        manager.xff_num_trusted_hops = hops.num_trusted_hops
        manager.skip_xff_append = bool(hops.disable_x_forwarded_for_append)
    elif hops is not None:
        manager.use_remote_address.value = False
        config = xff_pb2.XffConfig(
            xff_trusted_cidrs={"cidrs": [_cidr(text) for text in hops.trusted_cidrs]},
            skip_xff_append=wrapped(bool(hops.disable_x_forwarded_for_append)),
        )
        manager.original_ip_detection_extensions.add(
            name="envoy.http.original_ip_detection.xff", typed_config=packed(config)
        )
    elif spec.custom_header is not None:
        manager.use_remote_address.value = False
        refusal = {"code": "Forbidden"} if spec.custom_header.fail_closed else None
        custom = custom_header_pb2.CustomHeaderConfig(
            header_name=spec.custom_header.name, reject_with_status=refusal
        )
        manager.original_ip_detection_extensions.add(
            name="envoy.http.original_ip_detection.custom_header", typed_config=packed(custom)
        )


def _mutations(modifier: HeaderModifier) -> Iterator[dict[str, Any]]:
    actions = (
        (modifier.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
        (modifier.add, "APPEND_IF_EXISTS_OR_ADD"),
    )
    for items, action in actions:
        for item in items:
            # A percent sign would begin a variable of Envoy's.
            header = {"key": item.name, "value": item.value.replace("%", "%%")}
            yield {"append": {"header": header, "append_action": action}}
    yield from ({"remove": name} for name in modifier.remove)


def _cidr(text: str) -> dict[str, Any]:
    network = ipaddress.ip_network(text, strict=False)
    return {
        "address_prefix": str(network.network_address),
        "prefix_len": wrapped(network.prefixlen),
    }
