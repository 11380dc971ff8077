"""Scorers, filters and saturation against the values that the field knows."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.endpoints.table import Endpoint, Place, Seen, Table
from pointsman.picker.flow.saturation import fullness, saturation
from pointsman.picker.scheduling import filters, scorers
from pointsman.picker.scheduling.profile import (
    DEFAULT,
    Profile,
    WeightedScorer,
    choose,
    explain,
)
from pointsman.picker.scheduling.request import Wanted

ANY = Wanted("m")


def server(name: str = "e", *, requests: int = 0, tokens: int = 0, **measures: Any) -> Seen:
    return Seen(name, Measures(at=0.0, **measures) if measures else None, requests, tokens)


def adapters(running: str, waiting: str, most: int) -> Seen:
    names = [frozenset(text.split()) for text in (running, waiting)]
    return server(
        waiting=0, running_adapters=names[0], waiting_adapters=names[1], max_adapters=most
    )


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        ([10, 5, 0], [0.0, 0.5, 1.0]),
        ([5, 5], [1.0, 1.0]),
        ([0, 0], [1.0, 1.0]),
        ([10, None, 0], [0.0, 0.5, 1.0]),
        ([None, None], [1.0, 1.0]),
        ([], []),
    ],
)
def test_queue(waiting: list[int | None], expected: list[float]) -> None:
    servers = [server(waiting=each) if each is not None else server() for each in waiting]
    assert scorers.queue(servers, ANY) == expected
    by_running = [server(running=each) if each is not None else server() for each in waiting]
    assert scorers.running_requests(by_running, ANY) == expected


def test_a_queue_grows_by_what_we_have_sent_since_it_was_read() -> None:
    assert scorers.waiting(server(waiting=3, own_requests=10, requests=14)) == 7
    assert scorers.waiting(server(waiting=3, own_requests=10, requests=2)) == 0
    assert scorers.waiting(server(waiting=0, own_requests=0, requests=5)) == 0


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ([0.8, 0.5, 0.0], [0.2, 0.5, 1.0]),
        ([0.6, 0.6], [0.4, 0.4]),
        ([1.0, 0.5], [0.0, 0.5]),
        ([0.6, None], [0.4, 0.4]),
    ],
)
def test_kv_cache(used: list[float | None], expected: list[float]) -> None:
    servers = [server(kv_cache=each) if each is not None else server() for each in used]
    assert scorers.kv_cache_utilization(servers, ANY) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "options", "expected"),
    [
        ([3, 0, 6], {}, [0.5, 1, 0]),
        ([4, 0, 1], {}, [0, 1, 0.75]),
        ([0, 0], {}, [1, 1]),
        ([3, 11], {}, [0.7272, 0]),
        ([3, 0], {"max_busy_score": 0.0}, [0, 1]),
        ([1, 2, 0], {"idle_threshold": 1, "max_busy_score": 0.5}, [1, 0, 1]),
    ],
)
def test_active_request(counts: list[int], options: dict[str, Any], expected: list[float]) -> None:
    servers = [server(requests=each) for each in counts]
    found = scorers.active_request(servers, ANY, **options)
    assert found == pytest.approx(expected, abs=1e-4)


def test_token_load() -> None:
    def score(tokens: Sequence[int], mine: int = 0) -> list[float]:
        wanted = Wanted(prompt_tokens=mine)
        servers = [server(tokens=each) for each in tokens]
        return scorers.token_load(servers, wanted, threshold_tokens=1000)

    assert score([0, 500, 1000]) == [1, 0.5, 0]
    assert score([0, 250, 750], 250) == [0.75, 0.5, 0]


def test_load_aware() -> None:
    servers = [server(waiting=each) for each in (2, 0, 15)]
    assert scorers.load_aware(servers, ANY, threshold=10) == pytest.approx([0.4, 0.5, 0])


def test_lora_affinity() -> None:
    pods = [
        adapters("m", "", 2),
        adapters("x", "m", 5),
        adapters("x", "", 2),
        adapters("x", "m", 2),
        adapters("x y", "", 2),
        adapters("x", "y", 2),
        adapters("", "", 0),
        server(),
    ]
    assert scorers.lora_affinity(pods, ANY) == [1.0, 0.8, 0.8, 0.6, 0.0, 0.0, 0.0, 0.0]
    assert scorers.lora_affinity([], ANY) == []


def test_a_base_model_needs_no_adapter_slot() -> None:
    full = server(base_models=frozenset({"m"}), running_adapters=frozenset("ab"), max_adapters=2)
    assert scorers.lora_affinity([full], ANY) == [1.0]
    assert filters.lora_sticky_until_saturated([full, server("other")], ANY) == [
        full,
        server("other"),
    ]


def test_an_adapter_stays_where_it_is_until_that_server_is_full() -> None:
    holder = server("holder", waiting=0, running_adapters=frozenset("m"), max_adapters=2)
    full = server("full", waiting=9, running_adapters=frozenset("m"), max_adapters=2)
    free = server("free", waiting=0, running_adapters=frozenset("x"), max_adapters=2)
    taken = server("taken", waiting=0, running_adapters=frozenset("xy"), max_adapters=2)
    keep = filters.lora_sticky_until_saturated
    assert keep([holder, full, free, taken], ANY) == [holder]
    assert keep([full, free, taken], ANY) == [free]
    assert keep([full, taken], ANY) == [full]
    assert keep([server("new"), taken], ANY) == [server("new"), taken]


@pytest.mark.parametrize(
    ("waiting", "used", "expected"),
    [(2, 0.5, 0.625), (5, 0.0, 1.0), (10, 0.0, 2.0), (0, 0.8, 1.0), (None, None, 0.0)],
)
def test_fullness(waiting: int | None, used: float | None, expected: float) -> None:
    assert fullness(server(waiting=waiting, kv_cache=used, running=0)) == pytest.approx(expected)


def test_saturation_is_the_mean_and_the_unknown_is_not_full() -> None:
    assert saturation([server(waiting=10), server(waiting=0)]) == 1.0
    assert saturation([server(waiting=10), server(), server(), server()]) == 0.5
    assert saturation([]) == 0.0


def test_the_best_total_wins_and_ties_are_drawn() -> None:
    servers = [server("a", requests=1), server("b"), server("c")]
    rng = random.Random(1)
    firsts = Counter(choose(DEFAULT, servers, ANY, rng)[0].address for _ in range(400))
    assert set(firsts) == {"b", "c"}
    assert min(firsts.values()) > 150
    assert [e.address for e in choose(DEFAULT, servers, ANY, rng)][2] == "a"


def test_scores_are_clamped_and_weighted() -> None:
    profile = Profile(
        scorers=(
            WeightedScorer("wild", lambda servers, _: [7.0, -3.0], 1.0),
            WeightedScorer("mild", lambda servers, _: [0.0, 0.5], 1.0),
        )
    )
    explanation = explain(profile, [server("a"), server("b")], ANY)
    assert explanation.totals == {"a": 1.0, "b": 0.5}
    assert explanation.scores["b"] == {"wild": 0.0, "mild": 0.5}


def test_what_is_explained_is_what_was_chosen() -> None:
    rng = random.Random(7)
    for _ in range(50):
        servers = [
            server(
                str(place),
                requests=rng.randrange(5),
                waiting=rng.randrange(8),
                kv_cache=rng.random(),
                running_adapters=frozenset(rng.sample("mxyz", 2)),
                max_adapters=3,
            )
            for place in range(6)
        ]
        chosen = choose(DEFAULT, servers, ANY, rng)
        totals = explain(DEFAULT, servers, ANY).totals
        assert totals[chosen[0].address] == max(totals.values())


def endpoint(port: int = 8000, pod: str = "p") -> Endpoint:
    return Endpoint(Place("10.0.0.1", port, "default", pod))


def test_a_release_counts_once() -> None:
    it = endpoint()
    one, two = it.reserve(100), it.reserve(50)
    one.release_tokens()
    assert (it.requests, it.tokens) == (2, 50)
    one.release()
    one.release()
    two.release()
    assert (it.requests, it.tokens) == (0, 0)


def test_the_book_survives_a_refresh_but_not_another_pod_at_the_address() -> None:
    table = Table()
    place = Place("10.0.0.1", 8000, "default", "p")
    table.replace([(place, {})])
    first = table.get("10.0.0.1:8000")
    assert first is not None
    held = first.reserve(1)
    assert table.replace([(place, {"a": "b"})]) == ([], [])
    assert table.get("10.0.0.1:8000") is first
    came, went = table.replace([(Place("10.0.0.1", 8000, "default", "q"), {})])
    assert went == [first]
    assert came[0].requests == 0
    held.release()
    assert came[0].requests == 0
    assert not first.is_listed


def test_a_pod_that_comes_back_while_its_requests_go_on_has_its_book_still() -> None:
    table = Table()
    place = Place("10.0.0.1", 8000, "default", "p")
    table.replace([(place, {})])
    first = table.get(place.address)
    assert first is not None
    held = first.reserve(10)
    assert table.replace([]) == ([], [first])
    assert table.get(place.address) is None
    came, _ = table.replace([(place, {"a": "b"})])
    assert came == [first]
    assert (first.is_listed, first.requests, first.labels) == (True, 1, {"a": "b"})
    held.release()
    table.replace([])
    idle, _ = table.replace([(place, {})])
    assert idle[0] is not first


def test_ipv6_addresses_are_bracketed() -> None:
    assert Place("::1", 80, "default", "p").address == "[::1]:80"


def holding(total: int, **cached: int) -> Wanted:
    return Wanted("m", prompt_tokens=total, cached_tokens=cached, hashed_tokens=total)


def test_prefix_cache() -> None:
    servers = [server("a"), server("b"), server("c")]
    assert scorers.prefix_cache(servers, holding(10, a=5, b=2)) == [0.5, 0.2, 0.0]
    assert scorers.prefix_cache(servers, ANY) == [0.0, 0.0, 0.0]

    def weighted(match: int, total: int) -> float:
        (score,) = scorers.prefix_cache(
            [server("a")], holding(total, a=match), length_weight=0.5, length_scale_tokens=100
        )
        return score

    assert weighted(5, 10) == pytest.approx(0.25125)
    assert weighted(50, 100) == pytest.approx(0.375)


def test_a_prompt_stays_where_it_is_held_until_that_server_has_its_share() -> None:
    keep = filters.prefix_sticky_until_loaded
    idle = [server("a"), server("b"), server("c")]
    assert keep(idle, holding(1000, a=900, b=800)) == idle[:2]
    assert keep(idle, holding(1000, a=900, b=100)) == idle[:1]
    assert keep(idle, holding(1000, a=200)) == idle
    busy = [server("a", requests=12), server("b", requests=8), server("c", requests=8)]
    assert keep(busy, holding(1000, a=900)) == busy[:1]
    busier = [server("a", requests=14), server("b", requests=8), server("c", requests=8)]
    assert keep(busier, holding(1000, a=900)) == busier
    full = [server(name, waiting=7) for name in "abc"]
    assert keep(full, holding(1000, a=900)) == full[:1]
