"""What a picker is told when it starts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from pointsman.inference.metrics import EngineMetrics
from pointsman.resources.base import DEFAULT_NAMESPACE
from pointsman.resources.label_query import LabelQuery

MAX_TARGET_PORTS = 8


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    pool_name: str = ""
    """Whose endpoints are picked for gateways that name no pool."""
    pool_namespace: str = DEFAULT_NAMESPACE
    pool_group: str = ""
    """The API group of that pool; "" for either, of which the newer counts."""
    endpoint_selector: LabelQuery | None = None
    """In place of a pool: the pods that are picked among."""
    endpoint_ports: tuple[int, ...] = ()
    """Their ports."""
    kubeconfig: Path | None = None
    context: str | None = None
    """Of the kubeconfig."""
    grpc_port: int = 9002
    grpc_health_port: int = 9003
    metrics_port: int = 9090
    metrics_auth: bool | None = None
    """Whether who reads the metrics must have a token with the right to; None: in a cluster."""
    metrics_cert_path: Path | None = None
    """Folder of `tls.crt` and `tls.key` for the metrics port; None: plain HTTP."""
    metrics_client_ca: Path | None = None
    """The authorities one of which must have signed the certificate of who reads the metrics."""
    secure_serving: bool = True
    """TLS on the gRPC port, with a self-signed certificate unless one is given."""
    cert_path: Path | None = None
    """Folder of `tls.crt` and `tls.key`."""
    reloads_certificates: bool = True
    tls_min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    tls_ciphers: tuple[str, ...] = ()
    """Of TLS 1.2, by OpenSSL's names; () for OpenSSL's choice."""
    max_received_bytes: int | None = None
    """Of one gRPC message; None for what the largest body needs."""
    max_sent_bytes: int | None = None
    refresh_metrics_interval_s: float = 1.0
    metrics_staleness_s: float = 10.0
    """A reading of a server's metrics that is older counts as none."""
    engine_metrics: EngineMetrics | None = None
    """Names of servers' metrics that are looked for before those that are known."""
    leader_election: bool = False
    """Of several replicas only one is ready."""
    drain_timeout_s: float = 30.0
    """From the signal to end until streams that are still open are ended."""
    verbosity: int = 2
    """2 is normal, 3 verbose, 4 and above debug; below 0 only errors."""
    logs_json: bool = False
    bind: str = "0.0.0.0"  # a pod's ports are reached from outside of it
    listen: tuple[str, ...] = ()
    """Own addresses, `unix:PATH` or `host:port`, without TLS, for all pools."""
    feed: Path | None = None
    """The Unix socket where objects come from; None: from the API server of a cluster."""
    admin_socket: Path | None = None
    exit_with_parent: bool = False
    """Drain and exit when stdin ends."""
    config_file: Path | None = None
    """An EndpointPickerConfig; read again when it changes."""
    config_text: str = ""
    """The same, in the command line."""
    trust_objective_header: bool = True
    """Of gateways that are not ours: whether a request's own objective counts."""
    ignores_subset: bool = False
    """Do not let the gateway narrow the choice."""
    trust_debug_header: bool = False
    """Of gateways that are not ours: whether a request may ask how it was decided."""
    ignored: tuple[str, ...] = ()
    """Flags that were given and change nothing."""

    @property
    def is_in_cluster(self) -> bool:
        """Whether objects come from an API server."""
        return self.feed is None

    @property
    def has_own_pool(self) -> bool:
        """Whether it serves gateways that name no pool, on ports of its own."""
        return bool(self.pool_name) or self.endpoint_selector is not None

    @property
    def guards_metrics(self) -> bool:
        """Whether the API server is asked who may read the metrics."""
        return self.is_in_cluster and self.metrics_auth is not False

    @property
    def elects_leader(self) -> bool:
        """Whether replicas agree on one of them that is to be asked."""
        return self.is_in_cluster and self.leader_election

    @property
    def idle(self) -> tuple[str, ...]:
        """Flags that change nothing: by themselves, and for want of an API server."""
        if self.is_in_cluster:
            return self.ignored
        of_clusters = {
            "metrics-endpoint-auth": self.metrics_auth,
            "ha-enable-leader-election": self.leader_election,
            "kubeconfig": self.kubeconfig,
        }
        return (*self.ignored, *(name for name, value in of_clusters.items() if value))
