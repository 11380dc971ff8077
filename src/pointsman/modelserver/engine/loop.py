"""The step loop: one step after the other, each as long as the timing model says.

    submit(sequence, now)   a sequence joins the queue
    next_s                  when something will happen next (None: never, until someone submits)
    advance(now)            runs every step that ends by now, and returns what came out
    abort(sequence)         frees everything it holds, at once

Between submission and queue a sequence passes the front of the server (HTTP, tokenizing, the way to
the engine's process), which takes `frontend_s` and no step's time.

A step is composed when it begins, with what waits at that moment, and its tokens come out when it
ends. When work remains, the next step begins at the very moment the last one ended, however late
`advance` is called, so that a late timer never slows the engine down.
"""

from __future__ import annotations

import random
from bisect import bisect_right, insort
from dataclasses import dataclass

from pointsman.modelserver.engine.profiles import Capacity, StepTiming
from pointsman.modelserver.engine.scheduler import Batch, Scheduler
from pointsman.modelserver.engine.sequences import Sequence, State


class QueueFullError(Exception):
    """The queue limit is reached; `reason` is vLLM's name of the limit."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the engine accepts no more requests ({reason})")
        self.reason = reason


class TooLongError(Exception):
    """Prompt and answer exceed what the engine can ever hold."""


@dataclass(slots=True)
class StepResult:
    """One step that has ended."""

    number: int
    start_s: float
    end_s: float
    batch: Batch
    emitted: list[Sequence]
    """Sequences that put out one token each at `end_s`, in the order of the batch."""
    first: list[Sequence]
    """Those among them that put out their first token."""
    gaps: dict[float, int]
    """For the others: seconds since their last token, and how many had that gap."""
    finished: list[Sequence]
    """Sequences that ended with this step, whether or not they put out a token."""
    running: int
    """Sequences running after the step."""
    waiting: int
    kv_usage: float


@dataclass(slots=True)
class _Step:
    number: int
    start_s: float
    end_s: float
    batch: Batch


class Engine:
    """One engine. Times are seconds on whatever clock the caller uses, and never go back."""

    def __init__(
        self,
        timing: StepTiming,
        capacity: Capacity,
        *,
        seed: int = 0,
        records_events: bool = False,
    ) -> None:
        self.timing = timing
        """May be replaced at any time; the step under way keeps its duration."""
        self.scheduler = Scheduler(capacity, records_events=records_events)
        self._random = random.Random(seed)
        self._step: _Step | None = None
        self._steps = 0
        self._orders = 0
        self._free_since_s = 0.0
        self._arriving: list[Sequence] = []
        """Sequences in the front of the server, by the time at which they reach the queue. The
        queue limit bounds them too."""

    @property
    def capacity(self) -> Capacity:
        """What fits in, as the engine was made."""
        return self.scheduler.capacity

    @property
    def next_s(self) -> float | None:
        """When `advance` will have something to do, or None if it will not.

        That is the end of the step under way or, if no step runs and sequences wait, at once, or
        when the next one reaches the queue.
        """
        if self._step is not None:
            return self._step.end_s
        if self.scheduler.waiting or self.scheduler.running:
            return self._free_since_s
        if self._arriving:
            return max(self._free_since_s, self._arriving[0].queued_s)
        return None

    @property
    def is_idle(self) -> bool:
        """True when nothing runs, waits or is on its way to the queue."""
        return not (self.scheduler.running or self.scheduler.waiting or self._arriving)

    @property
    def queued(self) -> int:
        """Sequences that the queue limit counts: on their way, waiting and running."""
        return len(self.scheduler.running) + len(self.scheduler.waiting) + len(self._arriving)

    def submit(self, sequence: Sequence, now_s: float) -> None:
        """Queues a sequence. Call `advance(now_s)` first if steps may have ended by now.

        If the engine is behind all the same (time runs very fast), the sequence arrives when the
        step under way ends: otherwise it could be admitted before it arrived.

        Raises:
            QueueFullError: if a queue limit is reached.
            TooLongError: if it would not fit even alone.
        """
        scheduler, capacity = self.scheduler, self.capacity
        self.check_length(len(sequence.prompt), len(sequence.answer))
        if self.queued >= capacity.max_queued_requests:
            raise QueueFullError("max_num_queued_reqs")
        limit = capacity.max_queued_tokens
        if limit is not None and self._waiting_tokens() + len(sequence.prompt) > limit:
            raise QueueFullError("max_num_queued_tokens")
        self._orders += 1
        sequence.order = self._orders
        sequence.arrival_s = now_s if self._step is None else min(now_s, self._step.end_s)
        sequence.queued_s = sequence.arrival_s + self.timing.frontend_s
        sequence.state = State.WAITING
        if self.timing.frontend_s > 0:
            insort(self._arriving, sequence, key=_queued_s)
            return
        if self._step is None:
            self._free_since_s = max(self._free_since_s, now_s)
        scheduler.waiting.add(sequence)

    def _waiting_tokens(self) -> int:
        return self.scheduler.waiting.tokens + sum(len(entry.prompt) for entry in self._arriving)

    def check_length(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Refuses what can never run.

        The last token of an answer is never computed, so it needs no room in the KV cache.

        Raises:
            TooLongError: if prompt and answer exceed `max_model_len` or the KV cache.
        """
        tokens = prompt_tokens + answer_tokens
        if prompt_tokens < 1:
            raise TooLongError("a prompt has at least one token")
        if tokens > self.capacity.max_model_len:
            raise TooLongError(f"{tokens} tokens exceed {self.capacity.max_model_len}")
        if prompt_tokens + max(0, answer_tokens - 1) > self.capacity.kv_tokens:
            raise TooLongError(f"{tokens} tokens exceed a KV cache of {self.capacity.kv_tokens}")

    def abort(self, sequence: Sequence, now_s: float) -> bool:
        """Ends a sequence and frees its place and blocks at once. False if it had ended before."""
        if sequence.state not in (State.WAITING, State.RUNNING):
            return False
        if sequence in self._arriving:
            self._arriving.remove(sequence)
        else:
            self.scheduler.remove(sequence)
        sequence.state = State.ABORTED
        sequence.finish_reason = "abort"
        sequence.finished_s = now_s
        return True

    def advance(self, now_s: float, limit: int | None = None) -> list[StepResult]:
        """Ends every step that is due, begins the next ones, and returns those that ended.

        At most `limit` steps end (None: no limit); the rest stays due.
        """
        results: list[StepResult] = []
        while True:
            if self._step is None:
                start_s = self.next_s
                if start_s is None or start_s > now_s:
                    break
                self._begin(start_s)
                continue
            if self._step.end_s > now_s or (limit is not None and len(results) >= limit):
                break
            results.append(self._end(self._step))
        return results

    def _begin(self, start_s: float) -> None:
        arrived = bisect_right(self._arriving, start_s, key=_queued_s)
        for sequence in self._arriving[:arrived]:
            self.scheduler.waiting.add(sequence)
        del self._arriving[:arrived]
        batch = self.scheduler.compose(start_s)
        timing = self.timing
        duration_s = timing.duration_s(
            len(batch.shares), batch.context_tokens, batch.prefill_tokens
        )
        if timing.jitter:
            duration_s *= max(0.1, self._random.gauss(1.0, timing.jitter))
        duration_s += batch.adapter_loads * timing.adapter_load_s
        duration_s += batch.adapter_fetches * timing.adapter_fetch_s
        self._steps += 1
        self._step = _Step(self._steps, start_s, start_s + duration_s, batch)

    def _end(self, step: _Step) -> StepResult:
        scheduler = self.scheduler
        emitted: list[Sequence] = []
        first: list[Sequence] = []
        gaps: dict[float, int] = {}
        finished: list[Sequence] = []
        for sequence in step.batch.shares:
            # An aborted sequence, or one preempted and aborted since, has nothing to say.
            if sequence.state is not State.RUNNING or sequence.pending > 0:
                continue
            if sequence.answer:
                if sequence.last_token_s is None:
                    first.append(sequence)
                    sequence.first_token_s = step.end_s
                else:
                    gap_s = step.end_s - sequence.last_token_s
                    gaps[gap_s] = gaps.get(gap_s, 0) + 1
                sequence.last_token_s = step.end_s
                sequence.generated += 1
                emitted.append(sequence)
            if sequence.is_done:
                sequence.state = State.FINISHED
                sequence.finished_s = step.end_s
                finished.append(sequence)
        scheduler.counters.generated_tokens += len(emitted)
        if finished:
            scheduler.retire(set(finished))
        self._step = None
        self._free_since_s = step.end_s
        return StepResult(
            number=step.number,
            start_s=step.start_s,
            end_s=step.end_s,
            batch=step.batch,
            emitted=emitted,
            first=first,
            gaps=gaps,
            finished=finished,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_usage=scheduler.pool.usage,
        )


def _queued_s(sequence: Sequence) -> float:
    return sequence.queued_s
