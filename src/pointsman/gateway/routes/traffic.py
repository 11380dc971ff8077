"""What a BackendTrafficPolicy says of a route: timeouts, retries, hashing, buffering, upgrades.

The route's own `timeouts` and `retry` go before the policy's (Envoy Gateway). A pool keeps the
retries that it survives by, beside what the policy asks for; its picker picks, so that nothing is
hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2
from google.protobuf.message import Message

from pointsman.gateway.backends import load_balancing
from pointsman.gateway.messages import packed, seconds, wrapped
from pointsman.gateway.routes import limits
from pointsman.resources.backend_settings import BackendRetry, HTTPTimeout, PerRetry
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.gateway_api import Retry, Timeouts
from pointsman.resources.quantities import quantity_bytes
from pointsman.resources.traffic_policies import TrafficPolicySpec

BUFFER = "envoy.filters.http.buffer"
DEFAULT_TRIGGERS = (
    "connect-failure",
    "refused-stream",
    "unavailable",
    "cancelled",
    limits.CODES,
)
DEFAULT_CODES = (503,)
HOST_SELECTION_ATTEMPTS = 5
"""How often another server is looked for, before one that has failed is tried again."""
MOST_BUFFERED_BYTES = 2**32 - 1


def listener_filters(spec: TrafficPolicySpec | None) -> Mapping[str, Message]:
    """The HTTP filters that a route with this policy switches on, by name."""
    if spec is None or spec.request_buffer is None:
        return {}
    return {BUFFER: buffer_pb2.Buffer(max_request_bytes=wrapped(MOST_BUFFERED_BYTES))}


def apply(
    spec: TrafficPolicySpec,
    timeouts: Timeouts | None,
    retry: Retry | None,
    has_pool: bool,
    route: route_pb2.Route,
) -> None:
    """Write the policy into a route that is complete but for it."""
    action = route.route
    http = spec.timeout.http if spec.timeout is not None else None
    if http is not None:
        _limit(http, timeouts, action)
    if spec.retry is not None and retry is None:
        _retry(spec.retry, has_pool, action)
    if not has_pool:
        action.hash_policy.extend(load_balancing.hash_policies(spec.load_balancer))
    if spec.http_upgrade:
        del action.upgrade_configs[:]
        # Envoy tells types apart without regard to case, and takes each once.
        for upgrade in dict.fromkeys(item.type.lower() for item in spec.http_upgrade):
            action.upgrade_configs.add(upgrade_type=upgrade)
    if spec.request_buffer is not None:
        most = wrapped(quantity_bytes(spec.request_buffer.limit))
        config = buffer_pb2.BufferPerRoute(buffer={"max_request_bytes": most})
        route.typed_per_filter_config[BUFFER].CopyFrom(packed(config))


def _limit(http: HTTPTimeout, timeouts: Timeouts | None, action: route_pb2.RouteAction) -> None:
    is_own = timeouts is not None and (
        timeouts.request is not None or timeouts.backend_request is not None
    )
    if http.request_timeout is not None and not is_own:
        limit_s = gateway_seconds(http.request_timeout)
        action.timeout.CopyFrom(seconds(limit_s))
        action.idle_timeout.CopyFrom(seconds(max(limits.MIN_IDLE_TIMEOUT_S, limit_s)))
    if http.stream_idle_timeout is not None:
        action.idle_timeout.CopyFrom(seconds(gateway_seconds(http.stream_idle_timeout)))


def _retry(spec: BackendRetry, has_pool: bool, action: route_pb2.RouteAction) -> None:
    policy = action.retry_policy
    triggers: tuple[str, ...] = DEFAULT_TRIGGERS
    codes: tuple[int, ...] = DEFAULT_CODES
    if spec.retry_on is not None:
        triggers = spec.retry_on.triggers
        codes = spec.retry_on.http_status_codes
    before = policy.retry_on.split(",") if policy.retry_on else []
    policy.retry_on = ",".join(dict.fromkeys([*before, *triggers]))
    policy.num_retries.value = spec.num_retries
    del policy.retriable_status_codes[:]
    policy.retriable_status_codes.extend(dict.fromkeys(codes))
    if spec.per_retry is not None:
        _each_try(spec.per_retry, policy)
    # A pool's picker gives the servers in their order.
    if not has_pool:
        policy.host_selection_retry_max_attempts = HOST_SELECTION_ATTEMPTS
        policy.retry_host_predicate.add(**_previous_hosts())
    if spec.num_attempts_per_priority:
        update = previous_priorities_config_pb2.PreviousPrioritiesConfig(
            update_frequency=spec.num_attempts_per_priority
        )
        policy.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        policy.retry_priority.typed_config.CopyFrom(packed(update))


def _each_try(spec: PerRetry, policy: route_pb2.RetryPolicy) -> None:
    if spec.timeout is not None:
        policy.per_try_timeout.CopyFrom(seconds(gateway_seconds(spec.timeout)))
    wait = spec.back_off
    if wait is not None and wait.base_interval is not None:
        base_s = gateway_seconds(wait.base_interval)
        policy.retry_back_off.base_interval.CopyFrom(seconds(base_s))
        if wait.max_interval is not None:
            most_s = gateway_seconds(wait.max_interval)
            policy.retry_back_off.max_interval.CopyFrom(seconds(most_s))


def _previous_hosts() -> dict[str, Any]:
    return {
        "name": "envoy.retry_host_predicates.previous_hosts",
        "typed_config": packed(previous_hosts_pb2.PreviousHostsPredicate()),
    }
