"""Backends that say what reached them: HTTP/1.1, HTTP/2 without TLS, TLS, WebSocket.

An answer is JSON: the server's name, and the method, path, host, headers and TLS of the request.
Paths ask for more: `/status/418` for a status, `/fail2` for two failures before an answer, `/hang`
for an answer that never comes, `/ws` for a WebSocket that says everything back.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from pointsman.wire.headers import literal
from pointsman.wire.http2 import Connection, RequestEnded, RequestStarted

SEEN_AT_MOST = 1000


@dataclass
class Server:
    """A backend, and what it has seen."""

    name: str
    namespace: str = "default"
    protocol: str = "http"
    """http, h2c or https."""
    context: ssl.SSLContext | None = None
    app_protocol: str = ""
    """What its Service says of its port."""
    port: int = 0
    seen: list[str] = field(default_factory=list)
    """Paths, in the order in which they came."""

    def manifest(self) -> str:
        """The server as a Service and the Pod behind it."""
        said = f", appProtocol: {self.app_protocol}" if self.app_protocol else ""
        return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {self.name}, namespace: {self.namespace}}}
spec:
  selector: {{app: {self.name}}}
  ports: [{{name: web, port: 80, targetPort: 8080{said}}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: {self.name}-0
  namespace: {self.namespace}
  labels: {{app: {self.name}}}
  annotations: {{pointsman.dev/ports: "8080={self.port}"}}
status: {{podIP: 127.0.0.1}}
"""

    def answer(self, method: str, path: str, host: str, headers: Sequence[tuple[str, str]]) -> Any:
        """Status and body for a request."""
        earlier = self.seen.count(path)
        self.seen.append(path)
        del self.seen[:-SEEN_AT_MOST]
        fails = re.search(r"/fail(\d)", path)
        wanted = re.search(r"/status/(\d+)", path)
        status = int(wanted[1]) if wanted else 503 if fails and earlier < int(fails[1]) else 200
        told: dict[str, Any] = {"name": self.name, "namespace": self.namespace, "method": method}
        told |= {"path": path, "host": host, "protocol": self.protocol, "headers": {}}
        for key, value in headers:
            told["headers"].setdefault(key.lower(), []).append(value)
        return status, told


def _remember_name(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
    connection.asked_for = name  # type: ignore[attr-defined]


def _application(server: Server) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/ws"):
            return await _say_back(request)
        found = [(key, value) for key, value in request.headers.items()]
        status, told = server.answer(request.method, request.raw_path, request.host, found)
        if "/hang" in request.path:
            await asyncio.Event().wait()
        transport = request.transport
        connection = transport.get_extra_info("ssl_object") if transport is not None else None
        if connection is not None:
            told["sni"] = getattr(connection, "asked_for", None)
            told["client"] = connection.getpeercert()
        headers = {"x-from": server.name, "x-extra": "1", "x-kept": "1"}
        return web.json_response(told, status=status, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    return application


async def _say_back(request: web.Request) -> web.WebSocketResponse:
    talk = web.WebSocketResponse()
    await talk.prepare(request)
    async for message in talk:
        if message.type is WSMsgType.TEXT:
            await talk.send_str(f"back: {message.data}")
    return talk


class _PlainHTTP2(asyncio.Protocol):
    """Speaks HTTP/2 from the first byte, and closes on anything else."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = Connection()
        self._heads: dict[int, dict[str, str]] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        for event in self._connection.receive(data):
            if isinstance(event, RequestStarted):
                self._heads[event.stream_id] = {
                    key.decode(): value.decode() for key, value in event.headers
                }
            elif isinstance(event, RequestEnded):
                self._answer(event.stream_id)
        self._transport.write(self._connection.take_output())

    def _answer(self, stream_id: int) -> None:
        head = self._heads.pop(stream_id)
        plain = [item for item in head.items() if not item[0].startswith(":")]
        host = head.get(":authority", "")
        status, told = self._server.answer(head[":method"], head[":path"], host, plain)
        body = json.dumps(told).encode()
        block = literal(b":status", str(status).encode())
        block += literal(b"x-from", self._server.name.encode())
        self._connection.send(stream_id, block, body)
        self._connection.end(stream_id, literal(b"x-done", b"1"))


async def _start(server: Server, runners: list[web.AppRunner]) -> None:
    if server.protocol == "h2c":
        loop = asyncio.get_running_loop()
        plain = await loop.create_server(lambda: _PlainHTTP2(server), "127.0.0.1", 0)
        server.port = plain.sockets[0].getsockname()[1]
        return
    if server.context is not None:
        server.context.sni_callback = _remember_name
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server.port = listener.getsockname()[1]
    runner = web.AppRunner(_application(server), shutdown_timeout=0)
    runners.append(runner)
    await runner.setup()
    await web.SockSite(runner, listener, ssl_context=server.context).start()


@contextmanager
def running_servers(*servers: Server) -> Iterator[dict[str, Server]]:
    """The servers, each at a port of its own, in one thread."""
    loop = asyncio.new_event_loop()
    runners: list[web.AppRunner] = []
    for server in servers:
        loop.run_until_complete(_start(server, runners))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield {server.name: server for server in servers}
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


CUTS = 3
"""Connections that a cutting server closes before it answers one."""


@contextmanager
def cutting_server(name: str) -> Iterator[Server]:
    """A server that closes its first connections without a word, and answers from then on."""
    cut = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(name, port=listener.getsockname()[1])

        def serve() -> None:
            nonlocal cut
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    cut += 1
                    if cut > CUTS:
                        body = json.dumps({"name": name}).encode()
                        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n"
                        connection.sendall(head.encode() + b"connection: close\r\n\r\n" + body)

        threading.Thread(target=serve, daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
