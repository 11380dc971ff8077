"""A profile: filters in order, weighted scorers, one picker. Running it is a pure function.

left = candidates; for each filter: left = filter(left)
total(e) = sum over scorers of weight * clamp(score(e), 0, 1)
the picker orders `left` by total, best first; equal totals in random order
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from heapq import nlargest
from typing import Protocol

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling import filters, scorers
from pointsman.picker.scheduling.filters import Filter
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import Scorer

SORTED_AT_MOST = 64
"""Endpoints that are put in order as a whole; of more, only the best are looked for."""


class Listener(Protocol):
    """Something with a memory, such as a scorer that spreads new prompts."""

    def picked(self, address: str, wanted: Wanted) -> None:
        """This endpoint was picked."""


class Random(Protocol):
    """What ties are broken with: `random.Random` has it."""

    def random(self) -> float:
        """A number from [0, 1)."""


@dataclass(frozen=True, slots=True)
class NamedFilter:
    """A filter and the name it goes by."""

    name: str
    apply: Filter


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    """A scorer, the name it goes by, and what its score counts."""

    name: str
    score: Scorer
    weight: float = 1.0


class Picking(Enum):
    """How the best are chosen from the totals."""

    MAX_SCORE = "max-score-picker"
    """By total, equal ones in random order."""
    RANDOM = "random-picker"
    """In random order."""
    WEIGHTED_RANDOM = "weighted-random-picker"
    """By `U ^ (1 / total)` with U drawn for each: chances as the totals; totals of 0 come last."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How to choose."""

    filters: tuple[NamedFilter, ...] = ()
    scorers: tuple[WeightedScorer, ...] = ()
    picking: Picking = Picking.MAX_SCORE
    max_endpoints: int = 3
    """How many endpoints are named at most: the winner and those to fall back on."""
    listeners: tuple[Listener, ...] = ()
    """Who wants to hear of each pick."""
    reads_headers: bool = False
    """Whether `Wanted.headers` is needed."""
    reads_media: bool = False
    """Whether `Wanted.media` is needed."""
    token_headers: tuple[str, ...] = ()
    """Headers of the answer that name the server that was picked, as a token."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every step of a run, for people."""

    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Filter to the addresses that it dropped."""
    rules: dict[str, str] = field(default_factory=dict)
    """Filter to what it keeps, in words."""
    weights: dict[str, float] = field(default_factory=dict)
    """Scorer to what its score counts."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """Address to scorer to score, before weights."""
    totals: dict[str, float] = field(default_factory=dict)


def choose(
    profile: Profile, candidates: Sequence[Loaded], wanted: Wanted, rng: Random
) -> list[Loaded]:
    """The best endpoints, best first; empty only if there are no candidates or all were dropped."""
    left = candidates
    for step in profile.filters:
        left = step.apply(left, wanted)
    if len(left) <= 1:
        return list(left)
    draw = rng.random
    if profile.picking is Picking.RANDOM:
        keys = [draw() for _ in left]
    else:
        keys = _totals(profile, left, wanted)
        if profile.picking is Picking.WEIGHTED_RANDOM:
            keys = [draw() ** (1.0 / total) if total > 0.0 else 0.0 for total in keys]
    if profile.max_endpoints == 1:
        best = max(keys)
        ties = [endpoint for endpoint, key in zip(left, keys, strict=True) if key == best]
        return [ties[int(draw() * len(ties))]]
    order = zip(keys, [draw() for _ in keys], range(len(left)), strict=True)
    if len(left) <= SORTED_AT_MOST:
        best_first = sorted(order, reverse=True)[: profile.max_endpoints]
    else:
        best_first = nlargest(profile.max_endpoints, order)
    return [left[place] for _, _, place in best_first]


def explain(profile: Profile, candidates: Sequence[Loaded], wanted: Wanted) -> Explanation:
    """What each step of a run said."""
    explanation = Explanation()
    left = candidates
    for step in profile.filters:
        kept = step.apply(left, wanted)
        names = {endpoint.address for endpoint in kept}
        explanation.dropped[step.name] = [e.address for e in left if e.address not in names]
        explanation.rules[step.name] = _rule(step.apply)
        left = kept
    for endpoint in left:
        explanation.scores[endpoint.address] = {}
    for scorer in profile.scorers:
        explanation.weights[scorer.name] = scorer.weight
        for endpoint, score in zip(left, scorer.score(left, wanted), strict=True):
            explanation.scores[endpoint.address][scorer.name] = _clamped(score)
    for endpoint, total in zip(left, _totals(profile, left, wanted), strict=True):
        explanation.totals[endpoint.address] = total
    return explanation


def _rule(apply: Filter) -> str:
    """The first line of a filter's docstring: what it keeps."""
    text = (apply.func if isinstance(apply, partial) else apply).__doc__ or ""
    return text.strip().partition("\n")[0]


def _totals(profile: Profile, left: Sequence[Loaded], wanted: Wanted) -> list[float]:
    totals = [0.0] * len(left)
    for scorer in profile.scorers:
        weight = scorer.weight
        scores = scorer.score(left, wanted)
        # Written out: a call for each of a thousand endpoints would be half of the time.
        totals = [
            total + weight * score
            if 0.0 <= score <= 1.0
            else total + (weight if score > 1.0 else 0.0)
            for total, score in zip(totals, scores, strict=True)
        ]
    return totals


def _clamped(score: float) -> float:
    return min(1.0, max(0.0, score))


DEFAULT = Profile(
    filters=(
        NamedFilter("served-model-filter", filters.serves_model),
        NamedFilter("lora-affinity-filter", filters.lora_sticky_until_saturated),
        NamedFilter("prefix-sticky-filter", filters.prefix_sticky_until_loaded),
        NamedFilter("prefix-home-filter", filters.homes_of_new_prompts),
    ),
    scorers=(
        WeightedScorer("queue-scorer", scorers.queue, 2.0),
        WeightedScorer("kv-cache-utilization-scorer", scorers.kv_cache_utilization, 2.0),
        WeightedScorer("active-request-scorer", scorers.active_request, 3.0),
        WeightedScorer("prefix-cache-scorer", scorers.prefix_cache, 1.0),
    ),
)
"""What is used where no configuration says otherwise. Our own book weighs most: it is the only fact
that is true at the moment of the pick."""
