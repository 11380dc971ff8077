"""BackendTLSPolicies, one entry for each Gateway that goes to what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.backends.references import Picker
from pointsman.gateway.backends.upstream_tls import INVALID, TLSPolicy
from pointsman.gateway.routes.parts import RoutePart
from pointsman.gateway.statuses.facts import Refusals, Status, ancestors
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref


def tls_policy_statuses(translation: Translation, refusals: Refusals) -> dict[Ref, Status]:
    """Every BackendTLSPolicy; one whose backends no route leads to is told for the backends."""
    policies = translation.resolver.tls_policies.items
    if not policies:
        return {}
    gateways: dict[Ref, dict[Ref, None]] = {}
    for part in translation.parts.values():
        reached = {item.served.gateway.ref: None for item in part.parents if item.attachments}
        for target in _destinations(part):
            gateways.setdefault(target, {}).update(reached)
    result = {}
    for ref, item in policies.items():
        found = {gateway for target in item.target_refs for gateway in gateways.get(target, ())}
        told = [*_conditions(item), *refusals.conditions(item.policy)]
        result[ref] = ancestors(found or set(item.target_refs), translation, told)
    return result


def _destinations(part: RoutePart) -> Iterator[Ref]:
    """What a route leads to, and the pickers of its pools."""
    for rule in part.rules:
        for target, _, _ in rule.references:
            yield target
        for pool in rule.pools:
            if isinstance(pool.picker, Picker) and pool.picker.destination is not None:
                yield pool.picker.destination.ref


def _conditions(item: TLSPolicy) -> Iterator[dict[str, Any]]:
    policy = item.policy
    if item.refusal is not None:
        yield conditions.not_accepted(policy, *item.refusal)
    else:
        message = conditions.POLICY_ACCEPTED
        if item.lost:
            message += f" Older policies hold {', '.join(map(str, item.lost))}."
        yield conditions.accepted(policy, message)
    if item.unresolved is not None and item.unresolved[0] != INVALID:
        yield conditions.refs_unresolved(policy, *item.unresolved)
    else:
        yield conditions.refs_resolved(policy, conditions.BACKEND_TLS_REFS_RESOLVED)
    if policy.spec.options:
        listed = ", ".join(f"options.{name}" for name in policy.spec.options)
        message = f"Fields that have no effect: {listed}"
        yield conditions.condition(policy, "Warning", conditions.TRUE, "UnsupportedField", message)
