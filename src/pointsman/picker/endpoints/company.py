"""How much of a server's load is not ours, where several pickers share the servers.

A picker knows at once what it has placed itself. What others have placed (other replicas of the
picker, clients that come by another way) it learns from the servers' metrics, up to a second late:

    s = max(o, running + waiting)       all that was there at the last reading; o: of it, ours
    f = mean of o / mean of s           our share, over the readings of about `MEMORY_S`
    all(now) = s + (r - o) / f          r: our own requests in flight now

The last term takes our own picks since the reading for a sample of what all do. Without it every
picker would fill the gap that all of them see, until the next reading shows it overfilled: with
eight of them the fullest server then has twice the mean. With an `f` of `ALONE` and more nothing is
added, and `all` is `r`. Missing metrics, or a server that does not report running requests: as if
alone there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from pointsman.picker.endpoints.measures import Measures

MEMORY_S = 10.0
"""Readings so old count little more than a third."""
ALONE = 0.9
"""A share from which on we count as the only picker. Metrics and book are never of one instant."""
SMALLEST_SHARE = 1 / 8


class Company(NamedTuple):
    """What one server carried at its readings, on the average of the last seconds."""

    own: float = 0.0
    """Our own requests."""
    all: float = 0.0
    """All requests."""
    at: float = -math.inf
    """Of the last reading."""

    @property
    def share(self) -> float:
        """Our part of it; 1 where nothing was there."""
        if self.own >= ALONE * self.all:
            return 1.0
        return max(SMALLEST_SHARE, self.own / self.all)

    def after(self, measures: Measures) -> Company:
        """With one more reading."""
        if measures.running is None:
            return self
        own = measures.own_requests
        every = max(own, measures.running + (measures.waiting or 0))
        old = math.exp((self.at - measures.at) / MEMORY_S)
        new = 1.0 - old
        return Company(old * self.own + new * own, old * self.all + new * every, measures.at)

    def others(self, requests: int, measures: Measures | None) -> float:
        """Requests of others there now, with so many of our own; 0 where we are alone."""
        share = self.share
        if share == 1.0 or measures is None or measures.running is None:
            return 0.0
        own = measures.own_requests
        every = max(own, measures.running + (measures.waiting or 0))
        return max(0.0, every + (requests - own) / share - requests)


NOBODY = Company()
