"""How Envoy finds out that a picker is gone, and that it is back.

One failure of the connection takes a picker out at once, so that hardly a request meets a dead one;
health checks bring it back. Our own picker serves gRPC health. Others often do not, or on another
port, and one that answers UNIMPLEMENTED would never be asked again. Theirs is a question that every
gRPC server answers: it is sent the first bytes of an HTTP/2 connection and must send its own. That
takes TLS, an event loop that turns, and no service in particular.

Where nobody is left the cluster is empty (no panic threshold), and an empty cluster is what Envoy
answers for at once: requests go on without a pick.
"""

from __future__ import annotations

from envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import health_check_pb2

from pointsman.gateway.messages import seconds, wrapped

INTERVAL_S = 0.5
TIMEOUT_S = 1.0
EJECTION_S = 0.5

FOREIGN_FAILURES = 2
"""Checks in a row that a foreign picker may fail: it may be busy, and pays for no check of ours."""

_CLIENT_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client says first: the preface, and a SETTINGS frame without settings (RFC 9113, 3.4)."""

_SERVER_PREFACE = bytes((4, 0, 0, 0, 0, 0))
"""Of a SETTINGS frame's header what follows its length: type, flags, stream 0."""


def watch_own(cluster: cluster_pb2.Cluster) -> None:
    """Ask our picker by gRPC health."""
    _watch(cluster)
    cluster.health_checks.append(
        health_check_pb2.HealthCheck(
            **_times(), unhealthy_threshold=wrapped(1), grpc_health_check={}
        )
    )


def watch_foreign(cluster: cluster_pb2.Cluster) -> None:
    """Ask a picker that is not ours whether it speaks HTTP/2."""
    _watch(cluster)
    cluster.health_checks.append(
        health_check_pb2.HealthCheck(
            **_times(),
            unhealthy_threshold=wrapped(FOREIGN_FAILURES),
            reuse_connection=wrapped(False),
            tcp_health_check={
                "send": {"text": _CLIENT_PREFACE.hex()},
                "receive": [{"text": _SERVER_PREFACE.hex()}],
            },
            tls_options={"alpn_protocols": ["h2"]},
        )
    )


def _watch(cluster: cluster_pb2.Cluster) -> None:
    cluster.common_lb_config.healthy_panic_threshold.value = 0
    cluster.outlier_detection.CopyFrom(
        outlier_detection_pb2.OutlierDetection(
            split_external_local_origin_errors=True,
            consecutive_local_origin_failure=wrapped(1),
            max_ejection_percent=wrapped(100),
            base_ejection_time=seconds(EJECTION_S),
            # By default each ejection is longer than the one before it, up to five minutes.
            max_ejection_time=seconds(EJECTION_S),
            enforcing_consecutive_5xx=wrapped(0),
            enforcing_consecutive_gateway_failure=wrapped(0),
        )
    )


def _times() -> dict[str, object]:
    return {
        "timeout": seconds(TIMEOUT_S),
        "interval": seconds(INTERVAL_S),
        "no_traffic_interval": seconds(INTERVAL_S),
        "healthy_threshold": wrapped(1),
    }
