"""What is known beside the translation, and what the statuses share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.snapshot import Key
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref, Resource
from pointsman.resources.gateway_api import Gateway

Status = dict[str, Any]

BIND_ERROR = "cannot bind"
"""How Envoy's message begins where a port is taken or not allowed."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """What a cluster says of the Envoys of one Gateway."""

    ready: int = 0
    wanted: int = 1
    addresses: tuple[str, ...] = ()
    """IPs and names that clients go to; () while none is known."""
    problem: tuple[str, str] | None = None
    """Reason and message, where what a Gateway needs cannot be made."""


@dataclass(frozen=True, slots=True)
class EnvoyFacts:
    """What is known of the Envoys that serve the resources."""

    connected: int = 0
    wanted: int = 1
    connected_of: Mapping[str, int] = field(default_factory=dict)
    """How many are connected here, and had every listener once, of each fleet that has some."""
    fleets: Mapping[Ref, Fleet] = field(default_factory=dict)
    """By Gateway, where each has Envoys of its own."""
    listeners: frozenset[str] = frozenset()
    """Names of the listeners that every such Envoy has taken as they are."""
    refused: Mapping[Key, str] = field(default_factory=dict)
    """Resources that Envoy refused, with its words."""


class Memory:
    """Statuses that were made, each kept as the same object while what it is made from stays.

    It holds no more than the statuses of the last two rounds.
    """

    def __init__(self) -> None:
        self._before: dict[Ref, tuple[tuple[Any, ...], Status]] = {}
        self._now: dict[Ref, tuple[tuple[Any, ...], Status]] = {}

    def begin(self) -> None:
        """Another round: what is not asked for in it is forgotten."""
        self._before, self._now = self._now, {}

    def status(self, ref: Ref, made_from: tuple[Any, ...], make: Callable[[], Status]) -> Status:
        """The status of an object, made anew only if `made_from` is not what it was."""
        found = self._before.get(ref)
        if found is None or found[0] != made_from:
            found = (made_from, make())
        self._now[ref] = found
        return found[1]


@dataclass(frozen=True, slots=True)
class Refusals:
    """What Envoy refused, by the object that is to blame."""

    messages: Mapping[Ref, Sequence[str]]

    @classmethod
    def of(cls, translation: Translation, facts: EnvoyFacts) -> Refusals:
        """The first origin of a resource is to blame for it."""
        found: dict[Ref, list[str]] = {}
        for key, message in facts.refused.items():
            resource = translation.snapshot.get(key)
            if resource is not None and resource.origins:
                # A port that is taken is no policy's fault.
                owners = [ref for ref in resource.origins if ref.kind == Gateway.KIND.kind]
                blamed = owners if owners and BIND_ERROR in message else resource.origins
                text = f"Envoy refused {key.name}: {message}"
                found.setdefault(blamed[0], []).append(text)
        return cls(found)

    def conditions(self, subject: Resource) -> list[Mapping[str, Any]]:
        """Programmed=False where Envoy refused a resource for which `subject` is to blame."""
        messages = self.messages.get(subject.ref)
        if not messages:
            return []
        return [conditions.not_programmed(subject, "Invalid", "; ".join(messages))]


def ancestors(
    gateways: Iterable[Ref], translation: Translation, found: Sequence[Mapping[str, Any]]
) -> Status:
    """A policy's status: the same conditions for each Gateway that it reaches.

    In a cluster Gateways that are not ours are other controllers' to speak of.
    """
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
            if translation.scene.options.is_alone or ref in controllers
        ]
    }


def is_true(found: Iterable[Mapping[str, Any]], kind: str) -> bool:
    """Whether a condition of that type is there and true."""
    return any(item["type"] == kind and item["status"] == conditions.TRUE for item in found)
