"""Routes, one entry for each parentRef that is ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.backends.references import Picker
from pointsman.gateway.listeners import attachment
from pointsman.gateway.routes import trust
from pointsman.gateway.routes.parts import RoutePart
from pointsman.gateway.statuses.facts import Memory, Refusals, Status
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref


def route_statuses(
    translation: Translation, refusals: Refusals, memory: Memory
) -> Iterator[tuple[Ref, Status]]:
    """Every route that names a Gateway of ours."""
    controller = translation.config.gateway.gateway.controller_name
    for ref, part in translation.parts.items():
        if part.parents or part.orphans:
            made_from = (part, controller, refusals.messages.get(ref))
            make = partial(_status, part, controller, refusals)
            yield ref, memory.status(ref, made_from, make)


def _status(part: RoutePart, controller: str, refusals: Refusals) -> Status:
    entries = [
        {
            "parentRef": item.parent.to_dict(),
            "controllerName": item.served.controller_name,
            "conditions": _conditions(part, item, refusals),
        }
        for item in part.parents
    ]
    for parent in part.orphans:
        message = f"{attachment.parent_ref(part.route, parent)} not found, or not served"
        entries.append(
            {
                "parentRef": parent.to_dict(),
                "controllerName": controller,
                "conditions": [conditions.not_accepted(part.route, "NoMatchingParent", message)],
            }
        )
    return {"parents": entries}


def _conditions(
    part: RoutePart, item: attachment.RouteParent, refusals: Refusals
) -> list[Mapping[str, Any]]:
    route = part.route
    unsupported = [text for rule in part.rules for text in rule.unsupported]
    problems = [problem for rule in part.rules for problem in rule.problems]
    if item.refusal is not None:
        accepted = conditions.not_accepted(route, *item.refusal)
    elif unsupported:
        message = f"Not supported: {'; '.join(unsupported)}"
        accepted = conditions.not_accepted(route, "UnsupportedValue", message)
    elif part.fault is not None:
        message = conditions.ROUTE_FAULT.format(error=repr(part.fault))
        accepted = conditions.not_accepted(route, "InternalError", message)
    elif part.refused is not None:
        message = f"Envoy refuses it: {part.refused}"
        accepted = conditions.not_accepted(route, "UnsupportedValue", message)
    elif not item.attachments:
        accepted = conditions.accepted(route, conditions.ROUTE_NO_LISTENERS)
    else:
        accepted = conditions.accepted(route, conditions.ROUTE_ACCEPTED)
    if problems:
        message = "; ".join(dict.fromkeys(problem.message for problem in problems))
        resolved = conditions.refs_unresolved(route, problems[0].reason, message)
    else:
        resolved = conditions.refs_resolved(route, conditions.ROUTE_REFS_RESOLVED)
    return [accepted, resolved, *_warnings(part), *refusals.conditions(route)]


def _warnings(part: RoutePart) -> Iterator[Mapping[str, Any]]:
    pickers = [item.picker for rule in part.rules for item in rule.pools]
    has_own = any(isinstance(picker, Picker) and picker.is_pointsman for picker in pickers)
    found = list(trust.problems(part.route, has_own_picker=has_own))
    if found:
        message = "; ".join(found)
        yield conditions.condition(
            part.route, "Warning", conditions.TRUE, "UnsupportedValue", message
        )
