"""BackendTrafficPolicy: which of them counts where, and what of it is served.

The policy of a rule, route, listener or Gateway counts whole; one with a `mergeType` adds to that
of its listener or Gateway (a JSON merge: mappings are joined, all else is replaced). Fields that
would decide whether a request goes on at all (`rateLimit`, `faultInjection`...) and are not served
refuse the whole policy: it has no effect, and says so. Fields that only tune it are a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pointsman.gateway.backends import cluster_settings, load_balancing
from pointsman.gateway.policies.targets import Place, Subject, Targets
from pointsman.resources.base import Ref
from pointsman.resources.quantities import quantity_bytes
from pointsman.resources.traffic_policies import BackendTrafficPolicy, TrafficPolicySpec
from pointsman.store import Store

REFUSED = (
    "rate_limit",
    "fault_injection",
    "admission_control",
    "adaptive_concurrency",
    "bandwidth_limit",
    "response_override",
)
"""Without these a policy would be another policy."""
TUNING = ("compression", "compressor", "decompressor", "telemetry", "proxy_protocol")
CODES = "retriable-status-codes"
_OF_TARGETS = frozenset({"target_ref", "target_refs", "target_selectors", "merge_type"})


class TrafficPolicies:
    """Every BackendTrafficPolicy, by what it targets."""

    def __init__(self, store: Store) -> None:
        self.targets = Targets(store.list(BackendTrafficPolicy))
        self._problems = {item.ref: problem(item.spec) for item in self.targets.policies}

    def of_route(self, route: Subject, rule: str | None, place: Place) -> TrafficPolicySpec | None:
        """What counts for a rule of a route; None where nothing does, or what does is refused."""
        found = self.targets.of_route(route, rule, place)
        if found is None or self._problems[found.ref] is not None:
            return None
        if found.spec.merge_type is None:
            return found.spec
        parent = self.targets.of_listener(place)
        if parent is None or self._problems[parent.ref] is not None:
            return found.spec
        both = merged(parent.spec, found.spec)
        return both if problem(both) is None else found.spec

    def problem_of(self, policy: Ref) -> str | None:
        """Why a policy is refused."""
        return self._problems[policy]


def problem(spec: TrafficPolicySpec) -> str | None:
    """Why a policy cannot count: what is not served, and what Envoy would refuse."""
    unserved = [_alias(name) for name in REFUSED if getattr(spec, name)]
    if unserved:
        return f"Not supported: {', '.join(unserved)}; nothing of this policy is in force"
    found = [*cluster_settings.problems(spec), *_own_problems(spec)]
    return "; ".join(found) or None


def ignored(spec: TrafficPolicySpec) -> list[str]:
    """Fields that change nothing, wherever the policy counts."""
    found = [_alias(name) for name in TUNING if getattr(spec, name)]
    if spec.load_balancer is not None:
        found.extend(load_balancing.ignored(spec.load_balancer))
    if spec.routing_type == "Service":
        found.append("routingType")
    on = spec.retry.retry_on if spec.retry is not None else None
    if on is not None and on.http_status_codes and CODES not in on.triggers:
        found.append(f"retry.retryOn.httpStatusCodes without the trigger {CODES}")
    return found


def merged(parent: TrafficPolicySpec, child: TrafficPolicySpec) -> TrafficPolicySpec:
    """What both say together; the child's word counts where they differ."""
    both = _joined(_written(parent), _written(child))
    return TrafficPolicySpec.model_validate(
        {**both, "targetRefs": [item.to_dict() for item in child.targets]}
    )


def _own_problems(spec: TrafficPolicySpec) -> Iterator[str]:
    if spec.request_buffer is not None:
        most = cluster_settings.MOST_BUFFER_BYTES
        yield from cluster_settings.size_problem(
            "requestBuffer.limit", quantity_bytes(spec.request_buffer.limit), most
        )
    for position, item in enumerate(spec.http_upgrade):
        if item.type.upper() == "CONNECT" or item.connect is not None:
            yield f"httpUpgrade[{position}]: CONNECT is not supported"


def _written(spec: TrafficPolicySpec) -> dict[str, Any]:
    return spec.model_dump(by_alias=True, exclude_unset=True, exclude=set(_OF_TARGETS))


def _joined(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        before = result.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            result[key] = _joined(before, value)
        else:
            result[key] = value
    return result


def _alias(name: str) -> str:
    return TrafficPolicySpec.model_fields[name].alias or name
