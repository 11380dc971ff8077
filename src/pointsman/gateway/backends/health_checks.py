"""How bad servers are noticed: by asking them (active), and by their answers (passive).

What Envoy would refuse is a problem of the policy, told before Envoy sees it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from envoy.config.cluster.v3 import outlier_detection_pb2
from envoy.config.core.v3 import health_check_pb2

from pointsman.gateway.messages import seconds, wrapped
from pointsman.resources.backend_settings import (
    ActiveHealthCheck,
    HealthCheck,
    HealthCheckPayload,
    HTTPHealthCheck,
    PassiveHealthCheck,
)
from pointsman.resources.durations import gateway_seconds, go_seconds

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")
FULL = 100
"""Percent of the servers that fit, of which as many are really left out."""


def problems(settings: HealthCheck) -> Iterator[str]:
    """What Envoy would refuse: the field, and what is wrong."""
    if settings.active is not None:
        yield from (f"active.{text}" for text in _active_problems(settings.active))
    passive = settings.passive
    if passive is not None:
        for name, text in (
            ("interval", passive.interval),
            ("baseEjectionTime", passive.base_ejection_time),
        ):
            if go_seconds(text) <= 0:
                yield f"passive.{name} must be longer than 0s"
        for name, percent in (
            ("maxEjectionPercent", passive.max_ejection_percent),
            ("failurePercentageThreshold", passive.failure_percentage_threshold or 0),
        ):
            if not 0 <= percent <= FULL:
                yield f"passive.{name} must be from 0 to 100"


def active_check(
    settings: ActiveHealthCheck, host: str, is_http2: bool
) -> health_check_pb2.HealthCheck:
    """Ask servers; `host` is what an HTTP check says in its Host where the policy names none."""
    interval = seconds(go_seconds(settings.interval))
    check = health_check_pb2.HealthCheck(
        timeout=seconds(go_seconds(settings.timeout)),
        interval=interval,
        # Envoy would ask once a minute until the first request has come.
        no_traffic_interval=interval,
        unhealthy_threshold=wrapped(settings.unhealthy_threshold),
        healthy_threshold=wrapped(settings.healthy_threshold),
    )
    if settings.initial_jitter is not None:
        check.initial_jitter.CopyFrom(seconds(gateway_seconds(settings.initial_jitter)))
    if settings.http is not None:
        check.http_health_check.CopyFrom(_http(settings.http, host, is_http2))
    elif settings.type == "TCP":
        tcp = health_check_pb2.HealthCheck.TcpHealthCheck()
        if settings.tcp is not None and settings.tcp.send is not None:
            tcp.send.binary = _payload(settings.tcp.send)
        if settings.tcp is not None and settings.tcp.receive is not None:
            tcp.receive.add(binary=_payload(settings.tcp.receive))
        check.tcp_health_check.CopyFrom(tcp)
    else:
        service = settings.grpc.service if settings.grpc is not None else None
        grpc = health_check_pb2.HealthCheck.GrpcHealthCheck(service_name=service or "")
        check.grpc_health_check.CopyFrom(grpc)
    return check


def outlier_detection(settings: PassiveHealthCheck) -> outlier_detection_pb2.OutlierDetection:
    """Leave servers out for a while whose answers are bad; a count of 0 switches a reason off."""
    result: dict[str, Any] = {
        "split_external_local_origin_errors": settings.split_external_local_origin_errors,
        "interval": seconds(go_seconds(settings.interval)),
        "base_ejection_time": seconds(go_seconds(settings.base_ejection_time)),
        "max_ejection_percent": wrapped(settings.max_ejection_percent),
    }
    counts = {
        "consecutive_5xx": ("enforcing_consecutive_5xx", settings.consecutive_5xx_errors),
        "consecutive_gateway_failure": (
            "enforcing_consecutive_gateway_failure",
            settings.consecutive_gateway_errors,
        ),
        "consecutive_local_origin_failure": (
            "enforcing_consecutive_local_origin_failure",
            settings.consecutive_local_origin_failures,
        ),
    }
    for name, (enforcing, count) in counts.items():
        if count > 0:
            result[name] = wrapped(count)
        result[enforcing] = wrapped(FULL if count > 0 else 0)
    if settings.failure_percentage_threshold is not None:
        result["failure_percentage_threshold"] = wrapped(settings.failure_percentage_threshold)
        result["enforcing_failure_percentage"] = wrapped(FULL)
    if settings.always_eject_one_endpoint is not None:
        result["always_eject_one_host"] = wrapped(settings.always_eject_one_endpoint)
    return outlier_detection_pb2.OutlierDetection(**result)


def _active_problems(settings: ActiveHealthCheck) -> Iterator[str]:
    for name, text in (("timeout", settings.timeout), ("interval", settings.interval)):
        if go_seconds(text) <= 0:
            yield f"{name} must be longer than 0s"
    http = settings.http
    if http is not None:
        method = (http.method or "GET").upper()
        if method not in METHODS:
            yield f"http.method must be one of {', '.join(METHODS)}, is {http.method!r}"
        yield from _payload_problem("http.expectedResponse", http.expected_response)
    if settings.tcp is not None:
        yield from _payload_problem("tcp.send", settings.tcp.send)
        yield from _payload_problem("tcp.receive", settings.tcp.receive)


def _http(
    settings: HTTPHealthCheck, host: str, is_http2: bool
) -> health_check_pb2.HealthCheck.HttpHealthCheck:
    check = health_check_pb2.HealthCheck.HttpHealthCheck(
        host=settings.hostname or host,
        path=settings.path,
        method=(settings.method or "GET").upper(),
        expected_statuses=[
            {"start": status, "end": status + 1} for status in settings.expected_statuses
        ],
        codec_client_type="HTTP2" if is_http2 else "HTTP1",
    )
    if settings.expected_response is not None:
        check.receive.add(binary=_payload(settings.expected_response))
    return check


def _payload_problem(name: str, payload: HealthCheckPayload | None) -> Iterator[str]:
    if payload is None:
        return
    try:
        content = _payload(payload)
    except (binascii.Error, ValueError):
        yield f"{name}.binary must be base64"
        return
    if not content:
        yield f"{name} must not be empty"


def _payload(payload: HealthCheckPayload) -> bytes:
    if payload.binary is not None:
        return base64.b64decode(payload.binary, validate=True)
    return (payload.text or "").encode()
