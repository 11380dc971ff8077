"""What a cluster asks the controller: is it alive, is it ready, and what does it measure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web

SHUTDOWN_S = 1.0


class Sample(NamedTuple):
    """One measure."""

    name: str
    kind: str
    """`counter` or `gauge`."""
    help: str
    value: float


@asynccontextmanager
async def serving_health(
    host: str, port: int, waiting_for: Callable[[], list[str]]
) -> AsyncIterator[None]:
    """`/healthz` as long as the process turns, `/readyz` once nothing is waited for."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        waiting = waiting_for()
        if waiting:
            return web.Response(status=503, text="".join(f"{item}\n" for item in waiting))
        return web.Response(text="ok\n")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    async with _site(app, host, port):
        yield


@asynccontextmanager
async def serving_metrics(
    host: str, port: int, samples: Callable[[], Iterable[Sample]]
) -> AsyncIterator[None]:
    """`/metrics` in Prometheus' text format."""

    async def metrics(_: web.Request) -> web.Response:
        text = "".join(
            f"# HELP {item.name} {item.help}\n# TYPE {item.name} {item.kind}\n"
            f"{item.name} {item.value:g}\n"
            for item in samples()
        )
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    async with _site(app, host, port):
        yield


@asynccontextmanager
async def _site(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()
