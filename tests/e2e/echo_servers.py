"""Model servers that say what reached them: over HTTP/1.1 or HTTP/2 without TLS, in one thread.

An answer tells the address that was asked and the path and headers that came. A request for a path
with `held` gets the beginning of a stream at once and its end when `release` is called; one for a
path that ends in `/large/N` gets so many bytes of JSON more.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from pointsman.wire.headers import literal
from pointsman.wire.http2 import Connection, DataReceived, RequestEnded, RequestStarted

HELD = "held"
LARGE = "/large/"
METRICS = "/metrics"


class EchoServers:
    """Servers at several addresses."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.requests: dict[str, int] = {}
        """How many came to each address; a picker's looks at the metrics do not count."""
        self.open = 0
        """Streams that are held now."""
        self._released = asyncio.Event()
        self._runners: dict[str, web.AppRunner] = {}

    def release(self) -> None:
        """End what is held."""
        self.loop.call_soon_threadsafe(self._released.set)

    def stop(self, address: str) -> None:
        """No longer listen there."""
        runner = self._runners.pop(address)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), self.loop).result(5)

    def start(self, address: str) -> None:
        """Listen at `ip:port`."""
        asyncio.run_coroutine_threadsafe(self._start(address), self.loop).result(5)

    def start_h2c(self, address: str) -> None:
        """Listen at `ip:port`, for HTTP/2 and nothing else."""

        async def begin() -> None:
            host, _, port = address.rpartition(":")
            await self.loop.create_server(lambda: H2c(address), host, int(port))

        asyncio.run_coroutine_threadsafe(begin(), self.loop).result(5)

    async def _start(self, address: str) -> None:
        host, _, port = address.rpartition(":")

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.path != METRICS:
                self.requests[address] = self.requests.get(address, 0) + 1
            body = await request.read()
            if HELD in request.path:
                return await self._hold(request)
            told = _told(address, request, len(body))
            if LARGE in request.path:
                told["filling"] = "x" * int(request.path.partition(LARGE)[2])
            return web.json_response(told)

        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, int(port), backlog=4096).start()
        self._runners[address] = runner

    async def _hold(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: {}\n\n")
        self.open += 1
        try:
            await self._released.wait()
        finally:
            self.open -= 1
        await answer.write(b"data: [DONE]\n\n")
        return answer

    def forget(self) -> None:
        """Count from nothing."""
        self.requests.clear()

    def hold_again(self) -> None:
        """Hold what comes from now on."""
        self.loop.call_soon_threadsafe(self._released.clear)


class H2c(asyncio.Protocol):
    """Answers each request of a connection; HTTP/1.1 is hung up on."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection = Connection()
        self._transport: Any = None
        self._paths: dict[int, str] = {}
        self._sizes: dict[int, int] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        for event in self._connection.receive(data):
            if isinstance(event, RequestStarted):
                self._paths[event.stream_id] = dict(event.headers)[b":path"].decode()
            elif isinstance(event, DataReceived):
                known = self._sizes.get(event.stream_id, 0)
                self._sizes[event.stream_id] = known + len(event.data)
            elif isinstance(event, RequestEnded):
                told = {
                    "address": self._address,
                    "path": self._paths.pop(event.stream_id, ""),
                    "size": self._sizes.pop(event.stream_id, 0),
                    "protocol": "HTTP/2",
                }
                head = literal(b":status", b"200") + literal(b"content-type", b"application/json")
                self._connection.send(event.stream_id, head, json.dumps(told).encode())
                self._connection.end(event.stream_id, literal(b"x-end", b"1"))
        self._flush()
        if self._connection.is_closing:
            self._transport.close()

    def _flush(self) -> None:
        output = self._connection.take_output()
        if output:
            self._transport.write(output)


def _told(address: str, request: web.Request, size: int) -> dict[str, Any]:
    return {
        "address": address,
        "path": request.raw_path,
        "headers": {key.lower(): value for key, value in request.headers.items()},
        "size": size,
        "protocol": f"HTTP/{request.version.major}.{request.version.minor}",
    }


@contextmanager
def echo_servers(addresses: Sequence[str], h2c: Sequence[str] = ()) -> Iterator[EchoServers]:
    """Servers at `addresses` (`ip:port`), and at `h2c` such that speak HTTP/2 only."""
    servers = EchoServers()
    thread = threading.Thread(target=servers.loop.run_forever, daemon=True)
    thread.start()
    try:
        for address in addresses:
            servers.start(address)
        for address in h2c:
            servers.start_h2c(address)
        yield servers
    finally:
        servers.release()
        servers.loop.call_soon_threadsafe(servers.loop.stop)
        thread.join(5)
