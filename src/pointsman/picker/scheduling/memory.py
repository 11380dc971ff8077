"""A scorer that remembers what was picked before. Its memory is bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import Scores


class NoHitLru:
    """Spreads prompts that nobody holds: to the server that got such a prompt the longest ago.

    Somebody holds a part of the prompt: 0.5 for all. Nobody does: the n servers in order, those
    never used first, then the least recently used; the i-th gets `1 - i / (n - 1)`; a single one 1.
    Remembers `capacity` servers.
    """

    def __init__(self, capacity: int = 1_024) -> None:
        self._used: OrderedDict[str, None] = OrderedDict()
        self._capacity = capacity

    def score(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Scores:
        """The scores."""
        if wanted.cached_tokens:
            return [0.5] * len(endpoints)
        if len(endpoints) == 1:
            return [1.0]
        ages = {address: age for age, address in enumerate(self._used, start=1)}
        order = sorted(range(len(endpoints)), key=lambda i: ages.get(endpoints[i].address, 0))
        scores = [0.0] * len(endpoints)
        for rank, place in enumerate(order):
            scores[place] = 1.0 - rank / (len(endpoints) - 1)
        return scores

    def picked(self, address: str, wanted: Wanted) -> None:
        """A prompt that nobody held makes its server the most recently used."""
        if wanted.cached_tokens:
            return
        self._used[address] = None
        self._used.move_to_end(address)
        while len(self._used) > self._capacity:
            self._used.popitem(last=False)
