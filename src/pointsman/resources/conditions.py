"""Conditions: what is so about an object, and since when.

The pure core says what is so. Since when is filled in here, where the conditions of before and
the clock are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

ConditionStatus = Literal["True", "False", "Unknown"]

MESSAGE_CHARACTERS = 32768
"""The longest message that the API server takes."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One claim about an object."""

    type: str
    status: ConditionStatus
    reason: str
    """One CamelCase word for programs."""
    message: str = ""
    observed_generation: int = 0
    """The generation of the object that was looked at."""

    @property
    def is_true(self) -> bool:
        """The claim holds."""
        return self.status == "True"


def merge(
    existing: Iterable[Mapping[str, Any]], new: Iterable[Condition], now: str
) -> list[dict[str, Any]]:
    """The conditions `new` as they are written down, each with the time it last changed its status.

    A condition that keeps its status keeps its time; one that is not in `new` goes. When nothing
    has changed the result equals `existing`, order included. `now` is an RFC 3339 text.
    """
    before = {str(item.get("type", "")): item for item in existing}
    after = [_written(condition, before.get(condition.type), now) for condition in new]
    position = {kind: index for index, kind in enumerate(before)}
    return sorted(after, key=lambda item: position.get(item["type"], len(position)))


def find(conditions: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    """The condition of that type among those of a status."""
    return next((item for item in conditions if item.get("type") == kind), None)


def _written(condition: Condition, before: Mapping[str, Any] | None, now: str) -> dict[str, Any]:
    since = now
    if before is not None and before.get("status") == condition.status:
        since = str(before.get("lastTransitionTime") or now)
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message[:MESSAGE_CHARACTERS],
        "observedGeneration": condition.observed_generation,
        "lastTransitionTime": since,
    }
