"""The parameters of what says how full servers are, and of the filters that go by it."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field

from pointsman.picker.flow import saturation
from pointsman.picker.scheduling import filters
from pointsman.picker.scheduling.parameters import Parameters, Plugin, Settings


class UtilizationCondition(Settings):
    """A limit on one metric."""

    metric: Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"]
    max_value: float = Field(ge=0)


class UtilizationFilter(Parameters):
    """Servers below some limits."""

    conditions: tuple[UtilizationCondition, ...] = Field(min_length=1)
    fallback_on_empty: bool = False

    def __call__(self) -> Plugin:
        """Make the plugin."""
        limits: dict[str, float] = {each.metric: each.max_value for each in self.conditions}
        keep = partial(filters.below_limits, limits=limits, falls_back=self.fallback_on_empty)
        return Plugin(filter=keep)


class UtilizationDetector(Parameters):
    """Saturation by the servers' metrics."""

    queue_depth_threshold: float = Field(saturation.QUEUE_THRESHOLD, gt=0)
    kv_cache_util_threshold: float = Field(saturation.KV_CACHE_THRESHOLD, gt=0, le=1)
    metrics_staleness_threshold: str = ""
    headroom: float = Field(0.0, ge=0)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        queue, kv_cache = self.queue_depth_threshold, self.kv_cache_util_threshold
        return Plugin(
            detector=partial(
                saturation.saturation, queue_threshold=queue, kv_cache_threshold=kv_cache
            ),
            filter=partial(
                filters.below_utilization,
                queue_threshold=queue,
                kv_cache_threshold=kv_cache,
                headroom=self.headroom,
            ),
        )


class ConcurrencyDetector(Parameters):
    """Saturation by our own book."""

    max_concurrency: int = Field(100, ge=1)
    max_token_concurrency: int = Field(1_000_000, ge=1)
    concurrency_mode: Literal["requests", "tokens", "hybrid"] = "requests"
    headroom: float = Field(0.0, ge=0)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(
            detector=partial(
                saturation.concurrency,
                mode=self.concurrency_mode,
                max_requests=self.max_concurrency,
                max_tokens=self.max_token_concurrency,
            ),
            filter=partial(
                filters.below_concurrency,
                max_requests=self.max_concurrency,
                headroom=self.headroom,
            ),
        )
