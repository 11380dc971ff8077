"""Envoy's listeners: one for each port, in the shape of Envoy Gateway v1.3.

Two things differ on purpose: the buffer limit (32 KiB would answer 413 to a long prompt), and the
edge removes the destination headers from what clients send, before any filter sees them.
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from pointsman.gateway import local_replies, names, snapshot
from pointsman.gateway.attachment import BoundListener
from pointsman.gateway.messages import ADS, packed, seconds, socket_address, wrapped
from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import EnvoyResource, Key
from pointsman.inference import headers

BUFFER_LIMIT_BYTES = 50 * 1024 * 1024
"""The largest request that a picker may read whole; beyond it Envoy answers 413."""

REQUEST_HEADERS_TIMEOUT_S = 30.0
MAX_CONCURRENT_STREAMS = 100
STREAM_WINDOW_BYTES = 64 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024

HttpFilter = tuple[str, ext_proc_pb2.ExternalProcessor]


def envoy_listener(
    port_name: str,
    bound: Sequence[BoundListener],
    filters: Sequence[HttpFilter],
    logs: Sequence[accesslog_pb2.AccessLog],
    options: Options,
) -> EnvoyResource:
    """The listener of a port that the Gateway listeners `bound` share.

    `filters` are (name, configuration) of what routes may switch on, in order.
    """
    port = bound[0].spec.port
    manager = connection_manager(port_name, port, filters, logs)
    message = listener_pb2.Listener(
        name=port_name,
        address=socket_address(options.bind_address, options.bound_port(port)),
        per_connection_buffer_limit_bytes=wrapped(BUFFER_LIMIT_BYTES),
        default_filter_chain={
            "name": port_name,
            "filters": [{"name": names.CONNECTION_MANAGER, "typed_config": packed(manager)}],
        },
        enable_reuse_port=wrapped(False) if options.exclusive_ports else None,
    )
    origins = tuple(dict.fromkeys(item.gateway.ref for item in bound))
    return EnvoyResource(Key(snapshot.LISTENER, port_name), message, origins)


def connection_manager(
    port_name: str,
    port: int,
    filters: Sequence[HttpFilter],
    logs: Sequence[accesslog_pb2.AccessLog],
) -> hcm_pb2.HttpConnectionManager:
    """What speaks HTTP on a port."""
    return hcm_pb2.HttpConnectionManager(
        stat_prefix=f"http-{port}",
        rds={"route_config_name": port_name, "config_source": ADS},
        http_filters=[
            *(
                {"name": name, "typed_config": packed(config), "disabled": True}
                for name, config in filters
            ),
            {
                "name": names.ROUTER,
                "typed_config": packed(router_pb2.Router(suppress_envoy_headers=True)),
            },
        ],
        access_log=logs,
        local_reply_config=local_replies.config() if filters else None,
        common_http_protocol_options={"headers_with_underscores_action": "REJECT_REQUEST"},
        http2_protocol_options={
            "max_concurrent_streams": wrapped(MAX_CONCURRENT_STREAMS),
            "initial_stream_window_size": wrapped(STREAM_WINDOW_BYTES),
            "initial_connection_window_size": wrapped(CONNECTION_WINDOW_BYTES),
        },
        request_headers_timeout=seconds(REQUEST_HEADERS_TIMEOUT_S),
        server_header_transformation="PASS_THROUGH",
        use_remote_address=wrapped(True),
        # Nobody is trusted for the address he comes from.
        internal_address_config={},
        normalize_path=wrapped(True),
        merge_slashes=True,
        path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT",
        early_header_mutation_extensions=[_edge_stripping()],
    )


def _edge_stripping() -> dict[str, object]:
    mutation = header_mutation_pb2.HeaderMutation(
        mutations=[{"remove": name} for name in headers.STRIPPED_AT_THE_EDGE]
    )
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": packed(mutation),
    }
