"""What several replicas of the picker cost: each knows at once only what it has placed itself.

    PYTHONPATH=. python benchmarks/picker_replicas.py [--seconds 120]

The servers are those of `picker_policies.py`. Requests go to the replicas in turns; each reads the
servers' metrics once a second at moments of its own, and has its own book and its own picture of
their prefix caches. Ratios are against one replica in the same run; the spread is the load of the
fullest server over the mean, averaged over the second half of the run. "Own only" is what would be
if no replica made anything of the others: neither counted what the metrics show of them, nor put
new prompts where all of them do.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks import picker_policies
from benchmarks.picker_policies import SEEDS, World
from pointsman.picker.scheduling.profile import DEFAULT

REPLICAS = (1, 2, 4, 8)
PARTS = (50, 90, 99)


@dataclass(frozen=True)
class Workload:
    """What is asked, and how often."""

    name: str
    rates: tuple[float, ...]
    seconds: float
    """Of those that the command line asks for, this part."""
    shape: Mapping[str, int]
    """Constants of the simulation."""


WORKLOADS = (
    Workload("150 shared beginnings of 6,000 tokens", (10, 12), 1.0, {}),
    Workload(
        "464 tokens that nobody shares",
        (150, 200),
        0.25,
        {"GROUPS": 10**9, "SYSTEM": 64, "QUESTION": 400, "ANSWER": 60},
    ),
)


def measured(
    rate: float, seconds: float, replicas: int, *, of_others: bool
) -> tuple[list[float], float]:
    """TTFT at the `PARTS`, in seconds, and the spread."""
    profile = replace(DEFAULT, max_endpoints=1)
    worlds = [World(profile, rate, seconds, seed, replicas, of_others=of_others) for seed in SEEDS]
    found = sorted(request.first - request.arrived for world in worlds for request in world.run())
    spread = [ratio for world in worlds for ratio in world.spread]
    return [found[len(found) * part // 100] for part in PARTS], sum(spread) / len(spread)


def main() -> None:
    """Print a table for each workload and rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    for workload in WORKLOADS:
        for name, value in workload.shape.items():
            setattr(picker_policies, name, value)
        for rate in workload.rates:
            print(f"{workload.name}, {rate:g} requests/s")
            print("  replicas        TTFT p50    p90    p99 (s)   ratio p50    p90    p99  spread")
            one: list[float] = []
            for of_others in (True, False):
                for count in REPLICAS[0 if of_others else 1 :]:
                    seconds = options.seconds * workload.seconds
                    ttft, spread = measured(rate, seconds, count, of_others=of_others)
                    one = one or ttft
                    label = f"{count}{'' if of_others else ', own only'}"
                    times = " ".join(f"{value:>6.2f}" for value in ttft)
                    ratios = " ".join(
                        f"{value / first:>6.1f}" for value, first in zip(ttft, one, strict=True)
                    )
                    print(f"  {label:<15} {times:>22}       {ratios:>20} {spread:>8.2f}")


if __name__ == "__main__":
    main()
