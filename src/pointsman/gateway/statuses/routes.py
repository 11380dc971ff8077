"""Routes, one entry for each parentRef that is ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.listeners import attachment
from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import (
    EnvoyFacts,
    Status,
    refusals,
)
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.store import Store


def route_statuses(
    store: Store, translation: Translation, facts: EnvoyFacts, options: Options
) -> dict[Ref, Status]:
    """Every route that names a Gateway of ours."""
    parents: dict[Ref, list[Status]] = {}
    for item in translation.parents:
        entry = {
            "parentRef": item.parent.to_dict(),
            "controllerName": item.served.controller_name,
            "conditions": _route_conditions(item, translation, facts),
        }
        parents.setdefault(item.route.ref, []).append(entry)
    if options.is_alone:
        _add_unknown_parents(store, translation, parents)
    return {ref: {"parents": entries} for ref, entries in parents.items()}


def _add_unknown_parents(
    store: Store, translation: Translation, parents: dict[Ref, list[Status]]
) -> None:
    """On one machine nobody else will say that a route names a Gateway that is not there."""
    for route in attachment.routes(store):
        for parent in route.spec.parent_refs:
            ref = attachment.parent_ref(route, parent)
            if store.find(ref) is not None:
                continue
            message = f"{ref} not found"
            entry = {
                "parentRef": parent.to_dict(),
                "controllerName": translation.config.gateway.gateway.controller_name,
                "conditions": [conditions.not_accepted(route, "NoMatchingParent", message)],
            }
            parents.setdefault(route.ref, []).append(entry)


def _route_conditions(
    item: attachment.RouteParent, translation: Translation, facts: EnvoyFacts
) -> list[Mapping[str, Any]]:
    route = item.route
    found = translation.rules.get(route.ref, ())
    unsupported = [text for rule in found for text in rule.unsupported]
    problems = [problem for rule in found for problem in rule.problems]
    if item.refusal is not None:
        accepted = conditions.not_accepted(route, *item.refusal)
    elif unsupported:
        message = f"Not supported: {'; '.join(unsupported)}"
        accepted = conditions.not_accepted(route, "UnsupportedValue", message)
    else:
        accepted = conditions.accepted(route, conditions.ROUTE_ACCEPTED)
    if problems:
        message = "; ".join(dict.fromkeys(problem.message for problem in problems))
        resolved = conditions.refs_unresolved(route, problems[0].reason, message)
    else:
        resolved = conditions.refs_resolved(route, conditions.ROUTE_REFS_RESOLVED)
    return [accepted, resolved, *refusals(route, translation, facts)]
