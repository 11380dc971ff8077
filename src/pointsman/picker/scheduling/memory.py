"""Scorers and filters that remember what was picked before. All memories are bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import Scores

MAX_SESSIONS = 100_000


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


class SessionAffinity:
    """Keeps a session on its server: 1 for that one, else 0; as a filter it leaves only that one.

    The session is the value of a request header. A session unknown, idle for longer than `ttl_s`,
    or whose server is no candidate, constrains nothing.
    """

    def __init__(
        self, clock: Callable[[], float], header: str = "x-session-id", ttl_s: float = 300.0
    ) -> None:
        self._clock = clock
        self._header = header
        self._ttl_s = ttl_s
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def score(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Scores:
        """The scores."""
        address = self._address(wanted)
        return [1.0 if endpoint.address == address else 0.0 for endpoint in endpoints]

    def keep(self, endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
        """The server of the session; all where it has none yet, or where that is gone."""
        address = self._address(wanted)
        return [endpoint for endpoint in endpoints if endpoint.address == address] or endpoints

    def picked(self, address: str, wanted: Wanted) -> None:
        """The session is there from now on."""
        session = wanted.headers.get(self._header)
        if not session:
            return
        self._sessions[session] = (address, self._clock())
        self._sessions.move_to_end(session)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _address(self, wanted: Wanted) -> str | None:
        session = wanted.headers.get(self._header)
        known = self._sessions.get(session) if session else None
        if known is None or self._clock() - known[1] > self._ttl_s:
            return None
        return known[0]
