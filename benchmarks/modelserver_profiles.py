"""What the engine's profiles give, beside what was published or measured for the hardware.

    python benchmarks/modelserver_profiles.py

A closed loop in engine time: so many clients, each of which asks again a moment after its answer.
Nothing waits in real time, so the table takes a second. Published times are those a client saw.
"""

from __future__ import annotations

import random
from bisect import insort
from dataclasses import dataclass

from pointsman.modelserver.engine import PROFILES, Engine, Sequence, token_array

_THINK_S = 0.010
"""Mean time between an answer and the client's next request, exponential: without some chance the
clients of a closed loop march in step for ever."""

_ROUNDS = 8
"""Requests per client."""


@dataclass(frozen=True)
class Published:
    """A published row. Milliseconds, tokens per second; None where the source says nothing."""

    clients: int
    ttft_ms: float | None
    gap_ms: float | None
    tokens_per_s: float | None


@dataclass(frozen=True)
class Sweep:
    """A published sweep and the load that it was measured with."""

    profile: str
    prompt: int
    answer: int
    rows: tuple[Published, ...]


SWEEPS = (
    Sweep(
        "qwen2.5-0.5b-l4",
        256,
        128,
        (
            Published(1, 27.0, 5.1, 168),
            Published(2, 37.8, 5.2, 367),
            Published(4, 50.1, 5.3, 698),
            Published(8, 60.9, 5.5, 1312),
            Published(16, 103.8, 6.0, 2277),
            Published(32, 135.3, 7.1, 3773),
        ),
    ),
    # The source does not say how long its prompts and answers are.
    Sweep(
        "llama3.1-8b-h100",
        200,
        128,
        (Published(1, 13.98, 6.48, 122.2), Published(4, 22.75, 6.59, 580.3)),
    ),
    # One of 20 to 38 ms for the first token, 4 to 8 ms between tokens, 520 to 1,120 tokens/s.
    Sweep("cpu-tiny", 100, 70, (Published(1, 29.0, 6.0, 175), Published(8, None, None, 820))),
)


@dataclass(frozen=True)
class Result:
    """Medians of a run of the engine."""

    ttft_ms: float
    gap_ms: float
    tokens_per_s: float


def run(profile: str, clients: int, prompt: int, answer: int) -> Result:
    """Runs a closed loop in engine time. Prompts share nothing."""
    chosen = PROFILES[profile]
    engine = Engine(chosen.timing, chosen.capacity)
    total = max(40, clients * _ROUNDS)
    made: list[Sequence] = []
    done: list[Sequence] = []
    gaps: list[float] = []

    def ask(at_s: float) -> None:
        first = len(made) * prompt
        sequence = Sequence(
            str(len(made)),
            token_array(list(range(first, first + prompt))),
            token_array([1] * answer),
        )
        made.append(sequence)
        engine.submit(sequence, at_s)

    draws = random.Random(clients)
    pending = [0.0] * clients
    while pending or engine.next_s is not None:
        step_s = engine.next_s
        if pending and (step_s is None or pending[0] <= step_s):
            ask(pending.pop(0))
            continue
        for result in engine.advance(step_s or 0.0, limit=1):
            for gap_s, count in result.gaps.items():
                gaps += [gap_s] * count
            done += result.finished
            asked = len(made) + len(pending)
            for _ in range(min(len(result.finished), total - asked)):
                insort(pending, result.end_s + draws.expovariate(1 / _THINK_S))
    ttft = sorted((entry.first_token_s or 0.0) - entry.arrival_s for entry in done)
    gaps.sort()
    end_s = max(entry.finished_s or 0.0 for entry in done)
    return Result(
        ttft[len(ttft) // 2] * 1e3, gaps[len(gaps) // 2] * 1e3, len(done) * answer / end_s
    )


def _cell(ours: float, published: float | None, digits: int = 1) -> str:
    if published is None:
        return f"{ours:12,.{digits}f} {'':>10} {'':>6}"
    return f"{ours:12,.{digits}f} {published:10,.{digits}f} {ours / published:6.2f}"


def main() -> None:
    """Prints the table: for each figure the engine's, the published one, and their ratio."""
    print(f"{'profile':18}{'clients':>8}{'TTFT p50 ms':>30}{'ITL p50 ms':>30}{'tokens/s':>30}")
    for sweep in SWEEPS:
        for row in sweep.rows:
            result = run(sweep.profile, row.clients, sweep.prompt, sweep.answer)
            print(
                f"{sweep.profile:18}{row.clients:8}"
                f"{_cell(result.ttft_ms, row.ttft_ms)}"
                f"{_cell(result.gap_ms, row.gap_ms)}"
                f"{_cell(result.tokens_per_s, row.tokens_per_s, 0)}"
            )


if __name__ == "__main__":
    main()
