"""Who may read the metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pointsman.picker.serving import metrics_guard
from pointsman.picker.serving.metrics_guard import ALLOWED_AWAY_S, ALLOWED_S, DENIED_S, MetricsGuard
from pointsman.sources.kubernetes.api import ApiError

USER = {"username": "prometheus", "uid": "1", "groups": ["a"], "extra": {"x": ["y"]}}


class Reviews:
    """An API server that knows one reader and one other."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.error: ApiError | None = None

    async def request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.asked.append(body)
        await asyncio.sleep(0)
        assert method == "POST"
        if path == "/apis/authentication.k8s.io/v1/tokenreviews":
            token = body["spec"]["token"]
            if token.startswith("bad"):
                return {"status": {"error": "no such token"}}
            return {"status": {"authenticated": True, "user": {**USER, "username": token}}}
        assert path == "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return {"status": {"allowed": body["spec"]["user"] == "reader"}}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reviews() -> Reviews:
    return Reviews()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(reviews: Reviews, clock: Clock) -> MetricsGuard:
    return MetricsGuard(reviews, clock)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer reader", 200),
        ("bearer reader", 200),
        ("Bearer other", 403),
        ("Bearer bad", 401),
        ("Basic reader", 401),
        ("Bearer", 401),
        ("", 401),
        ("Bearer " + "x" * 20_000, 401),
    ],
)
async def test_the_api_server_decides(guard: MetricsGuard, authorization: str, status: int) -> None:
    assert await guard.judge(authorization) == status


async def test_all_that_is_known_of_the_reader_is_asked_about(
    guard: MetricsGuard, reviews: Reviews
) -> None:
    await guard.judge("Bearer reader")
    asked = reviews.asked[1]["spec"]
    assert asked == {
        "user": "reader",
        "uid": "1",
        "groups": ["a"],
        "extra": {"x": ["y"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }


async def test_an_answer_is_kept_for_a_while(
    guard: MetricsGuard, reviews: Reviews, clock: Clock
) -> None:
    for token, kept_s in (("reader", ALLOWED_S), ("other", DENIED_S)):
        await guard.judge(f"Bearer {token}")
        known = len(reviews.asked)
        clock.now += kept_s
        await guard.judge(f"Bearer {token}")
        assert len(reviews.asked) == known
        clock.now += 0.1
        await guard.judge(f"Bearer {token}")
        assert len(reviews.asked) == known + 2


async def test_readers_of_one_moment_ask_once(guard: MetricsGuard, reviews: Reviews) -> None:
    guard = MetricsGuard(reviews)
    found = await asyncio.gather(*(guard.judge("Bearer reader") for _ in range(20)))
    assert set(found) == {200}
    assert len(reviews.asked) <= 2 * metrics_guard.MAX_QUESTIONS


async def test_while_the_api_server_is_away_who_was_allowed_reads_on(
    guard: MetricsGuard, reviews: Reviews, clock: Clock
) -> None:
    await guard.judge("Bearer reader")
    reviews.error = ApiError(0, "Unreachable", "refused")
    clock.now += ALLOWED_AWAY_S - 1
    assert await guard.judge("Bearer reader") == 200
    assert await guard.judge("Bearer other") == 503
    clock.now += 2
    assert await guard.judge("Bearer reader") == 503


async def test_who_is_not_allowed_any_more_is_refused(
    guard: MetricsGuard, reviews: Reviews, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guard.judge("Bearer reader")
    clock.now += ALLOWED_S + 1

    async def deny(method: str, path: str, body: Any = None) -> dict[str, Any]:
        return {"status": {}}

    monkeypatch.setattr(reviews, "request", deny)
    assert await guard.judge("Bearer reader") == 401


async def test_what_is_remembered_is_bounded(
    guard: MetricsGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_guard, "MAX_ANSWERS", 3)
    for number in range(10):
        await guard.judge(f"Bearer bad{number}")
    assert len(guard._answers) == 3
