"""What is told of a policy that has targets: accepted or why not, overridden by whom, and warnings.

Reasons and texts are those of Envoy Gateway where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.policies.targets import GATEWAY, Spot, Standing
from pointsman.resources.base import Resource

PLURALS = {
    "BackendTrafficPolicy": "backendTrafficPolicies",
    "ClientTrafficPolicy": "ClientTrafficPolicies",
    "EnvoyExtensionPolicy": "envoyExtensionPolicies",
}
MOST_LISTED = 20
"""Of the targets in one message; a message that nobody can read tells nothing."""


@dataclass(frozen=True, slots=True)
class Remarks:
    """What was found out about a policy beside its targets."""

    problem: str | None = None
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What of it has no effect, and where."""
    message: str = conditions.POLICY_ACCEPTED
    merged_with: str | None = None
    """`NAMESPACE/NAME` of the policy whose settings it adds to."""


def verdict(policy: Resource, standing: Standing, remarks: Remarks) -> list[dict[str, Any]]:
    """The conditions of a policy."""
    if remarks.problem is not None:
        return [conditions.not_accepted(policy, "Invalid", remarks.problem)]
    if not standing.held:
        return [_not_attached(policy, standing)]
    result = [conditions.accepted(policy, remarks.message)]
    warnings = [
        *remarks.warnings,
        *(f"{_conflict(policy, spot)}" for spot in standing.conflicts),
        *(_not_found(spot) for spot in standing.missing),
    ]
    if warnings:
        reason = "UnsupportedField" if remarks.warnings else "PartlyAttached"
        text = "; ".join(warnings)
        result.append(conditions.condition(policy, "Warning", conditions.TRUE, reason, text))
    if remarks.merged_with is not None:
        text = f"Merged with policy {remarks.merged_with}"
        result.append(conditions.condition(policy, "Merged", conditions.TRUE, "Merged", text))
    if standing.overridden:
        text = _overridden(policy, standing.overridden)
        result.append(
            conditions.condition(policy, "Overridden", conditions.TRUE, "Overridden", text)
        )
    return result


def _not_attached(policy: Resource, standing: Standing) -> dict[str, Any]:
    if standing.conflicts:
        text = "; ".join(_conflict(policy, spot) for spot in standing.conflicts)
        return conditions.not_accepted(policy, "Conflicted", text)
    text = "; ".join(_not_found(spot) for spot in standing.missing)
    return conditions.not_accepted(policy, "TargetNotFound", text or "Selects nothing that is here")


def _conflict(policy: Resource, spot: Spot) -> str:
    kind = policy.KIND.kind
    return f"Unable to target {spot}, another {kind} has already attached to it"


def _not_found(spot: Spot) -> str:
    if spot.section is not None:
        return f"No section name {spot.section} found for {spot.ref}, or no Gateway of ours has it"
    return f"{spot.ref} not found among what the Gateways serve"


def _overridden(policy: Resource, spots: Sequence[Spot]) -> str:
    kind = policy.KIND.kind
    plural = PLURALS[kind]
    if kind == "ClientTrafficPolicy":
        of_gateway = [spot for spot in spots if spot.ref.kind == GATEWAY]
        sections = [spot.section or "" for spot in of_gateway]
        sections += [spot.path for spot in spots if spot not in of_gateway]
        return f"There are existing {plural} that are overriding these sections {_listed(sections)}"
    groups = {
        "listeners": [spot.path for spot in spots if spot.ref.kind == GATEWAY],
        "routes": [spot.path for spot in spots if spot.ref.kind != GATEWAY and not spot.section],
        "rules": [spot.path for spot in spots if spot.ref.kind != GATEWAY and spot.section],
    }
    told = " and ".join(
        f"these {name}: {_listed(paths)}" for name, paths in groups.items() if paths
    )
    return f"This policy is being overridden by other {plural} for {told}"


def _listed(names: Sequence[str]) -> str:
    shown = " ".join(sorted(dict.fromkeys(names))[:MOST_LISTED])
    more = len(set(names)) - MOST_LISTED
    return f"[{shown} and {more} more]" if more > 0 else f"[{shown}]"
