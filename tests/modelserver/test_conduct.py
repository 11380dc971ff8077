"""Failures on purpose, changes at run time, and the two ways to end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from pointsman.modelserver.options import FailureOptions
from pointsman.modelserver.server import drain
from tests.modelserver.conftest import Served, Serving, until

BODY = {"prompt": "Hi", "max_tokens": 20, "ignore_eos": True}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("rate_limit", 429),
        ("invalid_api_key", 401),
        ("context_length", 400),
        ("model_not_found", 404),
        ("server_error", 500),
        ("unavailable", 503),
        ("what", 400),
    ],
)
async def test_a_request_can_ask_for_its_failure(served: Served, kind: str, status: int) -> None:
    found, body = await served.post("/v1/completions", BODY, X_Fail=kind)
    assert found == status
    assert body["error"]["code"] == status


async def test_a_request_can_ask_for_a_status(served: Served) -> None:
    assert (await served.post("/v1/completions", BODY, X_Return_Error="418"))[0] == 418
    assert (await served.post("/v1/completions", BODY, X_Return_Error="200"))[0] == 400


async def test_a_disconnect_gives_no_answer(served: Served) -> None:
    with pytest.raises(aiohttp.ClientError):
        await served.post("/v1/completions", BODY, X_Fail="disconnect")
    assert (await served.post("/v1/completions", BODY))[0] == 200


async def test_a_cut_stream_breaks_off_in_the_middle(served: Served) -> None:
    body = {**BODY, "max_tokens": 200, "stream": True}
    text = b""
    async with served.client.post(
        served.url + "/v1/completions", json=body, headers={"X-Fail": "cut"}
    ) as response:
        try:
            async for data in response.content:
                text += data
        except aiohttp.ClientPayloadError:
            text += b"(broken off)"
    assert text.endswith(b"(broken off)")
    assert b"data: {" in text
    assert b"[DONE]" not in text
    await until(lambda: served.replica.driver.engine.is_idle)


async def test_a_hanging_request_ends_with_its_client(served: Served) -> None:
    timeout = aiohttp.ClientTimeout(total=0.1)
    with pytest.raises(asyncio.TimeoutError):
        await served.client.post(
            served.url + "/v1/completions", json=BODY, headers={"X-Fail": "hang"}, timeout=timeout
        )
    await until(served.replica.idle.is_set)


async def test_a_rate_of_failures_is_kept_and_repeatable(serving: Serving) -> None:
    outcomes = []
    for _ in range(2):
        failures = FailureOptions(0.3, ("rate_limit", "server_error"))
        async with serving(failures=failures, seed=4) as served:
            outcomes.append([(await served.post("/v1/completions", BODY))[0] for _ in range(60)])
    assert outcomes[0] == outcomes[1]
    assert 5 <= sum(status != 200 for status in outcomes[0]) <= 30
    assert set(outcomes[0]) == {200, 429, 500}


async def test_settings_change_while_the_server_runs(served: Served) -> None:
    wanted = {
        "is_healthy": False,
        "time_scale": 50,
        "failure_rate": 1,
        "failure_types": ["unavailable"],
        "timing": {"base_s": 0.5},
    }
    status, settings = await served.post("/admin/config", wanted)
    assert status == 200
    assert settings["timing"]["base_s"] == 0.5
    assert (await served.get("/admin/config"))[1] == settings
    assert (await served.get("/health"))[0] == 503
    assert (await served.post("/v1/completions", BODY))[0] == 503


@pytest.mark.parametrize(
    "wanted",
    [
        {"nope": 1},
        {"failure_rate": 2},
        {"failure_types": ["x"]},
        {"failure_types": [1]},
        {"time_scale": 0},
        {"refuses_with": 5},
        {"answer_median_tokens": 1e300},
        {"timing": {"base_s": 1e300}},
        {"is_healthy": "yes"},
        {"timing": {"nope": 1}},
        {"timing": {"prefill_tokens_per_s": 0}},
    ],
)
async def test_a_wrong_setting_changes_nothing(served: Served, wanted: dict[str, object]) -> None:
    before = (await served.get("/admin/config"))[1]
    status, _ = await served.post("/admin/config", {"echoes": True, **wanted})
    assert status == 400
    assert (await served.get("/admin/config"))[1] == before


async def test_time_runs_faster_by_its_scale(serving: Serving) -> None:
    async with serving(time_scale=100) as served:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await served.post("/v1/completions", {**BODY, "max_tokens": 1500})
        # 1,500 steps of a millisecond.
        assert loop.time() - started < 1.0
        assert served.replica.driver.clock.now() > 1.5


async def test_the_prefix_cache_can_be_dropped(served: Served) -> None:
    body = {"prompt": list(range(64)), "max_tokens": 1}
    await served.post("/v1/completions", body)
    assert (await served.post("/reset_prefix_cache", {}))[0] == 200
    _, answer = await served.post("/v1/completions", body)
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_a_trace_tells_every_step(serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    async with serving(trace_path=str(path)) as served:
        await served.post("/v1/completions", {**BODY, "max_tokens": 3})
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert steps[0]["admitted"] == list(steps[0]["tokens"])
    assert steps[-1]["finished"] == steps[0]["admitted"]


async def start_stream(served: Served, tokens: int) -> aiohttp.ClientResponse:
    body = {**BODY, "max_tokens": tokens, "stream": True}
    response = await served.client.post(served.url + "/v1/completions", json=body)
    await response.content.readany()
    return response


async def test_by_default_the_end_comes_at_once_with_abort_and_done(served: Served) -> None:
    response = await start_stream(served, 2000)
    await drain([served.listener], asyncio.Event())
    text = (await response.text()).strip()
    assert text.endswith("data: [DONE]")
    assert '"finish_reason":"abort"' in text
    with pytest.raises(aiohttp.ClientConnectionError):
        async with aiohttp.ClientSession() as other:
            await other.get(served.url + "/health")


async def test_with_a_timeout_vllm_stays_healthy_but_refuses_new_requests(
    serving: Serving,
) -> None:
    async with serving(shutdown_timeout_s=10.0) as served:
        response = await start_stream(served, 400)
        draining = asyncio.create_task(drain([served.listener], asyncio.Event()))
        await until(lambda: served.replica.conduct.refuses_with != 0)
        assert (await served.get("/health"))[0] == 200
        status, body = await served.post("/v1/completions", BODY)
        assert status == 500
        assert "after shutdown" in body["error"]["message"]
        assert '"finish_reason":"length"' in await response.text()
        await draining


async def test_a_graceful_drain_says_so_on_health(serving: Serving) -> None:
    async with serving(drain="graceful") as served:
        response = await start_stream(served, 400)
        draining = asyncio.create_task(drain([served.listener], asyncio.Event()))
        await until(lambda: served.replica.conduct.refuses_with != 0)
        assert (await served.get("/health"))[0] == 503
        assert (await served.post("/v1/completions", BODY))[0] == 503
        assert '"finish_reason":"length"' in await response.text()
        await draining


async def test_a_second_signal_ends_a_drain(serving: Serving) -> None:
    async with serving(drain="graceful", shutdown_timeout_s=1000.0) as served:
        response = await start_stream(served, 2000)
        hurry = asyncio.Event()
        draining = asyncio.create_task(drain([served.listener], hurry))
        await until(lambda: served.replica.conduct.refuses_with != 0)
        hurry.set()
        await asyncio.wait_for(draining, 5)
        response.close()
