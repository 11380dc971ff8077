"""What a picker makes of the load that others place: other replicas, other clients."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest

from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.endpoints.table import Endpoint, Place, seen
from pointsman.picker.prefix.blocks import new_block, prompt_chain
from pointsman.picker.scheduling.filters import homes_of_new_prompts, prefix_sticky_until_loaded
from pointsman.picker.scheduling.profile import DEFAULT, choose
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import active_request


def endpoint(name: str = "10.0.0.1", requests: int = 0) -> Endpoint:
    made = Endpoint(Place(name, 8000, "default", name))
    made.count(requests)
    return made


def reading(
    it: Endpoint, running: int | None, waiting: int | None = 0, at: float = 0.0
) -> Measures:
    return Measures(at=at, running=running, waiting=waiting, own_requests=it.requests)


def shared(name: str, requests: int, running: int) -> Endpoint:
    it = endpoint(name, requests)
    it.learn(reading(it, running))
    return it


@pytest.mark.parametrize("running", [0, 7, 8, None])
def test_the_only_picker_counts_nothing_but_its_own(running: int | None) -> None:
    it = endpoint(requests=8)
    it.learn(reading(it, running))
    it.count(5)
    assert (it.requests, it.others) == (13, 0.0)


def test_what_the_metrics_show_beyond_ones_own_is_of_others() -> None:
    it = endpoint(requests=4)
    it.learn(reading(it, running=10, waiting=2))
    assert it.others == 8


def test_ones_own_picks_since_the_reading_stand_for_those_of_all() -> None:
    it = endpoint(requests=4)
    it.learn(reading(it, running=12))
    it.count(2)
    # A third of the load is ours, so two more of ours are six more of all.
    assert it.requests + it.others == pytest.approx(18)
    it.count(-6)
    assert (it.requests, it.others) == (0, 0.0)


def test_a_picker_that_has_just_begun_sees_the_load_of_the_others() -> None:
    it = endpoint()
    it.learn(reading(it, running=20))
    assert it.others == 20
    it.count(1)
    assert it.requests + it.others == pytest.approx(28)


def test_a_share_is_learnt_over_several_readings_and_forgotten_again() -> None:
    it = endpoint(requests=4)
    for second in range(60):
        it.learn(reading(it, running=8, at=float(second)))
    assert it.company.share == pytest.approx(0.5)
    it.learn(reading(it, running=4, at=60.0))
    assert it.company.share == pytest.approx(0.53, abs=0.03)
    for second in range(61, 120):
        it.learn(reading(it, running=4, at=float(second)))
    assert it.company.share == 1.0
    assert it.others == 0.0


def test_metrics_that_are_missing_leave_ones_own_book() -> None:
    it = shared("10.0.0.1", 4, 12)
    it.learn(None)
    assert (it.requests, it.others) == (4, 0.0)


def test_a_snapshot_knows_of_the_others() -> None:
    it = shared("10.0.0.1", 4, 12)
    first = seen(it)
    assert (first.others, first.company) == (8, it.company)
    it.learn(reading(it, running=20, at=1.0))
    assert seen(it).others == 16


def test_the_load_of_others_counts_as_ones_own() -> None:
    busy, free = shared("10.0.0.1", 1, 9), shared("10.0.0.2", 2, 3)
    assert active_request([busy, free], Wanted()) == [0.0, pytest.approx(2 / 3)]
    held = Wanted(cached_tokens={busy.address: 1000}, hashed_tokens=1000)
    assert prefix_sticky_until_loaded([busy, free], held) == [busy, free]


SERVERS = [f"10.0.0.{number}" for number in range(1, 9)]


def new_prompt(text: str) -> Wanted:
    hashes = prompt_chain("m", {"prompt": text * 100})
    return Wanted("m", hashed_tokens=1000, new_block=new_block(hashes, {}))


def names(endpoints: Sequence[object]) -> set[str]:
    return {it.address for it in endpoints if isinstance(it, Endpoint)}


def test_replicas_put_a_new_prompt_at_the_same_two_servers() -> None:
    one = [shared(name, 2, 4) for name in SERVERS]
    other = [shared(name, 1, 5) for name in reversed(SERVERS)]
    found = set()
    for number in range(50):
        wanted = new_prompt(f"{number} apples")
        homes = names(homes_of_new_prompts(one, wanted))
        assert len(homes) == 2
        assert homes == names(homes_of_new_prompts(other, wanted))
        found |= homes
    assert len(found) == 8


def test_the_less_loaded_home_is_chosen() -> None:
    wanted = new_prompt("apples")
    servers = [shared(name, 2, 4) for name in SERVERS]
    first, second = homes_of_new_prompts(servers, wanted)
    assert isinstance(first, Endpoint)
    first.count(3)
    assert choose(DEFAULT, servers, wanted, random.Random(1))[0] is second


def test_there_are_no_homes_for_what_is_held_nor_for_the_only_picker() -> None:
    servers = [shared(name, 2, 4) for name in SERVERS]
    assert homes_of_new_prompts(servers, Wanted(hashed_tokens=1000)) is servers
    alone = [shared(name, 2, 2) for name in SERVERS]
    assert homes_of_new_prompts(alone, new_prompt("apples")) is alone


def test_what_is_new_begins_behind_what_is_known_until_that_is_half_of_the_prompt() -> None:
    hashes = prompt_chain("m", {"prompt": "x" * 2560})
    assert new_block(hashes, {}) == hashes[0]
    assert new_block(hashes, {"a": 64, "b": 256}) == hashes[4]
    assert new_block(hashes, {"a": 320}) is None


def test_the_blocks_of_a_prompt_are_the_same_in_every_process() -> None:
    code = (
        "from pointsman.picker.prefix.blocks import prompt_chain;"
        "print(prompt_chain('m', {'prompt': 'x' * 999, 'cache_salt': 's', 'tools': [{}]}))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
