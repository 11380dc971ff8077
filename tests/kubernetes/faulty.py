"""An API server with faults: a proxy in front of the real one that does what a test tells it to.

It speaks plain HTTP on loopback and passes each request on as the administrator. A fault is asked
about each request first, and answers in the API server's place or lets it pass.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

from pointsman.sources.kubernetes.access import Kubeconfig

Fault = Callable[[web.Request], web.Response | None]


@dataclass
class FaultyServer:
    """The proxy, and what it has seen."""

    faults: list[Fault] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Method and path with query of every request."""
    url: str = ""

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig that leads here."""
        path = folder / "faulty.kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "faulty", "cluster": {"server": self.url}}],
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty"}}],
            "current-context": "faulty",
        }
        path.write_text(yaml.safe_dump(content))
        return path


def status(code: int, reason: str, message: str = "injected") -> web.Response:
    """A refusal as the API server words it."""
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return web.Response(
        status=code, text=json.dumps({**body, "message": message}), content_type="application/json"
    )


def times(
    count: int, matches: Callable[[web.Request], bool], answer: Callable[[], web.Response]
) -> Fault:
    """A fault of the first `count` requests that match."""
    left = [count]

    def fault(request: web.Request) -> web.Response | None:
        if left[0] and matches(request):
            left[0] -= 1
            return answer()
        return None

    return fault


@asynccontextmanager
async def faulty(kubeconfig: Path) -> AsyncIterator[FaultyServer]:
    """The proxy, while the context lasts."""
    server = FaultyServer()
    way = await Kubeconfig(str(kubeconfig)).connection()
    tls: ssl.SSLContext | bool = way.tls if way.tls is not None else True
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls), auto_decompress=False
    ) as session:

        async def handle(request: web.Request) -> web.StreamResponse:
            server.seen.append((request.method, request.path_qs))
            for fault in server.faults:
                if (answer := fault(request)) is not None:
                    return answer
            async with session.request(
                request.method,
                f"{way.server}{request.path_qs}",
                data=await request.read() or None,
                headers={
                    name: value for name, value in request.headers.items() if name.lower() != "host"
                }
                | ({"authorization": way.authorization} if way.authorization else {}),
                timeout=aiohttp.ClientTimeout(total=None),
            ) as found:
                response = web.StreamResponse(status=found.status)
                for name in ("content-type", "content-encoding"):
                    if name in found.headers:
                        response.headers[name] = found.headers[name]
                await response.prepare(request)
                async for chunk in found.content.iter_any():
                    await response.write(chunk)
                return response

        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            server.url = f"http://{host}:{port}"
            yield server
        finally:
            await runner.cleanup()


@contextmanager
def running_faulty(kubeconfig: Path) -> Iterator[FaultyServer]:
    """The same in a thread of its own, for tests that wait for processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = faulty(kubeconfig)

    async def enter() -> FaultyServer:
        return await context.__aenter__()

    async def leave() -> None:
        await context.__aexit__(None, None, None)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    try:
        yield asyncio.run_coroutine_threadsafe(enter(), loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(leave(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
