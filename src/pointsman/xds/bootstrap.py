"""Envoy's own first configuration: who it is, where its admin is, and where the rest comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

XDS_CLUSTER = "pointsman/xds"

MAX_CONNECTIONS = 50_000
"""Clients' connections at a time, all listeners together."""

REGEX_RUNTIME = {
    "layers": [
        {"name": "pointsman", "static_layer": {"re2.max_program_size.error_level": 2**32 - 1}}
    ]
}
"""Envoy refuses regular expressions of more than 100 instructions by default; ours are measured
(`gateway.regexes`) before it sees them."""

_CONNECTION_MONITOR = "envoy.resource_monitors.global_downstream_max_connections"
_CONNECTION_CONFIG = (
    "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)


def bootstrap(node_id: str, xds_socket: Path, admin_socket: Path) -> dict[str, Any]:
    """The bootstrap of an Envoy that gets everything over a Unix socket.

    Its admin listens on a Unix socket too: it has no authentication of its own.
    """
    http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "node": {"id": node_id, "cluster": "pointsman"},
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "layered_runtime": REGEX_RUNTIME,
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
                "set_node_on_first_message_only": True,
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "clusters": [
                {
                    "name": XDS_CLUSTER,
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": XDS_CLUSTER,
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {"endpoint": {"address": {"pipe": {"path": str(xds_socket)}}}}
                                ]
                            }
                        ],
                    },
                    "typed_extension_protocol_options": {
                        protocol: {
                            "@type": f"type.googleapis.com/{protocol}",
                            **http2,
                        }
                    },
                }
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": _CONNECTION_MONITOR,
                    "typed_config": {
                        "@type": f"type.googleapis.com/{_CONNECTION_CONFIG}",
                        "max_active_downstream_connections": MAX_CONNECTIONS,
                    },
                }
            ]
        },
    }
