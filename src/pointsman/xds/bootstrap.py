"""Envoy's own first configuration: who it is, where its admin is, and where the rest comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointsman.gateway.names import SHARED_FLEET

XDS_CLUSTER = "pointsman/xds"

ADMIN_CLUSTER = "pointsman/admin"
READY_LISTENER = "pointsman/ready"
READY_PORT = 19001
"""Where a pod's Envoy says that it is ready, and its metrics."""

OWN_CERTIFICATE = "pointsman/certificate"
OWN_AUTHORITY = "pointsman/authority"
CERTIFICATE_SDS = "sds-certificate.json"
AUTHORITY_SDS = "sds-authority.json"
"""Files beside the bootstrap that say where the certificates are, so that Envoy follows them."""

KEEPALIVE_S = 30
"""How often a silent control plane is asked whether it is there."""

RECONNECT = {"retry_back_off": {"base_interval": "0.5s", "max_interval": "5s"}}
"""How soon an Envoy that has lost its control plane tries again. By default it waits for up to half
a minute, in which no change comes to it though the control plane is back."""

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


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Where the Envoys of a cluster find the discovery service, and how they show who they are."""

    host: str
    """A DNS name, which is also the name in the server's certificate."""
    port: int
    certificates: Path
    """Folder of `tls.crt`, `tls.key` and `ca.crt` where Envoy runs."""
    configuration: Path
    """Folder of the bootstrap and of the two files of `sds_files` where Envoy runs."""


def bootstrap(node_id: str, xds_socket: Path, admin_socket: Path) -> dict[str, Any]:
    """The bootstrap of an Envoy that gets everything over a Unix socket.

    Its admin listens on a Unix socket too: it has no authentication of its own.
    """
    cluster = {
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _assignment(XDS_CLUSTER, {"pipe": {"path": str(xds_socket)}}),
        "typed_extension_protocol_options": _http2({}),
    }
    node = {"id": node_id, "cluster": SHARED_FLEET}
    return _bootstrap(node, admin_socket, [cluster])


def pod_bootstrap(fleet: str, control_plane: ControlPlane, admin_socket: Path) -> dict[str, Any]:
    """The bootstrap of the Envoys of a fleet, which get everything over mutual TLS.

    The node's id is not in it: each Envoy is given its own by a flag. A listener of its own says
    whether it is ready, and has its metrics; nothing else of the admin is reached from outside.
    """
    address = {"socket_address": {"address": control_plane.host, "port_value": control_plane.port}}
    keepalive = {"interval": f"{KEEPALIVE_S}s", "timeout": "5s"}
    xds = {
        "name": XDS_CLUSTER,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "5s",
        "load_assignment": _assignment(XDS_CLUSTER, address),
        "typed_extension_protocol_options": _http2({"connection_keepalive": keepalive}),
        "transport_socket": _tls(control_plane),
    }
    admin = {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _assignment(ADMIN_CLUSTER, {"pipe": {"path": str(admin_socket)}}),
    }
    result = _bootstrap({"cluster": fleet}, admin_socket, [xds, admin])
    # An Envoy without its listeners is not ready, however long they take to come.
    for source in ("lds_config", "cds_config"):
        result["dynamic_resources"][source]["initial_fetch_timeout"] = "0s"
    result["static_resources"]["listeners"] = [_ready_listener()]
    return result


def sds_files(control_plane: ControlPlane) -> dict[str, dict[str, Any]]:
    """The files that say where the certificates are, by name: Envoy reads these anew."""
    folder = control_plane.certificates
    # A mounted Secret changes by a link in its folder, not by its files.
    watched = {"watched_directory": {"path": str(folder)}}

    def secret(name: str, **content: Any) -> dict[str, Any]:
        kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
        return {"resources": [{"@type": kind, "name": name, **content}]}

    certificate = {
        "certificate_chain": {"filename": str(folder / "tls.crt")},
        "private_key": {"filename": str(folder / "tls.key")},
        **watched,
    }
    authority = {
        "trusted_ca": {"filename": str(folder / "ca.crt")},
        "match_typed_subject_alt_names": [
            {"san_type": "DNS", "matcher": {"exact": control_plane.host}}
        ],
        **watched,
    }
    return {
        CERTIFICATE_SDS: secret(OWN_CERTIFICATE, tls_certificate=certificate),
        AUTHORITY_SDS: secret(OWN_AUTHORITY, validation_context=authority),
    }


def _bootstrap(
    node: dict[str, Any], admin_socket: Path, clusters: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "node": node,
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "layered_runtime": REGEX_RUNTIME,
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {"envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": RECONNECT}}
                ],
                "set_node_on_first_message_only": True,
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {"clusters": clusters},
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


def _assignment(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address}}
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}


def _http2(options: dict[str, Any]) -> dict[str, Any]:
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"explicit_http_config": {"http2_protocol_options": options}}
    return {protocol: {"@type": f"type.googleapis.com/{protocol}", **http2}}


def _tls(control_plane: ControlPlane) -> dict[str, Any]:
    def secret(name: str, file: str) -> dict[str, Any]:
        source = {"path": str(control_plane.configuration / file)}
        config = {"path_config_source": source, "resource_api_version": "V3"}
        return {"name": name, "sds_config": config}

    context = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"type.googleapis.com/{context}",
            "sni": control_plane.host,
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    # A client's default stops at 1.2.
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "alpn_protocols": ["h2"],
                "tls_certificate_sds_secret_configs": [secret(OWN_CERTIFICATE, CERTIFICATE_SDS)],
                "validation_context_sds_secret_config": secret(OWN_AUTHORITY, AUTHORITY_SDS),
            },
        },
    }


def _ready_listener() -> dict[str, Any]:
    def filter_of(name: str, message: str, **config: Any) -> dict[str, Any]:
        kind = f"type.googleapis.com/envoy.extensions.filters.{message}"
        return {"name": name, "typed_config": {"@type": kind, **config}}

    def route(path: str) -> dict[str, Any]:
        return {"match": {"path": path}, "route": {"cluster": ADMIN_CLUSTER}}

    routes = [route("/ready"), route("/stats/prometheus")]
    manager = filter_of(
        "envoy.filters.network.http_connection_manager",
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="ready",
        route_config={
            "name": READY_LISTENER,
            "virtual_hosts": [{"name": READY_LISTENER, "domains": ["*"], "routes": routes}],
        },
        http_filters=[filter_of("envoy.filters.http.router", "http.router.v3.Router")],
        normalize_path=True,
    )
    return {
        "name": READY_LISTENER,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": READY_PORT}},
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [manager]}],
    }
