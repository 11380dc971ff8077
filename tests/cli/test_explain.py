"""`pointsman explain`, over decisions that are given and over those of a running instance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from click.testing import Result

from pointsman.admin.providers import Providers
from pointsman.cli.explain import new_ones
from tests.e2e.instances import Instance, running

Run = Callable[..., Result]

A, B, C = "10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"


def candidate(address: str, **more: Any) -> dict[str, Any]:
    return {
        "endpoint": address,
        "in_flight": 1,
        "tokens": 0,
        "cached_tokens": 64,
        "queue": None,
        "running": 2,
        "kv_cache": 0.25,
        "adapters": ["x"],
        **more,
    }


def decision(number: int, **more: Any) -> dict[str, Any]:
    return {
        "at": 1_700_000_000.0 + number,
        "pool": "default/p",
        "request_id": f"r{number}",
        "api": "chat",
        "model": "food",
        "target": "food-1",
        "priority": 7,
        "objective": "high",
        "prompt_tokens": 12,
        "endpoints": [A, B],
        "status": 0,
        "reason": "",
        "duration_us": 81.6,
        "candidates_total": 3,
        "candidates": [candidate(C), candidate(B), candidate(A)],
        "dropped": {"prefix-sticky-filter": [C]},
        "rules": {"prefix-sticky-filter": "The servers that hold the prompt."},
        "weights": {"queue-scorer": 2.0, "mine": 1.0},
        "scores": {A: {"queue-scorer": 1.0, "mine": 0.5}, B: {"queue-scorer": 0.25, "mine": 0.0}},
        "totals": {A: 2.5, B: 0.5},
        **more,
    }


REFUSED = decision(
    3, model="other", target="other", objective="", endpoints=[], status=404,
    reason="model_not_found", candidates=[], candidates_total=0, totals={}, scores={},
)  # fmt: skip


def is_one(decision: dict[str, Any], only: Mapping[str, str]) -> bool:
    winner = next(iter(decision["endpoints"]), "")
    facts = {
        "request_id": [decision["request_id"]],
        "model": [decision["model"], decision["target"]],
        "endpoint": [winner, winner.rpartition(":")[0]],
        "pool": [decision["pool"]],
    }
    return all(value in facts[name] for name, value in only.items())


def provided(*decisions: dict[str, Any]) -> Providers:
    async def answer(limit: int, only: Mapping[str, str]) -> Sequence[dict[str, Any]]:
        newest = sorted(decisions, key=lambda each: -each["at"])
        return [each for each in newest if is_one(each, only)][:limit]

    return Providers(decisions=answer)


@pytest.fixture
def explained(running: Callable[..., Any], run: Run) -> Callable[..., Result]:
    """What the command says where these are the decisions."""

    def ask(*arguments: str, of: Sequence[dict[str, Any]]) -> Result:
        with running(providers=provided(*of)):
            return run("explain", *arguments)

    return ask


def test_a_decision_is_told_in_full(explained: Callable[..., Result]) -> None:
    lines = explained(of=[decision(1)]).output.splitlines()
    head, asked, outcome, _, *rest = lines
    assert head.startswith("r1  20")
    assert head.endswith("  default/p")
    assert asked.strip() == (
        "chat for food became food-1, about 12 prompt tokens, priority 7 by the objective high"
    )
    assert outcome.strip() == f"{A} won with 2.50 points in 82 µs, to fall back on {B}"
    rows = [line.split() for line in rest]
    assert [row[0] for row in rows[:4]] == ["CANDIDATE", A, B, C]
    assert rows[1][1:] == ["1", "-", "2", "25%", "64", "x", "won"]
    assert rows[2][-2:] == ["fallback", "1"]
    assert rows[3][-1] == "dropped"
    assert rest[4].strip() == (
        f"prefix-sticky-filter dropped {C} (it keeps the servers that hold the prompt)"
    )
    assert rows[6] == ["SCORES", "queue", "x2", "mine", "x1", "TOTAL"]
    assert rows[7:9] == [[A, "1.00", "0.50", "2.50"], [B, "0.25", "0.00", "0.50"]]


def test_a_refusal_says_why(explained: Callable[..., Result]) -> None:
    out = explained(of=[REFUSED]).output
    assert "refused with 404 model_not_found in 82 µs" in out
    assert "CANDIDATE" not in out


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), ["r1", "r2", "r3"]),
        (("--limit", "1"), ["r3"]),
        (("--model", "food"), ["r1", "r2"]),
        (("--model", "food-1", "--limit", "1"), ["r2"]),
        (("--endpoint", B), ["r2"]),
        (("--endpoint", "10.0.0.1"), ["r1"]),
        (("--request", "r1"), ["r1"]),
        (("--pool", "default/p", "--limit", "2"), ["r2", "r3"]),
        (("--pool", "default/q"), []),
    ],
)
def test_what_is_shown_can_be_narrowed(
    explained: Callable[..., Result], arguments: tuple[str, ...], shown: list[str]
) -> None:
    # Several pickers may answer one after the other: the time says which came first.
    given = [REFUSED, decision(1), decision(2, endpoints=[B])]
    found = json.loads(explained(*arguments, "-o", "json", of=given[1:] + given[:1]).stdout)
    assert [each["request_id"] for each in found] == shown


def test_nothing_to_show_says_so(explained: Callable[..., Result]) -> None:
    assert "no decision yet" in explained(of=[]).stderr
    missing = explained("--request", "r9", of=[decision(1)])
    assert missing.exit_code == 1
    assert "error: no decision for the request r9" in missing.stderr


def test_of_two_looks_only_what_came_between_is_new() -> None:
    first, second, third = decision(1), decision(2), decision(3)
    same_time = decision(2, request_id="again")
    assert new_ones([], [first]) == [first]
    assert new_ones([first, second], [second, same_time, third]) == [same_time, third]
    assert new_ones([second], [first, second]) == []


@pytest.mark.e2e
def test_the_decisions_of_a_running_instance_are_explained_and_followed() -> None:
    with running(ports=(8080,)) as instance:
        follower = subprocess.Popen(
            [sys.executable, "-m", "pointsman", "explain", "-f", "-o", "json"],
            env={**os.environ, **instance.environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            _ask_and_compare(instance, follower)
        finally:
            follower.kill()
            follower.communicate()


def _ask_and_compare(instance: Instance, follower: subprocess.Popen[str]) -> None:
    body = {"model": "support", "prompt": "Say something.", "max_tokens": 2}
    answer = instance.request(8080, "POST", "/v1/completions", body)
    assert answer.status == 200
    (last,) = json.loads(instance.cli("explain", "--limit", "1", "-o", "json"))
    assert (last["model"], last["target"]) == ("support", answer.json["model"])
    text = instance.cli("explain", "--request", last["request_id"])
    assert f"{last['endpoints'][0]} won" in text
    assert "active-request x3" in text
    assert last["request_id"] in instance.cli("explain", "--model", "support")
    assert follower.stdout is not None
    followed = json.loads(follower.stdout.readline())
    assert followed["request_id"] == last["request_id"]
