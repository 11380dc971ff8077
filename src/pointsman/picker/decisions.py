"""The record of decisions, kept so that each can be explained afterwards.

A record holds immutable snapshots; filters and scores are recomputed when someone asks, by the
very functions that decided. The ring is bounded in records and, for large pools, in the candidates
that a record keeps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pointsman.picker.endpoints.table import Seen
from pointsman.picker.scheduling.profile import Profile, explain
from pointsman.picker.scheduling.request import Wanted

MAX_DECISIONS = 1_000
MAX_CANDIDATES = 64
"""Kept of one decision; of more, these and the chosen ones are."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was asked, what was seen, what was answered."""

    at: float
    """Unix time, seconds."""
    pool: str
    request_id: str
    api: str
    model: str | None
    wanted: Wanted
    """What scheduling was asked for; its model is the target."""
    candidates: tuple[Seen, ...]
    """As they were at the moment of the pick, before it was reserved."""
    candidates_total: int
    endpoints: tuple[str, ...]
    """Chosen, best first; empty for an error."""
    status: int
    """0 for a pick, else the HTTP status of the error."""
    reason: str
    """Empty for a pick, else the error's code."""
    duration_us: float

    def explained(self, profile: Profile | None) -> dict[str, Any]:
        """Everything, scores recomputed, as JSON."""
        shown: dict[str, Any] = {
            "at": self.at,
            "pool": self.pool,
            "request_id": self.request_id,
            "api": self.api,
            "model": self.model,
            "target": self.wanted.model,
            "priority": self.wanted.priority,
            "objective": self.wanted.objective,
            "prompt_tokens": self.wanted.prompt_tokens,
            "endpoints": list(self.endpoints),
            "status": self.status,
            "reason": self.reason,
            "duration_us": round(self.duration_us, 1),
            "candidates_total": self.candidates_total,
            "candidates": [
                _shown(each, self.wanted.cached_tokens.get(each.address, 0))
                for each in self.candidates
            ],
        }
        if self.candidates and profile is not None:
            explanation = explain(profile, self.candidates, self.wanted)
            shown["dropped"] = explanation.dropped
            shown["rules"] = explanation.rules
            shown["weights"] = explanation.weights
            shown["scores"] = explanation.scores
            shown["totals"] = explanation.totals
        return shown


def _shown(candidate: Seen, cached_tokens: int) -> dict[str, Any]:
    measures = candidate.measures
    return {
        "endpoint": candidate.address,
        "in_flight": candidate.requests,
        "tokens": candidate.tokens,
        "cached_tokens": cached_tokens,
        "queue": measures.waiting if measures is not None else None,
        "running": measures.running if measures is not None else None,
        "kv_cache": measures.kv_cache if measures is not None else None,
        "adapters": sorted(measures.running_adapters) if measures is not None else [],
    }


class Ring:
    """The last decisions, newest last."""

    def __init__(self, capacity: int = MAX_DECISIONS) -> None:
        self._decisions: deque[Decision] = deque(maxlen=capacity)
        self.followers: list[deque[Decision]] = []
        """Who hears of each decision."""

    def add(self, decision: Decision) -> None:
        """Remember one; the oldest goes when the ring is full."""
        self._decisions.append(decision)
        for follower in self.followers:
            follower.append(decision)

    @contextmanager
    def follow(self) -> Iterator[deque[Decision]]:
        """What is decided from now on, to be taken out at the left; the slow lose the oldest."""
        follower: deque[Decision] = deque(maxlen=self._decisions.maxlen)
        self.followers.append(follower)
        try:
            yield follower
        finally:
            # By identity: two followers that have heard the same are equal.
            self.followers = [each for each in self.followers if each is not follower]

    def __iter__(self) -> Iterator[Decision]:
        """Oldest first."""
        return iter(tuple(self._decisions))

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._decisions)
