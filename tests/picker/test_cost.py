"""The marginal cost of a request."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.endpoints.table import Endpoint, Place, Seen
from pointsman.picker.scheduling.cost import CostModel, expected_answer
from pointsman.picker.scheduling.filters import serves_model
from pointsman.picker.scheduling.request import Wanted

MODEL = CostModel(step_s=0.01, per_request_s=1e-5, per_token_s=1e-8, hit_rate=0.5)


def server(name: str = "a", **fields: Any) -> Seen:
    known = {"requests": 0, "tokens": 0, "measures": None, "prefill_tokens_per_s": 1_000.0}
    return Seen(name, **{**known, **fields})


def test_the_formula_of_an_idle_server() -> None:
    ttft, cost = MODEL.price(server(), Wanted(prompt_tokens=500, max_tokens=100))
    assert ttft == pytest.approx(0.5)
    assert cost == pytest.approx(0.5 + 100 * (1e-5 + 1e-8 * 500))


def test_the_formula_of_a_busy_server_that_holds_the_prompt() -> None:
    busy = server(requests=4, tokens=250, context_tokens=3_000, cache_fullness=1.0)
    wanted = Wanted(prompt_tokens=500, max_tokens=100, cached_tokens={"a": 400})
    ttft, cost = MODEL.price(busy, wanted)
    assert ttft == pytest.approx(0.35)
    own = 0.35 + 100 * (5 * 1e-5 + 3_500 * 1e-8)
    others = 4 * (0.1 + (1e-5 + 500 * 1e-8) * 50)
    evicted = 3 * 0.5 * (1 + 4) * 0.1
    assert cost == pytest.approx(own + others + evicted)


def test_a_full_kv_cache_is_waited_for() -> None:
    full = server(requests=10, measures=Measures(0.0, kv_cache=0.9, kv_cache_tokens=10_000))
    free = server(requests=10, measures=Measures(0.0, kv_cache=0.1, kv_cache_tokens=10_000))
    wanted = Wanted(prompt_tokens=100, max_tokens=100)
    assert MODEL.price(full, wanted)[0] > MODEL.price(free, wanted)[0] + 0.1


def test_the_cheapest_scores_one_and_the_late_score_nothing() -> None:
    wanted = Wanted(prompt_tokens=100, max_tokens=10)
    servers = [server("a"), server("b", tokens=300), server("c", tokens=5_000)]
    best, near, late = MODEL.score(servers, wanted)
    assert best == 1.0
    assert 0 < near < 1
    assert late == 0
    assert MODEL.score([], wanted) == []
    assert MODEL.score([server()], Wanted()) == [1.0]


def test_a_long_cached_prompt_is_worth_a_queue_and_a_short_one_is_not() -> None:
    def winner(prompt: int) -> str:
        servers = [server("holds", requests=2, tokens=300), server("idle")]
        wanted = Wanted(prompt_tokens=prompt, max_tokens=50, cached_tokens={"holds": prompt})
        scores = MODEL.score(servers, wanted)
        return servers[scores.index(max(scores))].address

    assert winner(5_000) == "holds"
    assert winner(100) == "idle"


def test_answers_are_expected_to_be_shorter_than_their_limits() -> None:
    assert [expected_answer(limit) for limit in (None, 5, 100_000)] == [256, 5, 1_024]


def test_the_context_of_requests_in_flight_is_booked() -> None:
    it = Endpoint(Place("10.0.0.1", 8000, "default", "p"))
    one = it.reserve(10, 110)
    two = it.reserve(20, 220)
    assert it.context_tokens == 330
    one.release()
    one.release()
    two.release()
    assert it.context_tokens == 0


def test_servers_that_lack_the_model_are_left_out_while_others_have_it() -> None:
    has, lacks = server("has", models={"m": {}}), server("lacks", models={"x": {}})
    silent = server("silent")
    assert serves_model([has, lacks, silent], Wanted("m")) == [has, silent]
    assert serves_model([lacks], Wanted("m")) == [lacks]
    assert serves_model([has, lacks], Wanted(None)) == [has, lacks]
