"""How long a request may take, and how often it is tried.

`request` bounds everything, `backendRequest` bounds one try; `0s` takes a bound away. Where nothing
is retried one try is all there is, so the shorter of the two is the route's one timeout (the shape
of Envoy Gateway, which users' patches name).
"""

from __future__ import annotations

from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.gateway.messages import seconds
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.gateway_api import Retry, Timeouts

MIN_IDLE_TIMEOUT_S = 3600.0
"""A stream with a timeout of its own may be silent for at least this long (Envoy Gateway)."""

REQUEST_TIMEOUT_S = 3600.0
"""What a request may take where the user sets no bound. Envoy's own 15 s would cut the answer of a
model server behind a plain Service in the midst of its stream; one that hangs is found out by its
silence."""

STREAM_TIMEOUT_S = 24 * 3600.0
"""What a request to a pool or a call may take where the user sets no bound: answers stream."""

STREAM_IDLE_TIMEOUT_S = 3600.0
"""How long both sides of such a request may be silent."""

DEFAULT_ATTEMPTS = 1
LEAST_BACKOFF_S = 0.001
"""Envoy takes no backoff of nothing."""
BACKOFF_GROWTH = 10
"""The longest wait between two tries, as a multiple of the first."""

REPLAY_BYTES = 50 * 1024 * 1024
"""The largest request to a pool that is tried again."""

POOL_RETRIES = 2
POOL_RETRY_ON = ("connect-failure", "reset-before-request")
RETRY_ON = ("connect-failure", "refused-stream", "reset")
"""A retry is asked for: connections that fail or break count beside the status codes."""
CODES = "retriable-status-codes"


def apply(
    timeouts: Timeouts | None, retry: Retry | None, streams: bool, action: route_pb2.RouteAction
) -> None:
    """Write a rule's timeouts and retries; `streams` when its answers may go on for long."""
    request_s = _seconds(timeouts.request if timeouts is not None else None)
    try_s = _seconds(timeouts.backend_request if timeouts is not None else None)
    given = [value for value in (request_s, try_s) if value is not None]
    if retry is not None and try_s is not None:
        if try_s > 0:
            action.retry_policy.per_try_timeout.CopyFrom(seconds(try_s))
        limit_s: float | None = request_s or 0.0
    else:
        limit_s = min((value for value in given if value > 0), default=0.0) if given else None
    if limit_s is not None:
        action.timeout.CopyFrom(seconds(limit_s))
        action.idle_timeout.CopyFrom(seconds(max(MIN_IDLE_TIMEOUT_S, limit_s)))
    elif streams:
        action.timeout.CopyFrom(seconds(STREAM_TIMEOUT_S))
        action.idle_timeout.CopyFrom(seconds(STREAM_IDLE_TIMEOUT_S))
    else:
        action.timeout.CopyFrom(seconds(REQUEST_TIMEOUT_S))


def keep_for_another_try(route: route_pb2.Route) -> None:
    """Let a large request to a pool be sent again, on listeners that buffer less."""
    route.request_body_buffer_limit.value = REPLAY_BYTES


def keep_callers_deadline(action: route_pb2.RouteAction) -> None:
    """A call ends when its own deadline (the header `grpc-timeout`) says so."""
    action.max_stream_duration.grpc_timeout_header_max.CopyFrom(seconds(0))


def retry_on_failure(retry: Retry | None, has_pool: bool, action: route_pb2.RouteAction) -> None:
    """Write which failures are tried again: what the rule says, and those that a pool survives."""
    policy = action.retry_policy
    reasons: dict[str, None] = {}
    if has_pool:
        reasons.update(dict.fromkeys(POOL_RETRY_ON))
        policy.num_retries.value = POOL_RETRIES
    if retry is not None:
        reasons.update(dict.fromkeys(RETRY_ON))
        if retry.codes:
            reasons[CODES] = None
            policy.retriable_status_codes.extend(dict.fromkeys(retry.codes))
        if retry.attempts is not None:
            policy.num_retries.value = max(0, retry.attempts)
        elif not has_pool:
            policy.num_retries.value = DEFAULT_ATTEMPTS
        if retry.backoff is not None:
            base_s = max(LEAST_BACKOFF_S, gateway_seconds(retry.backoff))
            policy.retry_back_off.base_interval.CopyFrom(seconds(base_s))
            policy.retry_back_off.max_interval.CopyFrom(seconds(base_s * BACKOFF_GROWTH))
    if reasons:
        policy.retry_on = ",".join(reasons)


def _seconds(text: str | None) -> float | None:
    return gateway_seconds(text) if text is not None else None
