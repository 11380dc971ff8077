"""How full a pool is.

Utilization: `fullness(e) = max(q / 5, u / 0.8)` and `saturation = mean of fullness`; at 1 and above
the pool is saturated. q: requests waiting at the server, brought up to now by our own book; u: the
share of its KV cache in use. Thresholds and formula: the reference's utilization detector.

Missing or stale metrics count as 0, not as full: a server that does not answer a scrape is not
thereby busy, and a pool without metrics must not refuse everything (the reference stalls there).

Concurrency: `sum of requests / (capacity * servers)`, or of tokens, or the mean of the larger of
both; by our own book and, for requests, those of other pickers. Never missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pointsman.picker.endpoints.table import Loaded

QUEUE_THRESHOLD = 5
"""Waiting requests at which a server counts as full."""
KV_CACHE_THRESHOLD = 0.8
"""Share of the KV cache in use at which a server counts as full."""

Detector = Callable[[Sequence[Loaded]], float]
"""How full a pool is; 1 and above is saturated."""


def fullness(
    endpoint: Loaded,
    queue_threshold: float = QUEUE_THRESHOLD,
    kv_cache_threshold: float = KV_CACHE_THRESHOLD,
) -> float:
    """How full one server is; 1 is at its threshold."""
    measures = endpoint.measures
    if measures is None:
        return 0.0
    waiting = measures.waiting or 0
    if waiting:
        waiting = max(0, waiting + endpoint.requests - measures.own_requests)
    return max(waiting / queue_threshold, (measures.kv_cache or 0.0) / kv_cache_threshold)


def saturation(
    endpoints: Sequence[Loaded],
    *,
    queue_threshold: float = QUEUE_THRESHOLD,
    kv_cache_threshold: float = KV_CACHE_THRESHOLD,
) -> float:
    """How full a pool is; 0 for an empty one, which has other troubles."""
    if not endpoints:
        return 0.0
    total = sum(fullness(each, queue_threshold, kv_cache_threshold) for each in endpoints)
    return total / len(endpoints)


def concurrency(
    endpoints: Sequence[Loaded],
    *,
    mode: str = "requests",
    max_requests: int = 100,
    max_tokens: int = 1_000_000,
) -> float:
    """How full a pool is by our own book; `mode` is requests, tokens or hybrid."""
    if not endpoints:
        return 0.0
    count = len(endpoints)
    if mode == "requests":
        return sum(e.requests + e.others for e in endpoints) / (max_requests * count)
    if mode == "tokens":
        return sum(endpoint.tokens for endpoint in endpoints) / (max_tokens * count)
    shares = (
        max((each.requests + each.others) / max_requests, each.tokens / max_tokens)
        for each in endpoints
    )
    return sum(shares) / count
