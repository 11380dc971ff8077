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


BY_TYPE: dict[str, Filter] = {"lora-affinity-filter": lora_sticky_until_saturated}
"""The filters by the plugin type that configurations name."""
