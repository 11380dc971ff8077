"""How much one model server process carries on one core.

    python benchmarks/modelserver.py [--seconds 5]

Each row is measured against the floor: the least that the same web framework can do, an aiohttp
server on the same core that reads a JSON body and answers with a constant (or streams constant
chunks). The server runs in a process of its own, pinned to one core where the system allows it;
the clients run in this process on the others. Rates are given per second of wall time and per
second of the server's own CPU time; the latter is what one core would carry if the clients could
keep up, and is the fair number where clients and server share a machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop
from aiohttp import web

_ANSWER_TOKENS = 8
_STREAM_TOKENS = 200
_READY_S = 10.0
_CONNECTIONS = 256


@dataclass(frozen=True)
class Rate:
    """What was served, and what it took."""

    count: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Per second of wall time."""
        return self.count / self.wall_s

    @property
    def per_cpu_s(self) -> float:
        """Per second of the server's CPU time."""
        return self.count / max(self.cpu_s, 1e-9)


class Client(asyncio.Protocol):
    """One connection that sends the same request again and again, and counts.

    It reads no more than it has to: the end of an answer by its marker, chunks by their `data:`.
    """

    def __init__(self, request: bytes, *, streams: bool) -> None:
        self._request = request
        self._end = b"data: [DONE]" if streams else b"}"
        self._streams = streams
        self._tail = b""
        self.is_stopped = False
        self.requests = 0
        self.chunks = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the first request."""
        # uvloop's transports do not derive from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Counts, and asks again when an answer is complete."""
        if self._streams:
            self.chunks += data.count(b"data: {")
            window = self._tail + data
            self._tail = window[-16:]
            is_over = self._end in window and window.endswith(b"0\r\n\r\n")
        else:
            is_over = data.endswith(self._end)
        if is_over:
            self.requests += 1
            self._tail = b""
            if not self.is_stopped and self.transport is not None:
                self.transport.write(self._request)


def request_for(body: dict[str, object]) -> bytes:
    """A completion request as bytes."""
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Resident memory of a process (Linux)."""
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def measure(
    pid: int, port: int, body: dict[str, object], connections: int, seconds: float
) -> tuple[Rate, Rate]:
    """Requests and chunks that a server answers in a while, after a warm-up."""
    loop = asyncio.get_running_loop()
    request = request_for(body)
    clients = [Client(request, streams=bool(body.get("stream"))) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.sleep(min(1.0, seconds / 4))
    requests = sum(client.requests for client in clients)
    chunks = sum(client.chunks for client in clients)
    cpu, started = cpu_s(pid), time.perf_counter()
    await asyncio.sleep(seconds)
    wall = time.perf_counter() - started
    used = cpu_s(pid) - cpu
    requests = sum(client.requests for client in clients) - requests
    chunks = sum(client.chunks for client in clients) - chunks
    for client in clients:
        client.is_stopped = True
        if client.transport is not None:
            client.transport.close()
    return Rate(requests, wall, used), Rate(chunks, wall, used)


async def serve_floor() -> None:
    """The least an aiohttp server can do with such requests."""
    plain = b'{"id":"x","choices":[{"index":0,"text":"constant"}]}'
    chunk = b'data: {"id":"x","choices":[{"index":0,"text":" word"}]}\n\n'

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = json.loads(await request.read())
        if not body.get("stream"):
            return web.Response(body=plain, content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(_STREAM_TOKENS):
            await response.write(chunk)
            await asyncio.sleep(0)
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"ready on http://127.0.0.1:{runner.addresses[0][1]}", file=sys.stderr, flush=True)
    await asyncio.sleep(3600)


class Server:
    """A server process on a core of its own."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self.pid, {max(os.sched_getaffinity(0))})
        self.port = self._port()

    def _port(self) -> int:
        assert self._process.stderr is not None
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            for word in self._process.stderr.readline().split():
                if word.startswith("http://"):
                    return int(word.rpartition(":")[2])
        raise TimeoutError("the server did not become ready")

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def short_answer() -> dict[str, object]:
    """A request for a few tokens."""
    return {"prompt": "Say it.", "max_tokens": _ANSWER_TOKENS, "ignore_eos": True}


def long_stream() -> dict[str, object]:
    """A request for a long stream."""
    return {"prompt": "Say it.", "max_tokens": _STREAM_TOKENS, "ignore_eos": True, "stream": True}


async def compare(seconds: float) -> None:
    """Measures everything and prints the table."""
    start = "from pointsman.cli.main import main; main()"
    ours = [sys.executable, "-c", start, "modelserver", "--port", "0"]
    ours += ["--step-sequence-us", "0", "--step-context-ns", "0"]
    floor = [sys.executable, __file__, "--serve-floor"]
    rows: list[tuple[str, Rate, Rate]] = []
    with Server(floor) as least:
        plain_floor, _ = await measure(least.pid, least.port, short_answer(), _CONNECTIONS, seconds)
        _, stream_floor = await measure(least.pid, least.port, long_stream(), _CONNECTIONS, seconds)
    # An engine that is never the limit: a millisecond a step. Streams that fall behind get several
    # chunks with one write.
    with Server([*ours, "--step-base-ms", "1"]) as server:
        plain, _ = await measure(server.pid, server.port, short_answer(), _CONNECTIONS, seconds)
        rows.append((f"answers of {_ANSWER_TOKENS} tokens", plain, plain_floor))
        _, streamed = await measure(server.pid, server.port, long_stream(), _CONNECTIONS, seconds)
        rows.append(("streamed chunks, at most", streamed, stream_floor))
    # Paced by the engine, so that every chunk is a write of its own.
    with Server([*ours, "--step-base-ms", "6"]) as server:
        _, paced = await measure(server.pid, server.port, long_stream(), _CONNECTIONS, seconds)
        rows.append((f"streamed chunks, {_CONNECTIONS} every 6 ms", paced, stream_floor))
    with Server([*ours, "--replicas", "100"]) as many:
        before = cpu_s(many.pid)
        await asyncio.sleep(seconds)
        idle_share = (cpu_s(many.pid) - before) / seconds
        resident = resident_bytes(many.pid)
    print(f"{'':38}{'per s':>10}{'per CPU s':>12}{'floor per CPU s':>18}{'ratio':>8}")
    for name, rate, least_rate in rows:
        print(
            f"{name:38}{rate.per_s:10,.0f}{rate.per_cpu_s:12,.0f}{least_rate.per_cpu_s:18,.0f}"
            f"{rate.per_cpu_s / least_rate.per_cpu_s:8.2f}"
        )
    print(f"100 idle replicas: {idle_share:.2%} of a core, {resident / 1e6:.0f} MB resident")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    parser.add_argument("--serve-floor", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    uvloop.run(serve_floor() if arguments.serve_floor else compare(arguments.seconds))


if __name__ == "__main__":
    main()
