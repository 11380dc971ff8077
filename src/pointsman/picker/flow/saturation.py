"""How full a pool is.

`fullness(e) = max(q / 5, u / 0.8)` and `saturation = mean of fullness over the endpoints`; at 1 and
above the pool is saturated. q: requests waiting at the server, brought up to now by our own book;
u: share of its KV cache in use. Thresholds and formula: the reference's utilization detector.

Missing or stale metrics count as 0, not as full: a server that does not answer a scrape is not
thereby busy, and a pool without metrics must not refuse everything (the reference stalls there).
"""

from __future__ import annotations

from collections.abc import Sequence

from pointsman.picker.endpoints.table import Loaded

QUEUE_THRESHOLD = 5
"""Waiting requests at which a server counts as full."""
KV_CACHE_THRESHOLD = 0.8
"""Share of the KV cache in use at which a server counts as full."""


def fullness(endpoint: Loaded) -> float:
    """How full one server is; 1 is at its threshold."""
    measures = endpoint.measures
    if measures is None:
        return 0.0
    waiting = measures.waiting or 0
    if waiting:
        waiting = max(0, waiting + endpoint.requests - measures.own_requests)
    return max(waiting / QUEUE_THRESHOLD, (measures.kv_cache or 0.0) / KV_CACHE_THRESHOLD)


def saturation(endpoints: Sequence[Loaded]) -> float:
    """How full a pool is; 0 for an empty one, which has other troubles."""
    if not endpoints:
        return 0.0
    return sum(map(fullness, endpoints)) / len(endpoints)
