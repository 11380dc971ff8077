"""The engine against step sequences that were computed by hand."""

from __future__ import annotations

import pytest

from pointsman.modelserver.engine import (
    Capacity,
    Engine,
    QueueFullError,
    Sequence,
    State,
    StepTiming,
    TooLongError,
    token_array,
)

# 10 ms a step, 1 ms a sequence, 0.01 ms a context token, 1,000 prompt tokens a second.
TIMING = StepTiming(
    base_s=0.010, per_sequence_s=0.001, per_context_token_s=1e-5, prefill_tokens_per_s=1000
)


def make_engine(timing: StepTiming = TIMING, **capacity: object) -> Engine:
    settings: dict[str, object] = {
        "kv_blocks": 65,
        "block_size": 4,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 16,
        "max_model_len": 256,
        "max_loras": 1,
    }
    return Engine(timing, Capacity(**{**settings, **capacity}))  # type: ignore[arg-type]


def make_sequence(
    name: str, prompt: int, answer: int, *, start: int = 0, adapter: str | None = None, **more: int
) -> Sequence:
    """A prompt of `prompt` different tokens from `start * 1000` on."""
    first = start * 1000
    return Sequence(
        name,
        token_array(list(range(first, first + prompt))),
        token_array([7] * answer),
        adapter=adapter,
        **more,  # type: ignore[arg-type]
    )


def test_a_lone_request_takes_a_prefill_step_and_one_step_per_further_token() -> None:
    engine = make_engine()
    sequence = make_sequence("a", prompt=10, answer=3)
    engine.submit(sequence, 1.0)
    steps = engine.advance(100.0)
    # Prefill: 10 + 1 + 0 + 10 ms. Then 10 + 1 + 0.01 ms for each token of context, 10 and 11.
    ends = [1.021, 1.0321, 1.04321]
    assert [step.end_s for step in steps] == pytest.approx(ends)
    assert [step.batch.prefill_tokens for step in steps] == [10, 0, 0]
    assert sequence.first_token_s == pytest.approx(1.021)
    assert sequence.state is State.FINISHED
    assert engine.next_s is None


def test_a_long_prompt_is_prefilled_in_chunks_of_the_token_budget() -> None:
    engine = make_engine()
    engine.submit(make_sequence("a", prompt=40, answer=1), 0.0)
    steps = engine.advance(100.0)
    assert [step.batch.prefill_tokens for step in steps] == [16, 16, 8]
    # Each chunk attends to what the chunks before it computed.
    assert [step.batch.context_tokens for step in steps] == [0, 16, 32]
    assert steps[-1].end_s == pytest.approx(
        (10 + 1 + 16 + 10 + 1 + 16 + 0.16 + 10 + 1 + 8 + 0.32) / 1e3
    )


def test_decodes_come_first_and_a_prefill_gets_the_rest_of_the_budget() -> None:
    engine = make_engine()
    engine.submit(make_sequence("a", prompt=4, answer=10), 0.0)
    engine.advance(0.001)
    engine.submit(make_sequence("b", prompt=20, answer=1, start=1), 0.002)
    steps = engine.advance(0.1)
    shares = [
        {sequence.id: tokens for sequence, tokens in step.batch.shares.items()} for step in steps
    ]
    assert shares[:3] == [{"a": 4}, {"a": 1, "b": 15}, {"a": 1, "b": 5}]


def test_what_arrives_during_a_step_waits_for_the_next() -> None:
    engine = make_engine()
    engine.submit(make_sequence("a", prompt=4, answer=1), 0.0)
    engine.advance(0.005)
    late = make_sequence("b", prompt=4, answer=1, start=1)
    engine.submit(late, 0.006)
    assert engine.next_s == pytest.approx(0.015)
    engine.advance(1.0)
    assert late.first_scheduled_s == pytest.approx(0.015)


def test_the_front_of_the_server_delays_a_request_and_no_step() -> None:
    timing = StepTiming(0.010, 0.0, 0.0, 1000, frontend_s=0.004)
    engine = make_engine(timing)
    first = make_sequence("a", prompt=10, answer=2)
    second = make_sequence("b", prompt=10, answer=1, start=1)
    engine.submit(first, 1.0)
    assert engine.next_s == pytest.approx(1.004)
    assert engine.advance(1.003) == []
    engine.advance(1.020)
    engine.submit(second, 1.021)  # reaches the queue at 1.025, during the first step
    assert engine.queued == 2
    steps = engine.advance(2.0)
    assert [step.end_s for step in steps] == pytest.approx([1.024, 1.034, 1.054])
    assert second.first_scheduled_s == pytest.approx(1.034)


def test_a_request_can_be_aborted_before_it_reaches_the_queue() -> None:
    engine = make_engine(StepTiming(0.010, 0.0, 0.0, 1000, frontend_s=0.004))
    sequence = make_sequence("a", prompt=10, answer=2)
    engine.submit(sequence, 1.0)
    assert engine.abort(sequence, 1.001)
    assert engine.is_idle
    assert engine.next_s is None


def test_a_late_caller_does_not_slow_the_engine_down() -> None:
    ends = []
    for ticks in (1, 1000):
        engine = make_engine()
        sequence = make_sequence("a", prompt=4, answer=20)
        engine.submit(sequence, 0.0)
        for tick in range(1, ticks + 1):
            engine.advance(tick / ticks)
        ends.append(sequence.finished_s)
    assert ends[0] == ends[1] is not None


def test_a_shared_prefix_is_not_computed_again_except_for_the_last_token() -> None:
    engine = make_engine()
    engine.submit(make_sequence("a", prompt=16, answer=1), 0.0)
    engine.advance(1.0)
    again = make_sequence("b", prompt=16, answer=1)
    engine.submit(again, 1.0)
    [step] = engine.advance(2.0)
    # 16 tokens are 4 blocks; the last is computed again, since its output is needed.
    assert again.cached_tokens == 12
    assert step.batch.prefill_tokens == 4
    assert engine.scheduler.counters.prefix_queries == 32
    assert engine.scheduler.counters.prefix_hits == 12


def test_answers_are_cached_too_so_that_the_next_turn_finds_them() -> None:
    engine = make_engine()
    first = make_sequence("a", prompt=8, answer=9)
    engine.submit(first, 0.0)
    engine.advance(1.0)
    second = Sequence("b", first.prompt + first.answer + token_array([1, 2]), token_array([3]))
    engine.submit(second, 1.0)
    engine.advance(2.0)
    # 8 + 8 computed tokens are 4 full blocks; the ninth token of the answer was never computed.
    assert second.cached_tokens == 16


def test_adapters_and_salts_share_no_blocks() -> None:
    engine = make_engine()
    for name, adapter, salt in (("a", None, ""), ("b", "x", ""), ("c", None, "s")):
        sequence = make_sequence(name, prompt=16, answer=1, adapter=adapter)
        sequence.salt = salt
        engine.submit(sequence, 0.0)
        engine.advance(10.0)
        assert sequence.cached_tokens == 0


def test_least_recently_used_prefixes_are_evicted_first_and_tails_before_heads() -> None:
    engine = make_engine(kv_blocks=9, max_model_len=32)
    for start in (1, 2):  # 3 blocks each of the 8
        engine.submit(make_sequence(f"s{start}", prompt=12, answer=1, start=start), float(start))
        engine.advance(float(start) + 0.9)
    engine.submit(make_sequence("s3", prompt=16, answer=1, start=3), 3.0)  # 2 free and 2 evicted
    engine.advance(3.9)
    kept = []
    for start in (2, 1):
        sequence = make_sequence(f"again{start}", prompt=12, answer=1, start=start)
        names = engine.scheduler.hashes.of(sequence, 3)
        kept.append(len(engine.scheduler.pool.match(names)))
    assert kept == [3, 1]


def test_a_request_waits_until_its_whole_prompt_fits() -> None:
    engine = make_engine(kv_blocks=9, max_model_len=32)
    engine.submit(make_sequence("a", prompt=20, answer=3), 0.0)  # 5 of 8 blocks, then 6
    blocked = make_sequence("b", prompt=16, answer=1, start=1)  # 4 blocks
    engine.submit(blocked, 0.0)
    first, *_ = engine.advance(0.03)
    assert (first.running, first.waiting) == (1, 1)
    engine.advance(10.0)
    assert blocked.state is State.FINISHED
    assert blocked.preemptions == 0


def test_when_blocks_run_out_the_last_admitted_is_preempted_and_computed_again() -> None:
    engine = make_engine(kv_blocks=7, max_model_len=24)  # room for 24 tokens
    old = make_sequence("old", prompt=8, answer=8)
    young = make_sequence("young", prompt=8, answer=8, start=1)
    engine.submit(old, 0.0)
    engine.submit(young, 0.0)
    steps = engine.advance(10.0)
    # Both grow from 2 to 3 blocks (6 in all) and need a fourth for the 13th token.
    preempting = [step for step in steps if step.batch.preempted]
    assert [step.batch.preempted for step in preempting] == [[young]]
    assert (old.preemptions, young.preemptions) == (0, 1)
    assert young.generated == old.generated == 8
    assert engine.scheduler.counters.preemptions == 1
    assert engine.scheduler.pool.used == 0


def test_by_priority_the_least_important_is_preempted_and_the_most_important_admitted() -> None:
    engine = make_engine(kv_blocks=7, max_model_len=24, by_priority=True, max_num_seqs=2)
    unimportant = make_sequence("low", prompt=8, answer=8, priority=5)
    important = make_sequence("high", prompt=8, answer=8, start=1, priority=0)
    engine.submit(unimportant, 0.0)
    engine.submit(important, 0.0)
    engine.advance(10.0)
    assert (unimportant.preemptions, important.preemptions) == (1, 0)


def test_only_as_many_adapters_run_together_as_there_are_slots() -> None:
    engine = make_engine(max_loras=1)
    a = make_sequence("a", prompt=4, answer=4, adapter="x")
    b = make_sequence("b", prompt=4, answer=1, start=1, adapter="y")
    base = make_sequence("c", prompt=4, answer=1, start=2)
    for sequence in (a, b, base):
        engine.submit(sequence, 0.0)
    engine.advance(0.01)
    assert b.is_deferred
    assert not base.is_deferred
    assert base.state is State.RUNNING  # passes the one that waits for a slot
    engine.advance(10.0)
    assert b.first_scheduled_s == pytest.approx(a.finished_s)


def test_a_step_waits_for_an_adapter_that_is_not_loaded() -> None:
    timing = StepTiming(0.010, 0.0, 0.0, 1000, adapter_load_s=0.1, adapter_fetch_s=1.0)
    engine = make_engine(timing, max_loras=1, max_cpu_loras=2)
    durations = []
    for number, adapter in enumerate(("x", "x", "y", "x")):
        engine.submit(make_sequence("s", prompt=10, answer=1, start=number, adapter=adapter), 0.0)
        [step] = engine.advance(100.0)
        durations.append(step.end_s - step.start_s)
    # Read from disk and loaded; there; read and loaded; still in host memory, loaded.
    assert durations == pytest.approx([1.12, 0.02, 1.12, 0.12])


def test_an_abort_frees_blocks_and_place_at_once() -> None:
    engine = make_engine(max_num_seqs=1)
    running = make_sequence("a", prompt=10, answer=100)
    waiting = make_sequence("b", prompt=10, answer=1, start=1)
    engine.submit(running, 0.0)
    engine.submit(waiting, 0.0)
    engine.advance(0.1)
    assert engine.scheduler.pool.used > 0
    assert engine.abort(running, 0.1)
    assert engine.scheduler.pool.used == 0
    assert running.finish_reason == "abort"
    assert not engine.abort(running, 0.1)
    engine.advance(10.0)
    assert waiting.state is State.FINISHED


def test_an_aborted_request_says_nothing_more_though_its_step_goes_on() -> None:
    engine = make_engine()
    sequence = make_sequence("a", prompt=10, answer=5)
    engine.submit(sequence, 0.0)
    engine.advance(0.01)
    engine.abort(sequence, 0.01)
    [step] = engine.advance(1.0)
    assert step.emitted == []
    assert engine.next_s is None


def test_queue_limits_count_waiting_and_running() -> None:
    engine = make_engine(max_queued_requests=2)
    engine.submit(make_sequence("a", prompt=4, answer=9), 0.0)
    engine.advance(0.001)
    engine.submit(make_sequence("b", prompt=4, answer=9), 0.001)
    with pytest.raises(QueueFullError) as refused:
        engine.submit(make_sequence("c", prompt=4, answer=9), 0.001)
    assert refused.value.reason == "max_num_queued_reqs"


def test_a_limit_of_waiting_tokens_refuses_too() -> None:
    engine = make_engine(max_queued_tokens=10)
    engine.submit(make_sequence("a", prompt=8, answer=1), 0.0)
    with pytest.raises(QueueFullError) as refused:
        engine.submit(make_sequence("b", prompt=3, answer=1), 0.0)
    assert refused.value.reason == "max_num_queued_tokens"


@pytest.mark.parametrize(("prompt", "answer"), [(0, 1), (30, 3), (33, 0)])
def test_what_could_never_run_is_refused(prompt: int, answer: int) -> None:
    engine = make_engine(kv_blocks=9, max_model_len=32)
    with pytest.raises(TooLongError):
        engine.submit(make_sequence("a", prompt=prompt, answer=answer), 0.0)


def test_a_sequence_without_an_answer_ends_with_its_prefill() -> None:
    engine = make_engine()
    sequence = make_sequence("a", prompt=10, answer=0)
    engine.submit(sequence, 0.0)
    [step] = engine.advance(1.0)
    assert step.finished == [sequence]
    assert step.emitted == []


def test_jitter_is_repeatable_for_a_seed() -> None:
    ends = []
    for seed in (1, 1, 2):
        timing = StepTiming(0.01, 0.0, 0.0, 1000, jitter=0.2)
        engine = Engine(timing, Capacity(), seed=seed)
        engine.submit(make_sequence("a", prompt=10, answer=20), 0.0)
        ends.append(engine.advance(100.0)[-1].end_s)
    assert ends[0] == ends[1] != ends[2]


def test_the_next_turn_of_the_caller_may_be_limited_to_some_steps() -> None:
    engine = make_engine()
    engine.submit(make_sequence("a", prompt=4, answer=10), 0.0)
    assert len(engine.advance(10.0, limit=3)) == 3
    assert len(engine.advance(10.0)) == 7
