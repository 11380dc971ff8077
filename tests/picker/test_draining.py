"""When a picker that leaves has nothing left to wait for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from pointsman.picker.serving import draining
from pointsman.picker.serving.draining import Drain

LONG_S = 100.0


@dataclass
class Gateways:
    """What they do."""

    connections: int = 1
    busy_streams: int = 0
    started_streams: int = 0
    is_told: bool = False

    def announce_end(self) -> None:
        self.is_told = True


class Clock:
    """A time that goes on when it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "POLL_S", 0.0)


def drain(gateways: Gateways, clock: Clock, timeout_s: float = LONG_S) -> Drain:
    return Drain(gateways, gateways, timeout_s, settle_s=5.0, clock=clock)


async def test_gateways_get_the_time_to_hear_of_it() -> None:
    gateways, clock = Gateways(), Clock()
    await drain(gateways, clock).settle()
    assert 5.0 <= clock.now < 6.0
    assert not gateways.is_told


async def test_a_short_timeout_leaves_half_of_it_for_what_is_open() -> None:
    clock = Clock()
    await drain(Gateways(), clock, timeout_s=4.0).settle()
    assert 2.0 <= clock.now < 3.0


@pytest.mark.parametrize("step", ["settle", "finish"])
async def test_nobody_is_waited_for_where_nobody_is_connected(step: str) -> None:
    clock = Clock()
    await getattr(drain(Gateways(connections=0, busy_streams=1), clock), step)()
    assert clock.now < 2.0


async def test_it_is_over_a_second_after_the_last_stream_began() -> None:
    gateways, clock = Gateways(), Clock()
    task = asyncio.create_task(drain(gateways, clock).finish())
    while clock.now < 3.0:
        gateways.started_streams += 1
        await asyncio.sleep(0)
    last = clock.now
    await task
    assert gateways.is_told
    assert 0.9 <= clock.now - last < 2.0


async def test_what_is_busy_is_waited_for_until_the_deadline() -> None:
    clock = Clock()
    await drain(Gateways(busy_streams=1), clock).finish()
    assert LONG_S <= clock.now < LONG_S + 1


async def test_who_hurries_waits_for_nothing() -> None:
    clock = Clock()
    leaving = drain(Gateways(busy_streams=1), clock)
    leaving.hurry()
    await leaving.settle()
    await leaving.finish()
    assert clock.now < 1.0
