"""Scorers: `(endpoints, wanted) -> scores`, one number from 0 (worst) to 1 for each endpoint.

Names and formulas are those of the reference picker (llm-d-router 0.10), so that its configurations
mean the same here; each states its formula, units, source and what it does when a fact is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling.request import Wanted

Scores = list[float]
Scorer = Callable[[Sequence[Loaded], Wanted], Scores]


def queue(endpoints: Sequence[Loaded], _wanted: Wanted) -> Scores:
    """`(max - q) / (max - min)` over the candidates; all 1 where they are equal.

    q: requests waiting at the server, from its metrics. Missing: as the mean of those known.
    """
    return _fewest_is_best([waiting(endpoint) for endpoint in endpoints])


def running_requests(endpoints: Sequence[Loaded], _wanted: Wanted) -> Scores:
    """`(max - r) / (max - min)` over the candidates; all 1 where they are equal.

    r: requests in the server's batch, from its metrics. Missing: as the mean of those known.
    """
    known = [None if (m := e.measures) is None else m.running for e in endpoints]
    return _fewest_is_best(known)


def kv_cache_utilization(endpoints: Sequence[Loaded], _wanted: Wanted) -> Scores:
    """`1 - u`.

    u: share of the KV cache in use, 0 to 1, from the server's metrics. Missing: as the mean of
    those known; all 1 where none is known.
    """
    known = [None if (m := e.measures) is None else m.kv_cache for e in endpoints]
    return [1.0 - value for value in _filled(known)]


def active_request(
    endpoints: Sequence[Loaded],
    _wanted: Wanted,
    *,
    idle_threshold: int = 0,
    max_busy_score: float = 1.0,
) -> Scores:
    """1 where `c <= idle_threshold`, else `(max - c) / max * max_busy_score`.

    c: requests in flight, our own from the load book and those of other pickers as far as is known
    (see `endpoints.company`); max: the largest c among the candidates. Never missing.
    """
    counts = [endpoint.requests + endpoint.others for endpoint in endpoints]
    largest = max(counts, default=0.0)
    if largest <= idle_threshold:
        return [1.0] * len(counts)
    scale = max_busy_score / largest
    return [1.0 if c <= idle_threshold else (largest - c) * scale for c in counts]


def token_load(
    endpoints: Sequence[Loaded], wanted: Wanted, *, threshold_tokens: int = 4 * 1024 * 1024
) -> Scores:
    """`1 - min(t + n, T) / T`.

    t: tokens that our own requests in flight make the server read, from the load book; n: those
    of this request that it does not hold; T: `threshold_tokens`. Never missing.
    """
    mine = wanted.uncached_tokens
    return [
        1.0 - min(e.tokens + mine(e.address), threshold_tokens) / threshold_tokens
        for e in endpoints
    ]


def load_aware(endpoints: Sequence[Loaded], _wanted: Wanted, *, threshold: int = 128) -> Scores:
    """0.5 where `q = 0`, else `0.5 * (1 - min(q, T) / T)`.

    q: requests waiting at the server, from its metrics; T: `threshold`. Missing: 0.5, as for none
    waiting.
    """
    return [
        0.5 * (1.0 - min(waiting(endpoint) or 0, threshold) / threshold) for endpoint in endpoints
    ]


def lora_affinity(endpoints: Sequence[Loaded], wanted: Wanted) -> Scores:
    """1 where the adapter runs, else 0.8 where a slot is free, else 0.6 where it waits, else 0.

    Running and waiting adapters and the number of slots: from the server's metrics. A base model
    (a name under which a server reports its own series) needs no slot: every server scores 1.
    Missing: 0.
    """
    return [_lora_score(endpoint, wanted.model) for endpoint in endpoints]


def _lora_score(endpoint: Loaded, model: str | None) -> float:
    measures = endpoint.measures
    if measures is None or model is None:
        return 0.0
    if model in measures.running_adapters or model in measures.base_models:
        return 1.0
    if len(measures.running_adapters) + len(measures.waiting_adapters) < measures.max_adapters:
        return 0.8
    return 0.6 if model in measures.waiting_adapters else 0.0


def prefix_cache(
    endpoints: Sequence[Loaded],
    wanted: Wanted,
    *,
    length_weight: float = 0.0,
    length_scale_tokens: int = 8192,
) -> Scores:
    """`w * min(1, m / S)^2 + (1 - w) * m / n`.

    m: tokens of the prompt that the server probably holds, from the approximate index; n: tokens
    that were looked for; w: `length_weight`; S: `length_scale_tokens`. Missing: 0.
    """
    total = wanted.hashed_tokens
    if not total or not wanted.cached_tokens:
        return [0.0] * len(endpoints)
    cached = wanted.cached_tokens.get
    matches = [cached(endpoint.address, 0) for endpoint in endpoints]
    if not length_weight:
        return [match / total for match in matches]
    return [
        length_weight * min(1.0, match / length_scale_tokens) ** 2
        + (1.0 - length_weight) * match / total
        for match in matches
    ]


def waiting(endpoint: Loaded) -> int | None:
    """Requests waiting at a server, brought up to now; None if the server never said.

    A server that had requests waiting at its last reading also lets those wait that we have sent
    since (and has let as many of ours go as have ended).
    """
    measures = endpoint.measures
    if measures is None or measures.waiting is None:
        return None
    if measures.waiting == 0:
        return 0
    return max(0, measures.waiting + endpoint.requests - measures.own_requests)


def _fewest_is_best(known: Sequence[float | None]) -> Scores:
    values = _filled(known)
    if not values:
        return []
    smallest, largest = min(values), max(values)
    if smallest == largest:
        return [1.0] * len(values)
    width = largest - smallest
    return [(largest - value) / width for value in values]


def _filled(known: Sequence[float | None]) -> list[float]:
    """What is missing counts as the mean of what is known; 0 where nothing is."""
    if None not in known:
        return list(known)  # type: ignore[arg-type]  # there is no None in it
    values = [value for value in known if value is not None]
    mean = sum(values) / len(values) if values else 0.0
    return [mean if value is None else value for value in known]
