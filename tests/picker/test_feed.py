"""The feed of objects from another process."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from pointsman.picker.interests import KINDS
from pointsman.resources.core import Pod
from pointsman.sources.feed import FeedSource
from pointsman.store import Store
from tests.picker.conftest import pod, pool, until


class Other:
    """The other side; each connection gets the next script."""

    def __init__(self, *scripts: list[bytes]) -> None:
        self.scripts = list(scripts)
        self.hold = asyncio.Event()

    async def watch(self, request: web.Request) -> web.StreamResponse:
        if not self.scripts:
            return web.Response(status=500)
        script = self.scripts.pop(0)
        response = web.StreamResponse()
        await response.prepare(request)
        for line in script:
            await response.write(line)
        if not self.scripts:
            await self.hold.wait()
        return response


def line(kind: str, item: Any = None) -> bytes:
    message = {"type": kind} | ({"object": item.to_dict()} if item is not None else {})
    return json.dumps(message).encode() + b"\n"


@asynccontextmanager
async def following(other: Other, folder: Path) -> AsyncIterator[Store]:
    app = web.Application()
    app.router.add_get("/api/watch", other.watch)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, f"{folder}/f").start()
    store = Store()
    source = FeedSource(store, folder / "f", KINDS)

    async def follow() -> None:
        await source.start()
        await source.follow()

    task = asyncio.create_task(follow())
    try:
        await until(lambda: source.is_synced)
        yield store
    finally:
        other.hold.set()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await runner.cleanup()


def names(store: Store) -> list[str]:
    return [item.metadata.name for item in store.list(Pod)]


async def test_what_exists_comes_as_one_batch_and_changes_follow(folder: Path) -> None:
    other = Other(
        [
            line("ADDED", pool()),
            line("ADDED", pod("a", "10.0.0.1")),
            line("ADDED", pod("b", "10.0.0.2")),
            line("SYNCED"),
            line("HEARTBEAT"),
            line("DELETED", pod("a", "10.0.0.1")),
            line("MODIFIED", pod("b", "10.0.0.9")),
        ]
    )
    async with following(other, folder) as store:
        await until(lambda: names(store) == ["b"])
        await until(lambda: (store.list(Pod)[0].status or {})["podIP"] == "10.0.0.9")


async def test_what_is_not_seen_again_after_a_break_is_taken_out(folder: Path) -> None:
    first = [line("ADDED", pod("a", "10.0.0.1")), line("ADDED", pod("b", "10.0.0.2"))]
    other = Other(
        [*first, line("SYNCED")],
        [first[1], b"no json\n"],
        [first[1], line("ADDED", pod("c", "10.0.0.3")), line("SYNCED")],
    )
    async with following(other, folder) as store:
        await until(lambda: names(store) == ["b", "c"])


async def test_an_object_that_cannot_be_read_hurts_only_itself(folder: Path) -> None:
    bad = json.dumps({"type": "ADDED", "object": {"kind": "Pod", "apiVersion": "v1"}}).encode()
    other = Other([bad + b"\n", line("ADDED", pod("a", "10.0.0.1")), line("SYNCED")])
    async with following(other, folder) as store:
        assert names(store) == ["a"]
