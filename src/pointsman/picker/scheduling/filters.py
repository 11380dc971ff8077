"""Filters: `(endpoints, wanted) -> endpoints`, a part of what came in, in its order.

A filter that would leave nothing leaves all, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.flow.saturation import fullness
from pointsman.picker.scheduling.request import Wanted

Filter = Callable[[Sequence[Loaded], Wanted], Sequence[Loaded]]


def lora_sticky_until_saturated(endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
    """The servers that hold the adapter, while one of them is below saturation.

    In order: the unsaturated servers on which the adapter runs; the unsaturated ones with a free
    adapter slot; all. Saturated: `max(q / 5, u / 0.8) >= 1` (see `flow.saturation`). A base model,
    or a model that no candidate holds, leaves all where no slot is free anywhere.
    Source: the guide's picker ("affinity LoRA" after "low queueing"), with load in the condition.
    Missing metrics: such a server holds nothing and has no free slot.
    """
    model = wanted.model
    if model is None:
        return endpoints
    holders: list[Loaded] = []
    free: list[Loaded] = []
    for endpoint in endpoints:
        measures = endpoint.measures
        if measures is None:
            continue
        if model in measures.base_models:
            return endpoints
        if model in measures.running_adapters:
            holders.append(endpoint)
        elif len(measures.running_adapters | measures.waiting_adapters) < measures.max_adapters:
            free.append(endpoint)
    for group in (holders, free):
        calm = [endpoint for endpoint in group if fullness(endpoint) < 1.0]
        if calm:
            return calm
    return endpoints


STICKY_FROM_TOKENS = 256
"""A match below this is cheaper to read again than to queue for."""
STICKY_SHARE = 0.8
"""Of the best match: who holds that much counts as holding it."""
FAIR_SHARE, FAIR_EXTRA = 1.5, 4
"""A server carries its share up to `1.5 * mean + 4` requests."""


def prefix_sticky_until_loaded(endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
    """The servers that hold the beginning of the prompt, while they carry no more than their share.

    `sticky = {e: m(e) >= 0.8 * max m}` if `max m >= 256`; of these stay those with
    `requests(e) <= 1.5 * mean + 4` and fullness below 1 (see `flow.saturation`); if none, all.
    m: tokens of the prompt that the server probably holds, from the approximate index; requests:
    our own in flight, mean over the candidates. The bound is what keeps a popular prompt from
    burying its server between two readings of its metrics. Missing: as no match.
    """
    cached = wanted.cached_tokens
    if not cached or len(endpoints) < 2:
        return endpoints
    matches = [cached.get(endpoint.address, 0) for endpoint in endpoints]
    best = max(matches)
    if best < STICKY_FROM_TOKENS:
        return endpoints
    mean = sum(endpoint.requests for endpoint in endpoints) / len(endpoints)
    most = FAIR_SHARE * mean + FAIR_EXTRA
    least = STICKY_SHARE * best
    sticky = [
        endpoint
        for endpoint, match in zip(endpoints, matches, strict=True)
        if match >= least and endpoint.requests <= most and fullness(endpoint) < 1.0
    ]
    return sticky or endpoints


BY_TYPE: dict[str, Filter] = {
    "lora-affinity-filter": lora_sticky_until_saturated,
    "prefix-sticky-filter": prefix_sticky_until_loaded,
}
"""The filters by the plugin type that configurations name."""
