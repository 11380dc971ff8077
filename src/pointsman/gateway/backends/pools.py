"""InferencePools as backends: their cluster, their picker, and the question on the route.

A pool's cluster sends a request to the endpoint that the picker wrote into the dynamic metadata,
never to one that a header names: a header could be a client's. A list is followed on failure, an
address outside the pool is skipped, and where no picker answered the failure mode decides: FailOpen
is least request among the pool, FailClose is 503. (`override_host` needs a field that the Python
types lack, so it travels as a TypedStruct; tests look at its effect.)

Our own picker sees the whole body once (BUFFERED) and nothing of the answer; Envoy keeps its
stream open until the request has ended, however it ends. `failure_mode_allow` is always on for it,
so that a picker that dies cuts no running answer: failing closed is the load balancer's part. A
picker that is not ours may answer the headers only after the body, which deadlocks in any mode but
FULL_DUPLEX_STREAMED.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf.struct_pb2 import Struct
from xds.type.v3 import typed_struct_pb2

from pointsman.gateway import names, snapshot
from pointsman.gateway.backends import cluster_settings, clusters, liveness
from pointsman.gateway.backends.references import Address, Destination, Picker
from pointsman.gateway.backends.upstream_tls import transport_socket
from pointsman.gateway.messages import ADS, packed, pipe_address, seconds, wrapped
from pointsman.gateway.snapshot import EnvoyResource, Key
from pointsman.inference import headers
from pointsman.resources.backend_settings import BackendSettings
from pointsman.resources.base import Ref
from pointsman.resources.inference_extension import InferencePool

CONCURRENCY = 40_000
"""Circuit breakers of pools and pickers: Envoy's 1,024 refuses what model servers could queue."""

POOL_CONNECT_TIMEOUT_S = 5.0
POOL_IDLE_TIMEOUT_S = 4.0
"""Below the 5 s keep-alive of uvicorn, so that no request meets a closing connection."""

PICKER_CONNECT_TIMEOUT_S = 1.0
PICKER_MESSAGE_TIMEOUT_S = 5.0
"""How long a picker of ours may be silent; it extends its own deadline while a request queues."""
PICKER_MAX_MESSAGE_TIMEOUT_S = 600.0
FOREIGN_PICKER_STREAM_S = 600.0
"""Ends a foreign picker's stream that hangs: no message timeout fires in full duplex. The stream
also lasts until the answer begins, because the picker is told then who serves; an answer that is
not streamed begins when it is complete. So this is as long as OpenAI's clients wait."""
PICKER_STREAM_WINDOW_BYTES = 16 * 1024 * 1024
PICKER_CONNECTION_WINDOW_BYTES = 64 * 1024 * 1024

PICK_LOG_FLUSH_S = 0.2
PICK_LOG_BUFFER_BYTES = 64 * 1024
TTFT_FORMAT = "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:us)%"
"""Microseconds from the request's first byte to the first byte of the answer's body."""

OWN_MODE = {
    "request_header_mode": "SEND",
    "request_body_mode": "BUFFERED",
    "request_trailer_mode": "SKIP",
    "response_header_mode": "SKIP",
    "response_body_mode": "NONE",
    "response_trailer_mode": "SEND",
}
"""Our own picker's. One that gives clients a token of their session asks to see the headers of the
answer too, which is the only change of mode that is allowed."""

FAIL_OPEN = "FailOpen"

_POLICY = "envoy.load_balancing_policies"
_POLICY_TYPE = "type.googleapis.com/envoy.extensions.load_balancing_policies"


def pool_cluster(
    destination: Destination,
    pool: InferencePool,
    servers: tuple[Address, ...],
    policy: BackendSettings | None = None,
) -> list[EnvoyResource]:
    """The model servers of a pool, spoken to as `policy` says; who is next says the picker."""
    name = names.pool(destination.ref)
    # A pool for which nobody picks was not accepted, so nothing goes to it.
    fails_open = destination.picker is not None and _fails_open(pool)
    origins = (destination.ref,)
    message = cluster_pb2.Cluster(
        name=name,
        type="EDS",
        eds_cluster_config={"service_name": name, "eds_config": ADS},
        connect_timeout=seconds(POOL_CONNECT_TIMEOUT_S),
        ignore_health_on_host_removal=True,
        circuit_breakers={"thresholds": [_breakers()]},
        load_balancing_policy={
            "policies": [{"typed_extension_config": _override_host(fails_open)}]
        },
        metadata={"filter_metadata": {headers.PICK_NAMESPACE: _described(pool)}},
        typed_extension_protocol_options={
            names.HTTP_PROTOCOL_OPTIONS: packed(_pool_protocol(destination))
        },
    )
    if destination.tls is not None and not destination.tls.is_broken:
        socket = transport_socket(destination.tls, destination.is_http2)
        message.transport_socket.CopyFrom(
            cluster_pb2.Cluster(transport_socket=socket).transport_socket
        )
    if policy is not None:
        host = clusters.host_of(destination)
        cluster_settings.apply(policy, message, host, is_pool=True)
    members = clusters.Locality(name, 1, servers)
    return [
        EnvoyResource.of(Key(snapshot.CLUSTER, name), message, origins),
        clusters.endpoints(name, [members], origins),
    ]


def own_picker_cluster(socket_path: str) -> EnvoyResource:
    """Our picker behind its Unix socket: health checked, ejected on the first failure.

    Outlier detection on local errors takes a dead picker out at once, health checks bring it back.
    """
    name = names.OWN_PICKER_CLUSTER
    endpoint = {"endpoint": {"address": pipe_address(socket_path)}}
    message = cluster_pb2.Cluster(
        name=name,
        type="STATIC",
        connect_timeout=seconds(PICKER_CONNECT_TIMEOUT_S),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name, endpoints=[{"lb_endpoints": [endpoint]}]
        ),
        circuit_breakers={"thresholds": [_breakers()]},
        typed_extension_protocol_options={names.HTTP_PROTOCOL_OPTIONS: packed(_picker_protocol())},
    )
    liveness.watch_own(message)
    return EnvoyResource.of(Key(snapshot.CLUSTER, name), message)


def _picker_protocol() -> http_protocol_options_pb2.HttpProtocolOptions:
    """How our picker is spoken to: a stream lasts as long as its request, and prompts are large."""
    return http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={
            "http2_protocol_options": {
                "initial_stream_window_size": wrapped(PICKER_STREAM_WINDOW_BYTES),
                "initial_connection_window_size": wrapped(PICKER_CONNECTION_WINDOW_BYTES),
            }
        }
    )


def _foreign_picker_protocol() -> http_protocol_options_pb2.HttpProtocolOptions:
    return http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config={"http2_protocol_options": clusters.HTTP2_OPTIONS},
        common_http_protocol_options={"max_stream_duration": seconds(FOREIGN_PICKER_STREAM_S)},
    )


def picker_cluster(pool: Ref, picker: Picker, destination: Destination) -> list[EnvoyResource]:
    """The Service of a pool's picker.

    It speaks TLS with a certificate of its own making, as the inference extension's pickers do,
    unless its port says h2c. A BackendTLSPolicy says whose certificate it must be.
    """
    name = names.pool_picker(pool)
    settings = clusters.ClusterSettings(
        connect_timeout_s=PICKER_CONNECT_TIMEOUT_S,
        breakers=_breakers(),
        is_http2=True,
        tls=destination.tls,
    )
    members = [clusters.Locality(name, 1, destination.addresses)]
    found = clusters.eds_cluster(name, members, settings, (pool, destination.ref))
    cluster = found[0]
    message: Any = cluster.message
    if picker.is_pointsman:
        protocol = _picker_protocol()
        liveness.watch_own(message)
    else:
        protocol = _foreign_picker_protocol()
        liveness.watch_foreign(message)
    message.typed_extension_protocol_options[names.HTTP_PROTOCOL_OPTIONS].CopyFrom(packed(protocol))
    if not destination.is_plaintext and destination.tls is None:
        message.transport_socket.name = names.TLS
        context = tls_pb2.UpstreamTlsContext(common_tls_context={})
        message.transport_socket.typed_config.CopyFrom(packed(context))
    return [EnvoyResource.of(cluster.key, message, cluster.origins), *found[1:]]


def pool_filter() -> ext_proc_pb2.ExternalProcessor:
    """The filter on the listener, which asks nobody until a route's override says whom."""
    return ext_proc_pb2.ExternalProcessor(
        grpc_service={"envoy_grpc": {"cluster_name": names.OWN_PICKER_CLUSTER}},
        failure_mode_allow=True,
        status_on_error={"code": "ServiceUnavailable"},
        processing_mode={
            "request_header_mode": "SKIP",
            "response_header_mode": "SKIP",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
        message_timeout=seconds(PICKER_MESSAGE_TIMEOUT_S),
        max_message_timeout=seconds(PICKER_MAX_MESSAGE_TIMEOUT_S),
        allow_mode_override=True,
        allowed_override_modes=[{**OWN_MODE, "response_header_mode": "SEND"}],
        metadata_options={
            "receiving_namespaces": {
                "untyped": [headers.DESTINATION_NAMESPACE, headers.PICK_NAMESPACE]
            },
            "forwarding_namespaces": {
                "untyped": [headers.DESTINATION_NAMESPACE, headers.SUBSET_NAMESPACE]
            },
        },
    )


def pick_log(picker: Picker, pool: Ref) -> accesslog_pb2.AccessLog:
    """Tells our picker how the requests that it picked for went, in batches, after their end.

    Only requests that carry a pick's number are told of, and to a picker of one pool only those
    that went there. Nothing is released by it: entries may be lost.
    """
    number = {
        "filter": headers.PICK_NAMESPACE,
        "path": [{"key": headers.PICK_KEY}],
        "value": {"present_match": True},
    }
    config = als_pb2.HttpGrpcAccessLogConfig(
        common_config={
            "log_name": "picks",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": picker.cluster}},
            "buffer_flush_interval": seconds(PICK_LOG_FLUSH_S),
            "buffer_size_bytes": wrapped(PICK_LOG_BUFFER_BYTES),
            "custom_tags": [{"tag": headers.TTFT_TAG, "value": TTFT_FORMAT}],
        }
    )
    was_picked = {"metadata_filter": {"matcher": number, "match_if_key_not_found": wrapped(False)}}
    went_there = {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": packed(
                cel_pb2.ExpressionFilter(expression=f"xds.cluster_name == '{names.pool(pool)}'")
            ),
        }
    }
    return accesslog_pb2.AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=was_picked
        if picker.is_own
        else {"and_filter": {"filters": [was_picked, went_there]}},
        typed_config=packed(config),
    )


def route_override(
    pool: InferencePool, picker: Picker, also_told: Sequence[dict[str, str]] = ()
) -> ext_proc_pb2.ExtProcPerRoute:
    """Ask this pool's picker on this route, in the mode that suits it.

    `also_told`: what our own picker hears of the route, as gRPC initial metadata.
    """
    meta = pool.metadata
    if picker.is_pointsman:
        mode = OWN_MODE
        told = [{"key": headers.POOL_METADATA, "value": f"{meta.namespace}/{meta.name}"}]
        told += also_told
    else:
        mode = {
            "request_header_mode": "SEND",
            "request_body_mode": "FULL_DUPLEX_STREAMED",
            "request_trailer_mode": "SEND",
            "response_header_mode": "SEND",
            "response_body_mode": "NONE",
            "response_trailer_mode": "SKIP",
        }
        told = []
    return ext_proc_pb2.ExtProcPerRoute(
        overrides={
            "processing_mode": mode,
            "grpc_service": {"envoy_grpc": {"cluster_name": picker.cluster}},
            "grpc_initial_metadata": told,
            "failure_mode_allow": wrapped(True),
        }
    )


def _described(pool: InferencePool) -> Struct:
    """What logs and errors call the pool."""
    meta = pool.metadata
    result = Struct()
    result.update({headers.POOL_KEY: f"{meta.namespace}/{meta.name}"})
    return result


def _fails_open(pool: InferencePool) -> bool:
    reference = pool.spec.endpoint_picker_ref
    return reference is None or reference.failure_mode == FAIL_OPEN


def _breakers() -> dict[str, Any]:
    limit = wrapped(CONCURRENCY)
    return {
        "max_connections": limit,
        "max_pending_requests": limit,
        "max_requests": limit,
        "max_retries": limit,
    }


def _pool_protocol(destination: Destination) -> http_protocol_options_pb2.HttpProtocolOptions:
    protocol = (
        {"http2_protocol_options": clusters.HTTP2_OPTIONS}
        if destination.is_http2
        else {"http_protocol_options": {}}
    )
    return http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config=protocol,
        common_http_protocol_options={"idle_timeout": seconds(POOL_IDLE_TIMEOUT_S)},
    )


def _override_host(fails_open: bool) -> dict[str, Any]:
    def metadata_key(key: str) -> dict[str, Any]:
        return {"key": headers.DESTINATION_NAMESPACE, "path": [{"key": key}]}

    value: dict[str, Any] = {
        "override_host_sources": [{"metadata": metadata_key(headers.DESTINATION_ENDPOINT)}],
        "selected_host_key": metadata_key(headers.DESTINATION_ENDPOINT_SERVED),
        "fallback_policy": _fallback_policy(fails_open),
    }
    struct = Struct()
    struct.update(value)
    typed = typed_struct_pb2.TypedStruct(
        type_url=f"{_POLICY_TYPE}.override_host.v3.OverrideHost", value=struct
    )
    return {"name": f"{_POLICY}.override_host", "typed_config": packed(typed)}


def _fallback_policy(fails_open: bool) -> dict[str, Any]:
    if fails_open:
        return _policy("least_request.v3.LeastRequest", "least_request", {})
    # No endpoint has this key, so no endpoint is ever chosen: 503 in a millisecond.
    nobody = {
        "fallback_policy": "NO_FALLBACK",
        "subset_selectors": [{"keys": ["pointsman.dev/never"]}],
        "subset_lb_policy": _policy("round_robin.v3.RoundRobin", "round_robin", {}),
    }
    return _policy("subset.v3.Subset", "subset", nobody)


def _policy(message: str, name: str, value: dict[str, Any]) -> dict[str, Any]:
    config = {"@type": f"{_POLICY_TYPE}.{message}", **value}
    return {
        "policies": [
            {"typed_extension_config": {"name": f"{_POLICY}.{name}", "typed_config": config}}
        ]
    }
