"""BackendTrafficPolicies: what of each has no effect, and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pointsman.gateway.backends.references import Destination
from pointsman.gateway.policies import traffic
from pointsman.gateway.policies.traffic import TrafficPolicies
from pointsman.gateway.policies.verdicts import Remarks
from pointsman.gateway.routes.meetings import PolicyView
from pointsman.gateway.routes.parts import RoutePart
from pointsman.gateway.routes.rules import Rule
from pointsman.resources.base import Ref
from pointsman.resources.traffic_policies import BackendTrafficPolicy, TrafficPolicySpec

OF_SERVERS = (
    "circuit_breaker",
    "connection",
    "dns",
    "health_check",
    "http2",
    "load_balancer",
    "tcp_keepalive",
    "use_client_protocol",
)
"""Fields that are of a cluster, which is the same wherever its rule is reached."""
TIMEOUTS_OF_SERVERS = ("connection_idle_timeout", "max_connection_duration", "max_stream_duration")
"""So are these of `timeout.http`, and all of `timeout.tcp`."""


@dataclass(slots=True)
class Reach:
    """Where a policy counts."""

    rules: dict[str, Rule] = field(default_factory=dict)
    """By their names."""
    outvoted: dict[str, Ref] = field(default_factory=dict)
    """Rules and pools whose servers another policy speaks for, and which."""
    merged_with: Ref | None = None


def reaches(policies: TrafficPolicies, parts: Iterable[RoutePart]) -> dict[Ref, Reach]:
    """Where each policy counts: one walk over every rule on every listener.

    They are met in the order in which policies speak for servers.
    """
    result = {item.ref: Reach() for item in policies.targets.policies}
    speakers: dict[Ref, Ref] = {}
    for part in parts:
        for rule in part.rules if part.view.places else ():
            _meet(policies, part.view, rule, result, speakers)
    return result


def _meet(
    policies: TrafficPolicies,
    view: PolicyView,
    rule: Rule,
    result: Mapping[Ref, Reach],
    speakers: dict[Ref, Ref],
) -> None:
    speaker: Ref | None = None
    for place in view.places:
        counts = policies.targets.of_route(view.known.subject, rule.label, place)
        if counts is None or policies.problem_of(counts.ref) is not None:
            continue
        reach = result[counts.ref]
        reach.rules[rule.name] = rule
        speaker = speaker or counts.ref
        if speaker != counts.ref:
            reach.outvoted[rule.name] = speaker
        if counts.spec.merge_type is not None:
            parent = policies.targets.of_listener(place)
            reach.merged_with = parent.ref if parent is not None else reach.merged_with
    if speaker is None:
        return
    for destination in rule.pools:
        first = speakers.setdefault(destination.ref, speaker)
        if first != speaker:
            result[speaker].outvoted[str(destination.ref)] = first


def remarks(policies: TrafficPolicies, policy: BackendTrafficPolicy, reach: Reach) -> Remarks:
    """What is told of a policy beside its targets."""
    problem = policies.problem_of(policy.ref)
    if problem is not None:
        return Remarks(problem)
    warnings = [*_ignored(policy.spec), *_inapplicable(policy.spec, reach.rules.values())]
    if _speaks_of_servers(policy.spec):
        for rule, other in reach.outvoted.items():
            path = f"{other.namespace}/{other.name}"
            warnings.append(f"Servers of {rule} are spoken to as policy {path} says")
    parent = reach.merged_with
    return Remarks(
        warnings=tuple(warnings),
        merged_with=f"{parent.namespace}/{parent.name}" if parent is not None else None,
    )


def _speaks_of_servers(spec: TrafficPolicySpec) -> bool:
    if any(getattr(spec, name) is not None for name in OF_SERVERS):
        return True
    timeout = spec.timeout
    if timeout is None:
        return False
    http = timeout.http
    return timeout.tcp is not None or (
        http is not None and any(getattr(http, name) is not None for name in TIMEOUTS_OF_SERVERS)
    )


def _ignored(spec: TrafficPolicySpec) -> Iterator[str]:
    found = traffic.ignored(spec)
    if found:
        yield f"Fields that have no effect: {', '.join(found)}"


def _inapplicable(spec: TrafficPolicySpec, rules: Iterable[Rule]) -> Iterator[str]:
    reached = list(rules)
    pools = sorted({str(item.ref) for rule in reached for item in rule.pools})
    if pools:
        if spec.load_balancer is not None:
            yield f"loadBalancer has no effect on {', '.join(pools)}: the pool's picker picks"
        if spec.use_client_protocol:
            yield f"useClientProtocol has no effect on {', '.join(pools)}"
    check = spec.health_check.active if spec.health_check is not None else None
    if check is not None and check.type == "GRPC":
        unable = sorted(rule.name for rule in reached if not _speaks_http2(rule))
        if unable:
            listed = ", ".join(unable)
            yield f"healthCheck.active of type GRPC needs HTTP/2, which is not spoken by {listed}"
    if spec.http2 is not None and reached and not any(_speaks_http2(rule) for rule in reached):
        yield "http2 has no effect: no server that it reaches speaks HTTP/2"


def _speaks_http2(rule: Rule) -> bool:
    found: list[Destination] = rule.destinations
    return rule.is_grpc or any(item.is_http2 for item in found)
