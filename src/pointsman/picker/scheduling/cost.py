"""The marginal cost of a request on each server: one closed formula in seconds, no weights to tune.

For server i, with `u` the tokens of the prompt that it does not hold, `len` all of the prompt's and
`L` the expected length of the answer:

    itl   = c_0 + c_b * (n + 1) + c_ctx * (C + len)            time of one step, s
    wait  = max(0, K + u + L/2 - 0.9 * cap) / drain             until the KV cache has room, s
    ttft  = (P + u) / R + wait
    cost  = ttft + L * (itl - c_0)                              what this request suffers
          + e * n * (u / R + (c_b + c_ctx * len) * L / 2)       what it makes the residents suffer
          + 3 * h * full^4 * (1 + e * n) * u / R                what it evicts and others read again

    score = smallest cost / cost, and 0 where ttft > smallest ttft + slack

| symbol | unit | source | when it is missing |
| --- | --- | --- | --- |
| n | requests | our own book | never |
| C | tokens | our own book: prompts and expected answers in flight | never |
| P | tokens | our own book, drained at R | never |
| R | tokens/s | learnt from times to the first byte (`ends.rates`) | 15,928 |
| K | tokens | the server's KV cache share times cap, and as much for each that waits | C |
| cap | tokens | the server's metrics | no wait, full is 0 |
| full | 0 to 1 | how full our picture of its prefix cache is | 0 |
| h | 0 to 1 | `hit_rate`: how often what is evicted would have been used | parameter |
| drain | tokens/s | `1 / itl` for each of n requests: what decoding ends, as it goes | never |

c_0, c_b and c_ctx are parameters; the defaults are those of a 32B model on two H100. Errors of half
an order in them change the ranking little, since every server is measured with the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.ends.rates import DEFAULT_TOKENS_PER_S
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import Scores

EXPECTED_ANSWER_TOKENS = 256
"""Of a request that states no limit."""
LONGEST_ANSWER_TOKENS = 1_024
"""Limits are set generously: what a request may write is not what it will."""
USABLE_CACHE = 0.9


@dataclass(frozen=True, slots=True)
class CostModel:
    """The parameters, and the scorer."""

    step_s: float = 0.012
    """c_0."""
    per_request_s: float = 20e-6
    """c_b."""
    per_token_s: float = 42e-9
    """c_ctx."""
    externality: float = 1.0
    """e: how much the residents' loss counts against one's own."""
    hit_rate: float = 0.5
    """h."""
    slack_s: float = 3.0
    """How much later than the earliest the first byte may come."""

    def score(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Scores:
        """The scores."""
        if not endpoints:
            return []
        priced = [self.price(endpoint, wanted) for endpoint in endpoints]
        latest = min(ttft for ttft, _ in priced) + self.slack_s
        cheapest = min(cost for ttft, cost in priced if ttft <= latest)
        return [
            0.0 if ttft > latest else cheapest / cost if cost > 0 else 1.0 for ttft, cost in priced
        ]

    def price(self, endpoint: Loaded, wanted: Wanted) -> tuple[float, float]:
        """Time to the first byte and cost, both in seconds."""
        requests, context = endpoint.requests, endpoint.context_tokens
        rate = endpoint.prefill_tokens_per_s or DEFAULT_TOKENS_PER_S
        answer = expected_answer(wanted.max_tokens)
        uncached = wanted.uncached_tokens(endpoint.address)
        step_s = (
            self.step_s
            + self.per_request_s * (requests + 1)
            + self.per_token_s * (context + wanted.prompt_tokens)
        )
        reading_s = uncached / rate
        ttft = (endpoint.tokens + uncached) / rate
        ttft += _wait_s(endpoint, uncached + answer / 2, step_s)
        own = ttft + answer * (step_s - self.step_s)
        growth = (self.per_request_s + self.per_token_s * wanted.prompt_tokens) * answer / 2
        others = self.externality * requests * (reading_s + growth)
        evicted = 3 * self.hit_rate * endpoint.cache_fullness**4
        return ttft, own + others + evicted * (1 + self.externality * requests) * reading_s


def expected_answer(max_tokens: int | None) -> int:
    """How long an answer will probably be, in tokens."""
    if max_tokens is None:
        return EXPECTED_ANSWER_TOKENS
    return min(max_tokens, LONGEST_ANSWER_TOKENS)


def _wait_s(endpoint: Loaded, needed: float, step_s: float) -> float:
    measures = endpoint.measures
    if measures is None or measures.kv_cache_tokens is None:
        return 0.0
    capacity = measures.kv_cache_tokens
    if measures.kv_cache is None:
        held = float(endpoint.context_tokens)
    else:
        # Shared beginnings are held once, which only the server itself knows.
        held = measures.kv_cache * capacity + (measures.waiting or 0) * needed
    missing = held + needed - USABLE_CACHE * capacity
    if missing <= 0:
        return 0.0
    # Each resident frees about as much as it writes: its answer ends after so many steps.
    drain = max(endpoint.requests, 1) / step_s
    return missing / drain
