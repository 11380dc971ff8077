"""What is known beside the translation, and what the statuses share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.snapshot import Key
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref, Resource

Status = dict[str, Any]

BIND_ERROR = "cannot bind"
"""How Envoy's message begins where a port is taken or not allowed."""


@dataclass(frozen=True, slots=True)
class EnvoyFacts:
    """What is known of the Envoys that serve the resources."""

    connected: int = 0
    wanted: int = 1
    listeners: frozenset[str] = frozenset()
    """Names of the listeners that every connected Envoy has taken as they are."""
    refused: Mapping[Key, str] = field(default_factory=dict)
    """Resources that Envoy refused, with its words."""


def refusals(
    subject: Resource, translation: Translation, facts: EnvoyFacts
) -> list[Mapping[str, Any]]:
    """Programmed=False where Envoy refused a resource for which this object is to blame first."""
    messages = [
        f"Envoy refused {key.name}: {message}"
        for key, message in facts.refused.items()
        if (found := translation.snapshot.resources.get(key)) is not None
        and found.origins[:1] == (subject.ref,)
    ]
    if not messages:
        return []
    return [conditions.not_programmed(subject, "Invalid", "; ".join(messages))]


def ancestors(
    gateways: Iterable[Ref], translation: Translation, found: Sequence[Mapping[str, Any]]
) -> Status:
    """A policy's status: the same conditions for each Gateway that it reaches."""
    controllers = {item.gateway.ref: item.controller_name for item in translation.gateways}
    default = translation.config.gateway.gateway.controller_name
    return {
        "ancestors": [
            {
                "ancestorRef": {
                    "group": ref.group,
                    "kind": ref.kind,
                    "namespace": ref.namespace,
                    "name": ref.name,
                },
                "controllerName": controllers.get(ref, default),
                "conditions": list(found),
            }
            for ref in sorted(gateways)
        ]
    }


def is_true(found: Iterable[Mapping[str, Any]], kind: str) -> bool:
    """Whether a condition of that type is there and true."""
    return any(item["type"] == kind and item["status"] == conditions.TRUE for item in found)
