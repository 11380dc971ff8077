"""Turning requests away with a chance that grows with the load, before anything is full."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pydantic import Field

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.flow.saturation import KV_CACHE_THRESHOLD, QUEUE_THRESHOLD, fullness
from pointsman.picker.scheduling.parameters import Parameters, Plugin


def chance_of_refusal(
    endpoints: Sequence[Loaded],
    *,
    queue_threshold: float = QUEUE_THRESHOLD,
    kv_cache_threshold: float = KV_CACHE_THRESHOLD,
    power: float = 5.0,
    k: float = 300.0,
) -> float:
    """`min(s^power * k, 1)` is the chance of a 429, for priorities below 0 and no others.

    s: the mean over the candidates of `max(q / queueDepthThreshold, u / kvCacheUtilThreshold)`.
    Missing metrics: 1 for that server. No candidates: 0.
    """
    if not endpoints:
        return 0.0
    total = sum(
        fullness(each, queue_threshold, kv_cache_threshold) if each.measures is not None else 1.0
        for each in endpoints
    )
    share: float = (total / len(endpoints)) ** power
    return min(share * k, 1.0)


class ProbabilisticAdmitter(Parameters):
    """Turns away more and more of what has a priority below 0 as the load grows."""

    queue_depth_threshold: float = Field(QUEUE_THRESHOLD, gt=0)
    kv_cache_util_threshold: float = Field(KV_CACHE_THRESHOLD, gt=0, le=1)
    power: float = Field(5.0, gt=0)
    k: float = Field(300.0, gt=0)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        chance = partial(
            chance_of_refusal,
            queue_threshold=self.queue_depth_threshold,
            kv_cache_threshold=self.kv_cache_util_threshold,
            power=self.power,
            k=self.k,
        )
        return Plugin(admitter=chance)
