"""How a picker leaves a cluster while gateways still send requests to it.

The signal to end comes in the moment in which the pod leaves the endpoints of its Service, and it
takes seconds until every gateway has heard of that. So:

    signal ─▶ health says NOT_SERVING, everything is answered as before     at least `SETTLE_S`
           ─▶ gateways are told to open their next streams elsewhere (GOAWAY)
           ─▶ until no stream is in the midst of a question or an answer    and `QUIET_S` without
              and no new one comes                                         a new stream
           ─▶ what is still open ends with status 0, and the process ends

All of it within the drain timeout, and within a second where nobody is connected. A gateway of ours
holds a stream open and silent while its request goes on; such a stream is waited for only until it
has its pick, since its end cuts nothing. A gateway that lets the bytes of answers pass through the
picker gets the time to end them. A second signal ends the waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

SETTLE_S = 5.0
"""In which a cluster tells its gateways that a pod goes."""
TAKE_OVER_S = 10.0
"""The same where another replica must first become the one that is ready: its lease, its probe."""
QUIET_S = 1.0
POLL_S = 0.02


class Streams(Protocol):
    """The streams of requests: an `ExtProc` has them."""

    @property
    def busy_streams(self) -> int:
        """Streams whose end now would cut something."""

    @property
    def started_streams(self) -> int:
        """How many have been opened since the start."""


class Server(Protocol):
    """What gateways are connected to: a `GrpcServer`."""

    @property
    def connections(self) -> int:
        """How many are."""

    def announce_end(self) -> None:
        """Ask them to open their next streams elsewhere."""


class Drain:
    """One end of one picker."""

    def __init__(
        self,
        streams: Streams,
        server: Server,
        timeout_s: float,
        *,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._streams = streams
        self._server = server
        self._settle_s = min(settle_s, timeout_s / 2)
        self._clock = clock
        self._began = clock()
        self._deadline = self._began + timeout_s
        self._hurries = False

    def hurry(self) -> None:
        """Wait no longer."""
        self._hurries = True

    async def settle(self) -> None:
        """Returns when gateways have had the time to hear that we go."""
        until = self._clock() + self._settle_s
        await self._wait(lambda: self._clock() >= until)

    async def finish(self) -> None:
        """Returns when nothing is left that an end would cut, or at the deadline."""
        self._server.announce_end()
        last, since = self._streams.started_streams, self._clock()

        def is_over() -> bool:
            nonlocal last, since
            if self._streams.started_streams != last:
                last, since = self._streams.started_streams, self._clock()
            return not self._streams.busy_streams and self._clock() - since >= QUIET_S

        await self._wait(is_over)

    async def _wait(self, is_over: Callable[[], bool]) -> None:
        while not self._hurries and self._clock() < self._deadline:
            is_left = not self._server.connections and self._clock() - self._began >= QUIET_S
            if is_left or is_over():
                return
            await asyncio.sleep(POLL_S)
