"""Servers that already run are told apart by how they answer."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from pointsman.standalone import external
from pointsman.standalone.external import External

# What each kind answers with, by path; everything else is 404.
KINDS = {
    "vllm": {"/metrics": "vllm:num_requests_running 0\n", "/version": "{}"},
    "sglang": {"/metrics": "# HELP x\nsglang:num_running_reqs 0\n"},
    "llama.cpp": {"/props": '{"total_slots": 4}'},
    "tgi": {"/metrics": "tgi_queue_size 0\n", "/info": '{"model_id": "m"}'},
    "ollama": {"/api/version": '{"version": "1"}', "/v1/models": '{"data": []}'},
    "openai": {"/v1/models": '{"data": []}'},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_is_known_by_its_metrics_or_by_a_path_of_its_own(kind: str) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        text = KINDS[kind].get(request.path)
        return web.Response(text=text) if text is not None else web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as session:
            found = await external.recognize(External("a-0", "127.0.0.1", port), session)
        assert found is not None
        assert found.name == kind
    finally:
        await runner.cleanup()


async def test_a_server_that_does_not_answer_is_not_known() -> None:
    async with aiohttp.ClientSession() as session:
        assert await external.recognize(External("a-0", "127.0.0.1", 9), session) is None
