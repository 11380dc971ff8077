"""Filters: `(endpoints, wanted) -> endpoints`, a part of what came in, in its order.

A filter that would leave nothing leaves all, unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from heapq import nsmallest
from zlib import crc32

from pointsman.picker.endpoints.company import ALONE
from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.flow.saturation import fullness
from pointsman.picker.scheduling.request import Wanted

Filter = Callable[[Sequence[Loaded], Wanted], Sequence[Loaded]]


def serves_model(endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
    """The servers whose own `/v1/models` lists the target; all where none does.

    While adapters are rolled out, some servers of a pool have them and some do not, and one that
    does not answers 404. Missing list: the server stays.
    """
    model = wanted.model
    if model is None:
        return endpoints
    kept = [endpoint for endpoint in endpoints if not endpoint.models or model in endpoint.models]
    if len(kept) == len(endpoints):
        return endpoints
    return kept or endpoints


def lora_sticky_until_saturated(endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
    """The servers that hold the adapter, while one of them is below saturation.

    In order: the unsaturated servers on which the adapter runs; the unsaturated ones with a free
    adapter slot; both kinds, saturated; all. Saturated: `max(q / 5, u / 0.8) >= 1` (see
    `flow.saturation`). A base model leaves all.
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
    return [*holders, *free] or endpoints


STICKY_FROM_TOKENS = 256
"""A match below this is cheaper to read again than to queue for."""
STICKY_SHARE = 0.8
"""Of the best match: who holds that much counts as holding it."""
FAIR_SHARE, FAIR_EXTRA = 1.15, 2
"""A server carries its share up to `1.15 * mean + 2` requests. Found with simulated servers
(`benchmarks/picker_policies.py`): with looser bounds hot groups pile up, with tighter ones they
scatter."""


def prefix_sticky_until_loaded(endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
    """The servers that hold the beginning of the prompt, while they carry no more than their share.

    `sticky = {e: m(e) >= 0.8 * max m}` if `max m >= 256`; of these stay those with
    `requests(e) <= 1.15 * mean + 2`; if none, all. m: tokens of the prompt that the server probably
    holds, from the approximate index; requests: in flight, ours and those of other pickers as far
    as is known (see `endpoints.company`), mean over the candidates. The bound is what keeps a
    popular prompt from burying its server between two readings of its metrics. It is relative:
    where all servers are full, moving a prompt to one that must read it anew, and evict another
    for it, only makes all of them slower. Missing: as no match.
    """
    cached = wanted.cached_tokens
    if not cached or len(endpoints) < 2:
        return endpoints
    matches = [cached.get(endpoint.address, 0) for endpoint in endpoints]
    best = max(matches)
    if best < STICKY_FROM_TOKENS:
        return endpoints
    mean = sum(endpoint.requests + endpoint.others for endpoint in endpoints) / len(endpoints)
    most = FAIR_SHARE * mean + FAIR_EXTRA
    least = STICKY_SHARE * best
    sticky = [
        endpoint
        for endpoint, match in zip(endpoints, matches, strict=True)
        if match >= least and endpoint.requests + endpoint.others <= most
    ]
    return sticky or endpoints


HOMES = 2
"""How many servers a new prompt may go to. With one, prompts would lie as the hash throws them; the
better one of two is nearly as good as the best of all."""


def homes_of_new_prompts(endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
    """Where several pickers share the servers: the two at which each puts what is new to it.

    The two e with the smallest `hash(b, address(e))`; all where most of the prompt is held, and
    where we are the only picker: `sum of own >= 0.9 * sum of all` (see `endpoints.company`). b: the
    hash of the prompt's first block that nobody is known to hold. Pickers do not tell each other
    which server got which prompt, and so each would have it read at another server; by the same
    hash they come to the same ones. Missing: a prompt without blocks leaves all.
    """
    block = wanted.new_block
    if block is None or len(endpoints) <= HOMES:
        return endpoints
    own = every = 0.0
    for endpoint in endpoints:
        company = endpoint.company
        own += company.own
        every += company.all
    if own >= ALONE * every:
        return endpoints
    return nsmallest(HOMES, endpoints, key=lambda e: hash((block, _number(e.address))))


@lru_cache(maxsize=4_096)
def _number(address: str) -> int:
    """The same in every process, which `hash` of a text is not."""
    return crc32(address.encode())


def prefix_cache_affinity(
    endpoints: Sequence[Loaded],
    wanted: Wanted,
    *,
    threshold: float = 0.8,
    exploration: float = 0.0,
    max_penalty_ms: float = 18_000,
    prefill_tokens_per_s: float = 15_928,
) -> Sequence[Loaded]:
    """The reference's affinity filter: those that hold a share of the prompt, unless they are slow.

    `a(e) = m(e) / n`; `sticky = {e: a(e) >= threshold}`; `ttft(e) = tokens(e) / R * 1000` ms. All
    stay when nobody is sticky, when the best sticky one is slower than the best other by more than
    `max_penalty_ms` (0: never), or with the chance `exploration`. m: tokens of the prompt that the
    server probably holds; n: those looked for; tokens: what our requests in flight make it read;
    R: `prefill_tokens_per_s`. Missing: a = 0.
    """
    if len(endpoints) <= 1 or threshold <= 0 or not wanted.hashed_tokens:
        return endpoints
    if wanted.draw < exploration:
        return endpoints
    least = threshold * wanted.hashed_tokens
    cached = wanted.cached_tokens.get
    sticky = [endpoint for endpoint in endpoints if cached(endpoint.address, 0) >= least]
    if not sticky:
        return endpoints
    others = [endpoint for endpoint in endpoints if cached(endpoint.address, 0) < least]
    if max_penalty_ms > 0 and others:
        ahead = min(e.tokens for e in sticky) - min(e.tokens for e in others)
        if ahead / prefill_tokens_per_s * 1000 > max_penalty_ms:
            return endpoints
    return sticky


def below_limits(
    endpoints: Sequence[Loaded],
    _wanted: Wanted,
    *,
    limits: Mapping[str, float],
    falls_back: bool = False,
) -> Sequence[Loaded]:
    """The endpoints of which no named metric is above its limit; may leave none.

    Metrics: `active-requests` (our own in flight, and those of other pickers as far as is known),
    `running-requests`, `waiting-queue`, `kv-cache-utilization`. Missing: not above. With
    `falls_back` all stay where none would.
    """
    kept = [
        endpoint
        for endpoint in endpoints
        if all(METRICS[name](endpoint) <= limit for name, limit in limits.items())
    ]
    return endpoints if falls_back and not kept else kept


def below_utilization(
    endpoints: Sequence[Loaded],
    _wanted: Wanted,
    *,
    queue_threshold: float,
    kv_cache_threshold: float,
    headroom: float = 0.0,
) -> Sequence[Loaded]:
    """The endpoints whose fullness is at most `1 + headroom`; all where none is."""
    most = 1.0 + headroom
    kept = [e for e in endpoints if fullness(e, queue_threshold, kv_cache_threshold) <= most]
    return kept or endpoints


def below_concurrency(
    endpoints: Sequence[Loaded], _wanted: Wanted, *, max_requests: int, headroom: float = 0.0
) -> Sequence[Loaded]:
    """The endpoints with fewer than `int(max_requests * (1 + headroom))` in flight; may be none."""
    most = int(max_requests * (1.0 + headroom))
    return [endpoint for endpoint in endpoints if endpoint.requests + endpoint.others < most]


METRICS: dict[str, Callable[[Loaded], float]] = {
    "active-requests": lambda e: e.requests + e.others,
    "running-requests": lambda e: (e.measures.running or 0) if e.measures is not None else 0,
    "waiting-queue": lambda e: (e.measures.waiting or 0) if e.measures is not None else 0,
    "kv-cache-utilization": lambda e: (e.measures.kv_cache or 0) if e.measures is not None else 0,
}
"""What limits may be set on."""
