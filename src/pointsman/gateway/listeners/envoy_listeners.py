"""Envoy's listeners: one for each port, in the shape of Envoy Gateway v1.3.

Two things differ on purpose: the buffer limit (32 KiB would answer 413 to a long prompt), and the
edge removes the destination headers from what clients send, before any filter sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.listener.v3 import listener_components_pb2 as components_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from google.protobuf.message import Message

from pointsman.gateway import names, snapshot
from pointsman.gateway.backends.references import Unresolved
from pointsman.gateway.listeners import (
    access_logs,
    client_settings,
    local_replies,
    tls,
    token_usage,
)
from pointsman.gateway.listeners.access_logs import AccessLog
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.listeners.client_trust import ClientTrust
from pointsman.gateway.messages import ADS, packed, seconds, socket_address, wrapped
from pointsman.gateway.options import Options
from pointsman.gateway.policies.clients import ClientSettings
from pointsman.gateway.snapshot import EnvoyResource, Key
from pointsman.inference import headers
from pointsman.resources.base import Ref
from pointsman.resources.client_policies import ClientPolicySpec

BUFFER_LIMIT_BYTES = 50 * 1024 * 1024
"""The largest request that a picker may read whole; beyond it Envoy answers 413."""

STREAMED_BUFFER_LIMIT_BYTES = 1024 * 1024
"""Where all pickers are others': what is read at once is sent to them as one message, and gRPC
servers take none of more than four megabytes."""

REQUEST_HEADERS_TIMEOUT_S = 30.0
HANDSHAKE_TIMEOUT_S = 10.0
"""Of TLS; Envoy would wait for ever."""
MAX_CONCURRENT_STREAMS = 100
STREAM_WINDOW_BYTES = 64 * 1024
CONNECTION_WINDOW_BYTES = 1024 * 1024

HttpFilter = tuple[str, Message]
NO_POLICY = ClientPolicySpec.model_construct()


@dataclass(frozen=True, slots=True)
class Chain:
    """What becomes of a connection: the listeners that share one route configuration."""

    bound: tuple[BoundListener, ...]
    filters: tuple[HttpFilter, ...] = ()
    """Name and configuration of what routes may switch on, in order."""
    logs: tuple[accesslog_pb2.AccessLog, ...] = ()
    """For our own use, after those that people read."""
    client: ClientSettings | None = None
    """What a policy says of how to speak with clients."""
    access_logs: tuple[AccessLog, ...] = ()
    """Where it is written down what became of each request."""
    proxy: Ref | None = None
    """The EnvoyProxy that says so, where one does."""
    leads_to_pool: bool = False
    """A route of it does."""
    streams_to_pickers: bool = False
    """Requests go to pickers that read them piece by piece, and to no other processor."""

    @property
    def name(self) -> str:
        """Of the chain and of its route configuration."""
        return self.bound[0].route_config

    @property
    def client_spec(self) -> ClientPolicySpec:
        """What is said of clients; nothing where there is no policy, or it is refused."""
        client = self.client
        return client.spec if client is not None and not client.is_closed else NO_POLICY

    @property
    def serves_models(self) -> bool:
        """Model servers are behind it, or what a policy puts before them."""
        return self.leads_to_pool or any(
            isinstance(item, ext_proc_pb2.ExternalProcessor) for _, item in self.filters
        )


def envoy_listener(
    name: str, host: str, chains: Sequence[Chain], options: Options
) -> EnvoyResource:
    """The listener of a port at an IP: one chain for HTTP, one for each HTTPS listener."""
    first = chains[0].bound[0].spec
    message = listener_pb2.Listener(
        name=name,
        address=socket_address(host, options.bound_port(first.port)),
        per_connection_buffer_limit_bytes=wrapped(_buffer_limit(chains)),
        enable_reuse_port=wrapped(False) if options.exclusive_ports else None,
        access_log=[access_logs.connection_log(log) for log in chains[0].access_logs],
    )
    client_settings.write_socket(chains[0].client_spec, message)
    buffer = message.per_connection_buffer_limit_bytes.value
    if first.protocol == tls.HTTPS:
        inspector = tls_inspector_pb2.TlsInspector()
        message.listener_filters.add(name=tls.INSPECTOR, typed_config=packed(inspector))
        for chain in chains:
            message.filter_chains.add().CopyFrom(_tls_chain(chain, buffer))
    else:
        message.default_filter_chain.CopyFrom(_chain(chains[0], buffer))
    policies = [chain.client.policy for chain in chains if chain.client is not None]
    policies += [chain.proxy for chain in chains if chain.proxy is not None]
    gateways = [item.gateway.ref for chain in chains for item in chain.bound]
    # What a policy changed it is to blame for first.
    origins = dict.fromkeys([*policies, *gateways])
    return EnvoyResource.of(Key(snapshot.LISTENER, name), message, tuple(origins))


def _buffer_limit(chains: Sequence[Chain]) -> int:
    """Large where a request may have to be read whole, small where it must come in pieces."""
    has_streams = any(chain.streams_to_pickers for chain in chains)
    reads_whole = any(chain.serves_models and not chain.streams_to_pickers for chain in chains)
    if has_streams and not reads_whole:
        return STREAMED_BUFFER_LIMIT_BYTES
    return BUFFER_LIMIT_BYTES


def _chain(chain: Chain, buffer_limit_bytes: int) -> components_pb2.FilterChain:
    manager = connection_manager(chain, buffer_limit_bytes)
    return components_pb2.FilterChain(
        name=chain.name,
        filters=[
            *client_settings.network_filters(chain.client_spec, manager.stat_prefix),
            {"name": names.CONNECTION_MANAGER, "typed_config": packed(manager)},
        ],
    )


def _tls_chain(chain: Chain, buffer_limit_bytes: int) -> components_pb2.FilterChain:
    listener = chain.bound[0]
    result = _chain(chain, buffer_limit_bytes)
    result.transport_socket_connect_timeout.CopyFrom(seconds(HANDSHAKE_TIMEOUT_S))
    if listener.spec.hostname is not None:
        result.filter_chain_match.server_names.append(listener.spec.hostname)
    if not isinstance(listener.certificates, Unresolved):
        socket = components_pb2.FilterChain(
            transport_socket=tls.transport_socket(
                listener.certificates,
                listener.trust if isinstance(listener.trust, ClientTrust) else None,
                chain.client,
            )
        )
        result.MergeFrom(socket)
    return result


def connection_manager(chain: Chain, buffer_limit_bytes: int) -> hcm_pb2.HttpConnectionManager:
    """What speaks HTTP on a connection."""
    spec = chain.bound[0].spec
    readers = token_usage.listener_filters(buffer_limit_bytes) if chain.leads_to_pool else {}
    client = chain.client_spec
    headers_of_envoy = client.headers is not None and client.headers.enable_envoy_headers
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=f"{spec.protocol.lower()}-{spec.port}",
        rds={"route_config_name": chain.name, "config_source": ADS},
        http_filters=[
            *client_settings.http_filters(client),
            *(
                {"name": name, "typed_config": packed(config), "disabled": True}
                for name, config in (*chain.filters, *readers.items())
            ),
            {
                "name": names.ROUTER,
                "typed_config": packed(
                    router_pb2.Router(suppress_envoy_headers=not headers_of_envoy)
                ),
            },
        ],
        access_log=[*map(access_logs.request_log, chain.access_logs), *chain.logs],
        local_reply_config=local_replies.config() if chain.serves_models else None,
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
        early_header_mutation_extensions=[_edge_stripping(client)],
    )
    client_settings.write_manager(client, spec.hostname, manager)
    return manager


def _edge_stripping(client: ClientPolicySpec) -> dict[str, object]:
    """The first that happens to a request's headers. What is stripped is stripped last."""
    mutation = header_mutation_pb2.HeaderMutation(
        mutations=[
            *client_settings.early_mutations(client),
            *({"remove": name} for name in headers.STRIPPED_AT_THE_EDGE),
        ]
    )
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": packed(mutation),
    }
