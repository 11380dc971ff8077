"""Reading metrics over HTTP: bounded, patient, and no server's failure is another's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from pointsman.picker.endpoints import scrape
from pointsman.picker.endpoints.scrape import Scraper
from pointsman.picker.endpoints.table import Endpoint, Place
from pointsman.picker.requests.listing import listing, read_listing
from tests.picker.conftest import model_server, until


def endpoint(port: int) -> Endpoint:
    return Endpoint(Place("127.0.0.1", port, "default", "p"))


@asynccontextmanager
async def broken_server(answer: bytes) -> AsyncIterator[int]:
    """Says the same to everybody, whatever they ask, and keeps the line open."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        done.set()
        server.close()


async def test_metrics_follow_the_server() -> None:
    waiting = 1

    def text() -> str:
        return f'vllm:num_requests_waiting{{model_name="m"}} {waiting}\n'

    async with model_server(text) as port, Scraper(time.monotonic, 0.01) as scraper:
        it = endpoint(port)
        scraper.change([it], [])
        await until(lambda: it.measures is not None and it.measures.waiting == 1)
        waiting = 5
        await until(lambda: it.measures is not None and it.measures.waiting == 5)
        scraper.change([], [it])


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\nvllm:num_requests_waiting 3",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000,
    ],
)
async def test_a_server_that_hangs_or_lies_is_given_up(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(scrape, "MAX_BYTES", 100_000)
    failed: list[Endpoint] = []
    async with broken_server(answer) as port, Scraper(time.monotonic, 1, failed.append) as scraper:
        it = endpoint(port)
        await asyncio.wait_for(scraper.read_once(it), 2)
        assert failed == [it]
        assert it.measures is None


async def test_an_old_reading_is_forgotten() -> None:
    now = 0.0
    async with (
        model_server(lambda: "vllm:num_requests_waiting 3") as port,
        Scraper(lambda: now) as scraper,
    ):
        it = endpoint(port)
        await scraper.read_once(it)
        await scraper.read_models(it)
    async with Scraper(lambda: now) as scraper:
        now = scrape.STALE_AFTER_S
        await scraper.read_once(it)
        assert it.measures is not None
        now += 1
        await scraper.read_once(it)
        assert it.measures is None


async def test_models_are_listed_by_the_servers() -> None:
    async def show(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "b", "root": "x"}]})

    app = web.Application()
    app.router.add_get("/v1/models", show)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Scraper(time.monotonic) as scraper:
        it = endpoint(runner.addresses[0][1])
        await scraper.read_models(it)
        assert it.models == {"b": {"id": "b", "root": "x"}}
    await runner.cleanup()


def ids(body: bytes | None) -> Any:
    return None if body is None else [item["id"] for item in json.loads(body)["data"]]


def test_a_listing_is_the_pools_names_or_the_union_of_its_servers() -> None:
    servers: list[dict[str, dict[str, Any]]] = [
        {"b": {"id": "b", "root": 1}},
        {"a": {"id": "a"}, "b": {"id": "b", "root": 2}},
    ]
    assert ids(listing(["m"], servers, is_closed=True)) == ["m"]
    assert ids(listing([], servers)) == ["a", "b"]
    assert ids(listing(["m"], servers)) == ["a", "b", "m"]
    assert listing([], []) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": 1}'])
def test_what_is_no_listing_is_none(body: bytes) -> None:
    assert read_listing(body) is None


def test_odd_items_of_a_listing_are_left_out() -> None:
    assert read_listing(b'{"data": [1, {"id": 2}, {"id": "a"}]}') == {"a": {"id": "a"}}
