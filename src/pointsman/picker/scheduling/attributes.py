"""Filters and scorers by one number of each server: a metric that the configuration names.

The number is a series of the server's `/metrics`, which `core-metrics-extractor` maps to a name of
one's own (`customMetrics`), or one of those that the picker knows anyway: `WaitingQueueSize`,
`RunningRequestsSize`, `KVCacheUsagePercent`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling.parameters import Parameters, Plugin, Settings
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import Scores

KNOWN: Mapping[str, Callable[[Measures], float | None]] = {
    "WaitingQueueSize": lambda measures: measures.waiting,
    "RunningRequestsSize": lambda measures: measures.running,
    "KVCacheUsagePercent": lambda measures: measures.kv_cache,
}

OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "LessThan": operator.lt,
    "LessThanOrEqual": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqual": operator.ge,
    "Equal": operator.eq,
    "NotEqual": operator.ne,
}
Operator = Literal[
    "LessThan", "LessThanOrEqual", "GreaterThan", "GreaterThanOrEqual", "Equal", "NotEqual"
]


def value_of(endpoint: Loaded, attribute: str) -> float | None:
    """A server's number; None where it did not say it."""
    measures = endpoint.measures
    if measures is None:
        return None
    known = KNOWN.get(attribute)
    return known(measures) if known is not None else measures.custom.get(attribute)


def by_threshold(
    endpoints: Sequence[Loaded],
    _wanted: Wanted,
    *,
    attribute: str,
    compare: Callable[[Any, Any], bool],
    value: float,
    keeps_missing: bool = True,
    falls_back: bool = False,
) -> Sequence[Loaded]:
    """The servers whose number passes a comparison; may leave none.

    Missing: kept, unless `onMissing` is `Fail`. With `fallbackOnEmpty` all stay where none would.
    """
    kept = [
        endpoint
        for endpoint in endpoints
        if (
            keeps_missing
            if (found := value_of(endpoint, attribute)) is None
            else compare(found, value)
        )
    ]
    return endpoints if falls_back and not kept else kept


def linear(
    endpoints: Sequence[Loaded],
    _wanted: Wanted,
    *,
    attribute: str,
    is_lower_better: bool,
    bounds: tuple[float, float] | None = None,
) -> Scores:
    """`(v - min) / (max - min)`, or 1 minus that where lower is better.

    min and max: those of the fixed range, into which v is brought, or else those of the candidates;
    where these are equal: 1. Missing: 0.
    """
    values = [value_of(endpoint, attribute) for endpoint in endpoints]
    known = [value for value in values if value is not None]
    if not known:
        return [0.0] * len(values)
    low, high = bounds if bounds is not None else (min(known), max(known))
    if low == high:
        return [0.0 if value is None else 1.0 for value in values]
    scores = []
    for value in values:
        if value is None:
            scores.append(0.0)
            continue
        share = (min(max(value, low), high) - low) / (high - low)
        scores.append(1.0 - share if is_lower_better else share)
    return scores


class Threshold(Settings):
    """A comparison."""

    operator: Operator
    value: float


class FilterAlgorithm(Settings):
    """How the number decides."""

    type: Literal["threshold"]
    threshold: Threshold


class EndpointAttributeFilter(Parameters):
    """Servers of which one number passes a comparison."""

    attribute: str = Field(min_length=1)
    producer: Literal["core-metrics-extractor", ""] = "core-metrics-extractor"
    on_missing: Literal["Pass", "Fail"] = "Pass"
    fallback_on_empty: bool = False
    algorithm: FilterAlgorithm

    def __call__(self) -> Plugin:
        """Make the plugin."""
        threshold = self.algorithm.threshold
        keep = partial(
            by_threshold,
            attribute=self.attribute,
            compare=OPERATORS[threshold.operator],
            value=threshold.value,
            keeps_missing=self.on_missing == "Pass",
            falls_back=self.fallback_on_empty,
        )
        return Plugin(filter=keep)


class FixedRange(Settings):
    """Bounds that are known."""

    min: float
    max: float

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if not self.min < self.max:
            raise ValueError("min must be less than max")
        return self


class AdaptiveRange(Settings):
    """The bounds of the candidates."""


class Normalization(Settings):
    """The range in which a number lies."""

    fixed_range: FixedRange | None = None
    adaptive_range: AdaptiveRange | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.fixed_range is not None and self.adaptive_range is not None:
            raise ValueError("must not have both fixedRange and adaptiveRange")
        return self


class ScorerAlgorithm(Settings):
    """Which end is the better one."""

    type: Literal["linear_lower_is_better", "linear_higher_is_better"]
    normalization: Normalization = Normalization()


class EndpointAttributeScorer(Parameters):
    """Lowest or highest in one number."""

    attribute_key: str = Field(min_length=1)
    producer: Literal["core-metrics-extractor", ""] = "core-metrics-extractor"
    algorithm: ScorerAlgorithm

    def __call__(self) -> Plugin:
        """Make the plugin."""
        fixed = self.algorithm.normalization.fixed_range
        scorer = partial(
            linear,
            attribute=self.attribute_key,
            is_lower_better=self.algorithm.type == "linear_lower_is_better",
            bounds=(fixed.min, fixed.max) if fixed is not None else None,
        )
        return Plugin(scorer=scorer)
