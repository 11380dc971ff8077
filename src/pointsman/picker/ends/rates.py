"""How fast a server reads prompts, learnt from the time to the first byte.

`rate = 90th percentile of the last 64 samples of n / t`, from the 8th sample on. n: tokens of the
prompt that the server did not hold, t: seconds from the pick to the first byte. A sample also holds
the time in the server's queue, so most samples are too slow; the fast ones were not held up. Short
prompts say nothing about reading and are left out.
"""

from __future__ import annotations

from collections import deque

DEFAULT_TOKENS_PER_S = 15_928.0
"""Until enough is learnt: what the reference picker assumes (a 32B model on two H100)."""
MIN_TOKENS = 256
MIN_SAMPLES = 8
MAX_SAMPLES = 64
QUANTILE = 0.9
SLOWEST, FASTEST = 100.0, 10_000_000.0
"""What lies outside is not believed, such as an answer from a cache in front of the server."""


class PrefillRate:
    """Of one server."""

    __slots__ = ("_samples", "tokens_per_s")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=MAX_SAMPLES)
        self.tokens_per_s = DEFAULT_TOKENS_PER_S

    @property
    def is_learnt(self) -> bool:
        """Whether enough has been seen."""
        return len(self._samples) >= MIN_SAMPLES

    def learn(self, uncached_tokens: int, ttft_s: float) -> None:
        """Take in one request."""
        if uncached_tokens < MIN_TOKENS or ttft_s <= 0:
            return
        rate = uncached_tokens / ttft_s
        if not SLOWEST <= rate <= FASTEST:
            return
        self._samples.append(rate)
        if self.is_learnt:
            ordered = sorted(self._samples)
            self.tokens_per_s = ordered[int((len(ordered) - 1) * QUANTILE)]
