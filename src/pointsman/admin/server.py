"""The HTTP API on the admin socket. Only this user can open the socket; nothing here changes state.

GET /healthz, /readyz, /version
GET /status                         conditions, listeners, what Envoy acknowledged, endpoints
GET /api/kinds
GET /api/objects?kind=&namespace=&name=
GET /api/watch?kinds=Pod.,InferencePool.inference.networking.k8s.io&namespace=&name=
GET /api/logs?name=&tail=&follow=1
GET /api/decisions?limit=&request_id=&model=&endpoint=&pool=
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
from aiohttp import web

from pointsman.admin.providers import Providers
from pointsman.admin.summary import summary
from pointsman.admin.watch import WRITE_DEADLINE_S, Selection, stream
from pointsman.resources import kinds
from pointsman.resources.base import Resource
from pointsman.store import Store

MAX_STREAMS = 64
"""Watches and followed logs at once."""
MAX_REQUEST_BYTES = 64 * 1024
MAX_LOG_LINES = 10_000
MAX_DECISIONS = 1000
DECISION_FACTS = ("request_id", "model", "endpoint", "pool")
"""What decisions are narrowed by, as the picker's own socket calls it."""
PROVIDER_DEADLINE_S = 5.0
"""For one answer of whoever knows the endpoints."""
SHUTDOWN_S = 1.0
_PART = 200

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """The API over a store and what the composition root knows."""

    def __init__(self, store: Store, providers: Providers) -> None:
        self._store = store
        self._providers = providers
        self._streams: set[asyncio.Task[Any]] = set()

    def app(self) -> web.Application:
        """The routes, for a runner."""
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/version", self._version),
                web.get("/status", self._status),
                web.get("/api/kinds", self._kinds),
                web.get("/api/objects", self._objects),
                web.get("/api/watch", self._streamed(self._watch)),
                web.get("/api/logs", self._streamed(self._logs)),
                web.get("/api/decisions", self._decisions),
            ]
        )
        app.on_shutdown.append(self._end_streams)
        return app

    async def _end_streams(self, _: web.Application) -> None:
        for task in self._streams:
            task.cancel()

    def _streamed(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if len(self._streams) >= MAX_STREAMS:
                return _error(503, f"{MAX_STREAMS} streams are open already")
            task = asyncio.current_task()
            if task is None:  # aiohttp runs every handler in a task
                return _error(500, "not in a task")
            self._streams.add(task)
            try:
                return await handler(request)
            finally:
                self._streams.discard(task)

        return handle

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._providers.is_ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="not ready\n")

    async def _version(self, _: web.Request) -> web.Response:
        return _json(self._providers.version())

    async def _kinds(self, _: web.Request) -> web.Response:
        return _json({"items": [_kind_row(cls) for cls in kinds.ALL]})

    async def _objects(self, request: web.Request) -> web.Response:
        word = request.query.get("kind", "")
        found = kinds.by_name(word) if word else kinds.ALL
        if not found:
            near = kinds.names_like(word)
            hint = f", did you mean {' or '.join(near)}?" if near else ""
            return _error(404, f"unknown kind {word[:100]!r}{hint}")
        wanted = Selection(
            tuple((cls.KIND.group, cls.KIND.kind) for cls in found),
            request.query.get("namespace"),
            request.query.get("name"),
        )
        items: list[dict[str, Any]] = []
        for index, item in enumerate([item for item in self._store if wanted.has(item)]):
            if index % _PART == _PART - 1:
                await asyncio.sleep(0)  # thousands of objects must not hold up the rest
            items.append(item.to_dict())
        return _json({"items": items, "revision": self._store.revision})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        pairs = [entry for entry in request.query.get("kinds", "").split(",") if entry]
        wanted = tuple((group, kind) for kind, _, group in (p.partition(".") for p in pairs))
        unknown = [f"{kind}.{group}" for group, kind in wanted if not kinds.lookup(group, kind)]
        if unknown:
            return _error(404, f"unknown kind {unknown[0][:100]!r} (write Kind.group)")
        query = request.query
        selection = Selection(wanted, query.get("namespace"), query.get("name"))
        response = await _prepared(request, "application/x-ndjson")
        with contextlib.suppress(ConnectionError, TimeoutError):  # the reader went, or is stuck
            await stream(self._store, selection, response)
        return response

    async def _status(self, _: web.Request) -> web.Response:
        providers = self._providers
        objects = [item for item in self._store if type(item) in kinds.USED]
        failed = ""
        try:
            async with asyncio.timeout(PROVIDER_DEADLINE_S):
                endpoints = await providers.endpoints()
        except TimeoutError:
            endpoints, failed = (), f"the picker gave no answer within {PROVIDER_DEADLINE_S:g} s"
        return _json(
            {
                "version": providers.version(),
                "ready": providers.is_ready(),
                "objects": [summary(item) for item in objects],
                "listeners": list(providers.listeners()),
                "xds": list(providers.xds()),
                "endpoints": list(endpoints),
                "endpointsError": failed,
                "problems": list(providers.problems()),
            }
        )

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        logs, name = self._providers.logs, request.query.get("name", "")
        lines = _number(request, "tail", MAX_LOG_LINES, MAX_LOG_LINES)
        last = logs.tail(name, lines) if logs is not None else None
        if logs is None or last is None:
            names = ", ".join(sorted(logs.names())) if logs is not None else ""
            return _error(404, f"{name[:100]!r} has no logs (those that have: {names or 'none'})")
        follows = request.query.get("follow", "") in ("1", "true")
        # Asked for before the tail is written, so that no line falls between the two.
        more = logs.follow(name) if follows else None
        response = await _prepared(request, "text/plain")
        with contextlib.suppress(ConnectionError, TimeoutError):
            await _write_lines(response, last)
            if more is not None:
                async for line in more:
                    await _write_lines(response, [line])
        return response

    async def _decisions(self, request: web.Request) -> web.Response:
        decisions = self._providers.decisions
        if decisions is None:
            return _error(404, "this instance keeps no record of decisions")
        limit = _number(request, "limit", 20, MAX_DECISIONS)
        only = {name: request.query[name] for name in DECISION_FACTS if name in request.query}
        answer = decisions(limit, only)
        try:
            async with asyncio.timeout(PROVIDER_DEADLINE_S):
                found = await answer
        except TimeoutError:
            return _error(504, f"the picker gave no answer within {PROVIDER_DEADLINE_S:g} s")
        return _json({"items": list(found)})


@asynccontextmanager
async def serve(store: Store, providers: Providers, path: Path) -> AsyncIterator[None]:
    """Serve the API on a Unix socket that only this user can open, for as long as the context."""
    runner = web.AppRunner(
        AdminServer(store, providers).app(), access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    listening = _private_socket(path)
    try:
        await web.SockSite(runner, listening).start()
        yield
    finally:
        await runner.cleanup()
        listening.close()
        _unlink(path)


def _private_socket(path: Path) -> socket.socket:
    _unlink(path)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        path.chmod(0o600)  # before it listens: nobody can have come in
    except OSError:
        made.close()
        raise
    return made


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _kind_row(cls: type[Resource]) -> dict[str, Any]:
    kind = cls.KIND
    return {
        "group": kind.group,
        "version": kind.version,
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": kind.plural,
        "shortNames": list(kind.short_names),
        "namespaced": kind.namespaced,
        "used": cls in kinds.USED,
    }


async def _prepared(request: web.Request, content_type: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": content_type})
    await response.prepare(request)
    return response


async def _write_lines(response: web.StreamResponse, lines: Any) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if text:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await response.write(text.encode())


def _number(request: web.Request, key: str, default: int, most: int) -> int:
    text = request.query.get(key, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        return default
    return min(int(text), most)


def _json(value: Any, status: int = 200) -> web.Response:
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json({"error": message}, status)
