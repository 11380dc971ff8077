"""What holds for the engine whatever is thrown at it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.modelserver.engine import (
    Capacity,
    Engine,
    QueueFullError,
    Sequence,
    State,
    StepResult,
    StepTiming,
    TooLongError,
    token_array,
)

TIMING = StepTiming(0.01, 0.001, 1e-6, 1000, adapter_load_s=0.005, frontend_s=0.004)


@dataclass(frozen=True)
class Arrival:
    gap_s: float
    prefix: int
    prompt: int
    answer: int
    adapter: str | None
    priority: int
    aborts_after_s: float | None


arrivals = st.lists(
    st.builds(
        Arrival,
        gap_s=st.floats(0, 0.1),
        prefix=st.integers(0, 2),
        prompt=st.integers(0, 60),
        answer=st.integers(0, 30),
        adapter=st.sampled_from([None, None, "x", "y", "z"]),
        priority=st.integers(0, 2),
        aborts_after_s=st.one_of(st.none(), st.floats(0, 0.5)),
    ),
    max_size=25,
)
capacities = st.builds(
    Capacity,
    kv_blocks=st.integers(3, 24),
    block_size=st.sampled_from([1, 4, 8]),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(1, 40),
    max_model_len=st.just(80),
    max_loras=st.integers(1, 2),
    max_queued_requests=st.integers(1, 20),
    prefix_caching=st.booleans(),
    reserves_whole_prompt=st.booleans(),
    by_priority=st.booleans(),
)


class Run:
    """Feeds arrivals to an engine and checks it after every step."""

    def __init__(self, capacity: Capacity) -> None:
        self.engine = Engine(TIMING, capacity, records_events=True)
        self.accepted: list[Sequence] = []
        self.emitted: dict[str, int] = {}
        self.last_end_s = 0.0

    def advance(self, now_s: float) -> None:
        while results := self.engine.advance(now_s, limit=1):
            self.check(results[0])

    def check(self, step: StepResult) -> None:
        capacity = self.engine.capacity
        scheduler = self.engine.scheduler
        assert step.start_s >= self.last_end_s - 1e-9
        assert step.end_s > step.start_s
        for sequence in step.batch.admitted:
            assert sequence.arrival_s <= sequence.queued_s <= step.start_s
        self.last_end_s = step.end_s
        assert 0 < step.batch.tokens <= capacity.max_num_batched_tokens
        assert len(step.batch.shares) <= capacity.max_num_seqs
        assert step.batch.prefill_tokens <= step.batch.tokens
        adapters = {sequence.adapter for sequence in step.batch.shares} - {None}
        assert len(adapters) <= capacity.max_loras
        assert 0 <= scheduler.pool.used <= scheduler.pool.capacity
        for sequence in step.emitted:
            self.emitted[sequence.id] = self.emitted.get(sequence.id, 0) + 1
        self.check_blocks()

    def check_blocks(self) -> None:
        scheduler = self.engine.scheduler
        held = {block for sequence in scheduler.running for block in sequence.blocks}
        assert len(held) == scheduler.pool.used
        size = self.engine.capacity.block_size
        for sequence in scheduler.running:
            assert len(sequence.blocks) * size >= sequence.computed
            assert sequence.computed <= sequence.tokens
        for sequence in scheduler.waiting:
            assert sequence.blocks == []
        waiting_tokens = sum(sequence.tokens for sequence in scheduler.waiting)
        assert scheduler.waiting.tokens == waiting_tokens


def play(capacity: Capacity, script: list[Arrival]) -> Run:
    run = Run(capacity)
    now_s = 0.0
    aborts: list[tuple[float, Sequence]] = []
    for number, arrival in enumerate(script):
        now_s += arrival.gap_s
        for at_s, sequence in [entry for entry in aborts if entry[0] <= now_s]:
            run.advance(at_s)
            run.engine.abort(sequence, at_s)
            run.check_blocks()
        aborts = [entry for entry in aborts if entry[0] > now_s]
        run.advance(now_s)
        tokens = [arrival.prefix * 100 + place for place in range(arrival.prompt)]
        sequence = Sequence(
            f"s{number}",
            token_array(tokens),
            token_array([9] * arrival.answer),
            adapter=arrival.adapter,
            priority=arrival.priority,
        )
        try:
            run.engine.submit(sequence, now_s)
        except (QueueFullError, TooLongError):
            continue
        run.accepted.append(sequence)
        if arrival.aborts_after_s is not None:
            aborts.append((now_s + arrival.aborts_after_s, sequence))
    run.advance(now_s + 1e6)
    return run


@settings(max_examples=150, deadline=None)
@given(capacity=capacities, script=arrivals)
def test_nothing_is_lost_and_capacity_is_never_exceeded(
    capacity: Capacity, script: list[Arrival]
) -> None:
    run = play(capacity, script)
    engine = run.engine
    assert engine.is_idle
    assert engine.next_s is None
    assert engine.scheduler.pool.used == 0
    for sequence in run.accepted:
        assert sequence.state in (State.FINISHED, State.ABORTED)
        assert run.emitted.get(sequence.id, 0) == sequence.generated
        if sequence.state is State.FINISHED:
            assert sequence.generated == len(sequence.answer)
    counters = engine.scheduler.counters
    assert counters.generated_tokens == sum(sequence.generated for sequence in run.accepted)
    admitted = [entry for entry in run.accepted if entry.first_scheduled_s is not None]
    assert counters.prompt_tokens == sum(len(entry.prompt) for entry in admitted)
    cached = sum(entry.cached_tokens for entry in admitted)
    assert counters.computed_prompt_tokens + cached == counters.prompt_tokens


@settings(max_examples=60, deadline=None)
@given(capacity=capacities, script=arrivals)
def test_the_same_script_gives_the_same_times(capacity: Capacity, script: list[Arrival]) -> None:
    first, second = play(capacity, script), play(capacity, script)
    times = [[entry.finished_s for entry in run.accepted] for run in (first, second)]
    assert times[0] == times[1]


@settings(max_examples=60, deadline=None)
@given(capacity=capacities, script=arrivals)
def test_events_tell_exactly_what_is_cached(capacity: Capacity, script: list[Arrival]) -> None:
    run = play(capacity, script)
    cached: set[bytes] = set()
    for event in run.engine.scheduler.pool.events:
        hashes = getattr(event, "hashes", [])
        if type(event).__name__ == "Stored":
            assert not cached & set(hashes)
            cached |= set(hashes)
        else:
            assert set(hashes) <= cached
            cached -= set(hashes)
    assert len(cached) == run.engine.scheduler.pool.cached
