"""What the picker costs while nobody asks it: reading the metrics of many model servers.

    PYTHONPATH=. python benchmarks/picker_idle.py [--endpoints 100] [--seconds 10]

One process is all the servers, on an address of its own each, with as much text as a loaded vLLM
shows. The CPU of the picker's process is printed beside that of the process that serves the text.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks import picker_envoy

LINES = 1_200
"""Beside those that count; 55 KB with them."""


def metrics() -> bytes:
    """What a server answers, whatever it is asked."""
    counted = (
        b'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0\n'
        b'vllm:num_requests_running{engine="0",model_name="m"} 3.0\n'
        b'vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25\n'
    )
    others = (b'vllm:other_%d{engine="0",model_name="m"} 1.0\n' % number for number in range(LINES))
    body = b"".join(others) + counted
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class Server(asyncio.Protocol):
    """One connection."""

    answer = metrics()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A request is one write of the picker's."""
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(self.answer * data.count(b"\r\n\r\n"))


async def serve(port: int) -> None:
    """Be all the servers."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Server, "0.0.0.0", port)  # a hundred addresses at once
    await loop.connect_read_pipe(picker_envoy.Ended, sys.stdin)
    await picker_envoy.Ended.event.wait()


def main() -> None:
    """Print the figures, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--port", type=int, default=21900)
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--pick", metavar="FOLDER")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(options.port))
        return
    picker_envoy.ENDPOINTS = options.endpoints
    if options.pick:
        uvloop.run(picker_envoy.pick(Path(options.pick), options.port, "m"))
        return
    given = (f"--endpoints={options.endpoints}", f"--port={options.port}")
    with (
        tempfile.TemporaryDirectory(prefix="pm-") as name,
        picker_envoy.child(sys.executable, __file__, "--serve", *given) as servers,
        picker_envoy.child(sys.executable, __file__, "--pick", name, *given) as picker,
    ):
        picker_envoy.wait_for(Path(name) / "p.sock")
        time.sleep(3)
        before = [picker_envoy.cpu_s(process.pid) for process in (picker, servers)]
        time.sleep(options.seconds)
        after = [picker_envoy.cpu_s(process.pid) for process in (picker, servers)]
    idle, serving = ((new - old) / options.seconds for old, new in zip(before, after, strict=True))
    print(
        f"idle with {options.endpoints} endpoints: {idle:.3f} cores; the process that serves their "
        f"metrics: {serving:.3f}; ratio {idle / serving:.1f}"
    )


if __name__ == "__main__":
    main()
