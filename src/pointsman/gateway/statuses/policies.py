"""Policies, one entry for each Gateway that they reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.patches import patch_policies
from pointsman.gateway.policies import extensions
from pointsman.gateway.statuses.facts import (
    Refusals,
    Status,
    ancestors,
)
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.store import Store


def extension_status(
    item: extensions.Extension, translation: Translation, refusals: Refusals
) -> Status:
    """An EnvoyExtensionPolicy."""
    policy = item.policy
    targets = set(extensions.target_refs(policy))
    reached = [
        parent
        for parent in translation.parents
        if parent.route.ref in targets or parent.served.gateway.ref in targets
    ]
    gateways = dict.fromkeys((parent.served.gateway.ref, parent.parent) for parent in reached)
    missing = not reached and not any(
        served.gateway.ref in targets for served in translation.gateways
    )
    if missing:
        listed = ", ".join(str(ref) for ref in targets) or "nothing"
        message = f"Targets {listed}, which no Gateway of ours serves"
        refused = [conditions.not_accepted(policy, "TargetNotFound", message)]
        return ancestors(targets, translation, refused)
    routes = [parent.route.ref for parent in reached]
    found: list[Mapping[str, Any]] = [
        *extensions.policy_conditions(translation.extensions, item, routes),
        *refusals.conditions(policy),
    ]
    return ancestors({gateway for gateway, _ in gateways}, translation, found)


def patch_policy_statuses(
    store: Store, translation: Translation, refusals: Refusals
) -> dict[Ref, Status]:
    """Every EnvoyPatchPolicy."""
    outcomes = {outcome.policy.ref: outcome for outcome in translation.patches}
    result = {}
    for policy in store.list(EnvoyPatchPolicy):
        problem = patch_policies.target_problem(policy)
        target = patch_policies.target_of(policy)
        found: list[Mapping[str, Any]]
        if not translation.config.gateway.extension_apis.enable_envoy_patch_policy:
            found = [conditions.not_accepted(policy, "Disabled", conditions.PATCHES_DISABLED)]
        elif problem is not None:
            found = [conditions.not_accepted(policy, "Invalid", problem)]
        elif policy.ref in outcomes:
            refused = refusals.conditions(policy)
            own = outcomes[policy.ref].conditions()
            found = [own[0], *refused] if refused else [*own]
        else:
            message = f"{target} not found among the Gateways that are served"
            found = [conditions.not_accepted(policy, "TargetNotFound", message)]
        result[policy.ref] = ancestors({target}, translation, found)
    return result
