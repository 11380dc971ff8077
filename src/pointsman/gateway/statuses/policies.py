"""Policies, one entry for each Gateway that they reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.patches import patch_policies
from pointsman.gateway.policies import extensions
from pointsman.gateway.policies.targets import (
    Known,
    Standing,
    TargetingPolicy,
    named,
    standings,
)
from pointsman.gateway.policies.verdicts import verdict
from pointsman.gateway.proxies import proxy_conditions
from pointsman.gateway.routes.meetings import subject_of
from pointsman.gateway.statuses import clients, traffic
from pointsman.gateway.statuses.facts import (
    Refusals,
    Status,
    ancestors,
)
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.store import Store


def targeting_statuses(translation: Translation, refusals: Refusals) -> dict[Ref, Status]:
    """Every policy that finds its targets by `targets`."""
    extended = translation.extensions
    traffic_policies = translation.scene.traffic
    client_policies = translation.scene.clients
    if not any(each.targets.policies for each in (extended, traffic_policies, client_policies)):
        return {}
    known = _known(translation)
    result: dict[Ref, Status] = {}
    stands = standings(extended.targets, known)
    for item in extended.items:
        policy = item.policy
        stand = stands[policy.ref]
        found = verdict(policy, stand, extensions.remarks(item))
        told = [*found, *refusals.conditions(policy)]
        result[policy.ref] = ancestors(_reached(policy, stand), translation, told)
    merging = {
        item.ref for item in traffic_policies.targets.policies if item.spec.merge_type is not None
    }
    stands = standings(traffic_policies.targets, known, merging)
    reached = traffic.reaches(traffic_policies, translation.parts.values())
    for each in traffic_policies.targets.policies:
        stand = stands[each.ref]
        remarks = traffic.remarks(traffic_policies, each, reached[each.ref])
        result[each.ref] = ancestors(
            _reached(each, stand), translation, verdict(each, stand, remarks)
        )
    stands = standings(client_policies.targets, known)
    for of_clients in client_policies.targets.policies:
        stand = stands[of_clients.ref]
        found = verdict(of_clients, stand, clients.remarks(of_clients, translation))
        told = [*found, *refusals.conditions(of_clients)]
        result[of_clients.ref] = ancestors(_reached(of_clients, stand), translation, told)
    return result


def _reached(policy: TargetingPolicy, stand: Standing) -> set[Ref]:
    """The Gateways that a policy reaches, or what it names where it reaches none."""
    return set(stand.gateways) or {spot.ref for spot in named(policy)}


def _known(translation: Translation) -> dict[Ref, Known]:
    """The Gateways of ours, their ListenerSets, and the routes on them."""
    scene = translation.scene
    result = {}
    for owner, listeners in scene.listeners_of.items():
        names = frozenset(item.spec.name for item in listeners)
        gateway = listeners[0].gateway.ref
        result[owner] = Known(subject_of(listeners[0].owner), names, (gateway,))
    for part in translation.parts.values():
        if part.view.known.gateways:
            result[part.ref] = part.view.known
    return result


def proxy_statuses(translation: Translation, refusals: Refusals) -> dict[Ref, Status]:
    """Every EnvoyProxy that some Gateway has."""
    found = translation.scene.proxies
    gateways: dict[Ref, list[Ref]] = {}
    for gateway, proxy in found.of_gateway.items():
        gateways.setdefault(proxy.ref, []).append(gateway)
    result = {}
    for proxy in found.all:
        is_alone = translation.scene.options.is_alone
        own = proxy_conditions(proxy, found, is_alone=is_alone)
        told = [*own, *refusals.conditions(proxy)]
        result[proxy.ref] = ancestors(gateways[proxy.ref], translation, told)
    return result


def patch_policy_statuses(
    store: Store, translation: Translation, refusals: Refusals
) -> dict[Ref, Status]:
    """Every EnvoyPatchPolicy."""
    outcomes = {outcome.policy.ref: outcome for outcome in translation.patches}
    targets = translation.scene.patch_targets
    result = {}
    for policy in store.list(EnvoyPatchPolicy):
        problem = patch_policies.target_problem(policy, targets)
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
