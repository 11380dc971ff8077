"""Runs an engine in the event loop's time, and tells each request when its tokens came out.

There is one timer, set to the end of the step under way; an idle engine has none. Timers of the
event loop are a millisecond coarse, so a step may be noticed up to that late, but the engine's own
times are exact and the next step is computed from them: lateness never adds up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from pointsman.modelserver.clock import ScaledClock
from pointsman.modelserver.engine import Engine, Sequence, State, StepResult

_STEPS_PER_WAKE = 64
"""Steps run before other tasks get their turn, when time is scaled or the loop was late."""

_TIMER_RESOLUTION_S = 0.001


class Session:
    """The sequences of one request, from submission to end. Leaving it aborts what still runs.

    `changed()` waits for news; the tokens themselves are read off the sequences.
    """

    __slots__ = ("_driver", "_follows_tokens", "_has_news", "_waiter", "open", "sequences")

    def __init__(self, driver: EngineDriver, sequences: list[Sequence], *, streams: bool) -> None:
        self._driver = driver
        self._follows_tokens = streams
        self._waiter: asyncio.Future[None] | None = None
        self._has_news = False
        self.sequences = sequences
        self.open = len(sequences)
        """Sequences that have not ended."""

    async def __aenter__(self) -> Session:
        self._driver.submit(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._driver.close(self)

    def notify(self, *, ended: bool) -> None:
        """Called by the driver when a sequence has put out a token or ended."""
        if ended:
            self.open -= 1
        if not self._follows_tokens and self.open:
            return
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self) -> None:
        """Waits for the next token or, for a session that does not stream, for the end.

        Returns at once if that has happened since the last call.
        """
        if not self._has_news:
            self._waiter = self._driver.loop.create_future()
            await self._waiter
            self._waiter = None
        self._has_news = False


class EngineDriver:
    """One engine on one event loop. Sessions are bounded by the engine's queue limit."""

    def __init__(
        self,
        engine: Engine,
        *,
        scale: float = 1.0,
        on_step: Callable[[StepResult], None] | None = None,
        on_end: Callable[[Sequence], None] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.engine = engine
        self.clock = ScaledClock(self.loop.time, scale)
        self._on_step = on_step
        self._on_end = on_end
        self._sessions: dict[Sequence, Session] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_due_s = 0.0
        """The engine time for which the timer is set."""

    @property
    def scale(self) -> float:
        """Engine seconds per real second."""
        return self.clock.scale

    @scale.setter
    def scale(self, scale: float) -> None:
        self.clock.scale = scale
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._schedule()

    def submit(self, session: Session) -> None:
        """Queues all sequences of a session, or none.

        Raises:
            QueueFullError: if they do not fit into the queue.
            TooLongError: if one could never run.
        """
        now = self.clock.now()
        self._run(now)
        accepted: list[Sequence] = []
        try:
            for sequence in session.sequences:
                self.engine.submit(sequence, now)
                accepted.append(sequence)
        except Exception:
            for sequence in accepted:
                self.engine.abort(sequence, now)
            session.open = 0
            raise
        for sequence in accepted:
            self._sessions[sequence] = session
        # Not begun here: what arrives in the same turn of the loop shares the first step.
        self._schedule()

    def close(self, session: Session) -> None:
        """Aborts what still runs of a session."""
        if session.open == 0:
            return
        now = self.clock.now()
        for sequence in session.sequences:
            self._sessions.pop(sequence, None)
            if self.engine.abort(sequence, now) and self._on_end is not None:
                self._on_end(sequence)
        session.open = 0

    def catch_up(self) -> None:
        """Ends the steps that are due, so that what is read off the engine is of this moment."""
        self._run(self.clock.now())
        self._schedule()

    def abort_all(self) -> None:
        """Ends every sequence with the finish reason `abort`; their sessions see it at once."""
        now = self.clock.now()
        for sequence, session in list(self._sessions.items()):
            if self.engine.abort(sequence, now):
                if self._on_end is not None:
                    self._on_end(sequence)
                session.notify(ended=True)
        self._sessions.clear()

    def stop(self) -> None:
        """Ends everything and sets no timer any more."""
        self.abort_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        self._run(self.clock.now())
        self._schedule()

    def _run(self, now_s: float) -> None:
        for result in self.engine.advance(now_s, _STEPS_PER_WAKE):
            if self._on_step is not None:
                self._on_step(result)
            sessions = self._sessions
            for sequence in result.emitted:
                session = sessions.get(sequence)
                if session is not None and sequence.state is not State.FINISHED:
                    session.notify(ended=False)
            for sequence in result.finished:
                ending = sessions.pop(sequence)
                if self._on_end is not None:
                    self._on_end(sequence)
                ending.notify(ended=True)

    def _schedule(self) -> None:
        due_s = self.engine.next_s
        if due_s is None:
            return
        if self._timer is not None:
            if self._timer_due_s <= due_s:
                return
            self._timer.cancel()
        self._timer_due_s = due_s
        delay_s = self.clock.real_delay_s(due_s)
        if delay_s <= 0.0:
            self._timer = self.loop.call_soon(self._wake)
            return
        # Rounded up: a timer that fires early would only spin until the step is over.
        self._timer = self.loop.call_later(max(delay_s, _TIMER_RESOLUTION_S), self._wake)
