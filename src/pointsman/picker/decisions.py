"""The record of decisions, kept so that each can be explained afterwards.

A record holds immutable snapshots; filters and scores are recomputed when someone asks, by the
very functions that decided. The ring is bounded in records and, for large pools, in the candidates
that a record keeps.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pointsman.picker.endpoints.table import Seen
from pointsman.picker.scheduling.profile import Explanation, Profile, explain
from pointsman.picker.scheduling.request import Wanted

MAX_DECISIONS = 1_000
MAX_CANDIDATES = 64
"""Kept of one decision; of more, these and the chosen ones are."""

MAX_TOLD_BYTES = 2_048
"""Of a decision in a response header: proxies in between may take no more than some KB."""
MAX_TOLD_CHARACTERS = 64
"""Of a model's name in it."""


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

    def told(self, profile: Profile | None) -> str:
        """The same in short, as a response header can hold it: at most `MAX_TOLD_BYTES` of ASCII.

        Of many candidates the best are told of; `candidates` counts all.
        """
        outcome: dict[str, Any] = {"candidates": self.candidates_total}
        if self.endpoints:
            outcome["endpoint"] = self.endpoints[0]
        else:
            outcome |= {"status": self.status, "reason": self.reason}
        told = outcome | {
            "pool": self.pool,
            "model": (self.model or "")[:MAX_TOLD_CHARACTERS],
            "target": (self.wanted.model or "")[:MAX_TOLD_CHARACTERS],
            "priority": self.wanted.priority,
            "us": round(self.duration_us),
        }
        if not self.endpoints or profile is None:
            text = _compact(told)
            return text if len(text) <= MAX_TOLD_BYTES else _compact(outcome)
        explanation = explain(profile, self.candidates, self.wanted)
        told["weights"] = explanation.weights
        totals = explanation.totals
        order = sorted(totals, key=totals.__getitem__, reverse=True)
        gone = [name for names in explanation.dropped.values() for name in names]
        ranked = list(dict.fromkeys((*self.endpoints, *order, *gone)))
        while len(text := _compact(told | _of_some(explanation, ranked))) > MAX_TOLD_BYTES:
            if not ranked:
                return _compact(outcome)
            ranked = ranked[: len(ranked) * 3 // 4]
        return text


def _of_some(explanation: Explanation, endpoints: Sequence[str]) -> dict[str, Any]:
    """What became of these."""
    kept = set(endpoints)
    return {
        "dropped": {
            step: [name for name in names if name in kept]
            for step, names in explanation.dropped.items()
        },
        "scores": {
            name: {scorer: round(score, 3) for scorer, score in explanation.scores[name].items()}
            for name in endpoints
            if name in explanation.scores
        },
        "totals": {
            name: round(explanation.totals[name], 3)
            for name in endpoints
            if name in explanation.totals
        },
    }


def _compact(value: Any) -> str:
    """JSON of nothing but printable ASCII."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"))


def _shown(candidate: Seen, cached_tokens: int) -> dict[str, Any]:
    measures = candidate.measures
    return {
        "endpoint": candidate.address,
        "in_flight": candidate.requests,
        "others": round(candidate.others, 1),
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

    @property
    def last(self) -> Decision | None:
        """The newest."""
        return self._decisions[-1] if self._decisions else None

    def __iter__(self) -> Iterator[Decision]:
        """Oldest first."""
        return iter(tuple(self._decisions))

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._decisions)
