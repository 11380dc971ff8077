"""Connections that are reset as they begin cost no other connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from pointsman.sources.kubernetes.access import Connection
from pointsman.sources.kubernetes.api import Api, ApiError

TRIES = 4000
AT_ONCE = 40
DEADLINES_S = (0.005, 0.02, 0.1)
MORE_FILES = 64
"""What a loop has open at one time beside what was open before."""


class Way:
    """To an API server at a port of this machine."""

    namespace = "default"

    def __init__(self, port: int) -> None:
        self._connection = Connection(f"https://127.0.0.1:{port}", ssl.create_default_context())

    async def connection(self, *, renew: bool = False) -> Connection:
        return self._connection


@contextmanager
def resetting() -> Iterator[int]:
    """The port of a server that resets each connection, some at once and some a moment later."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)

    def serve() -> None:
        for number in range(TRIES * 10):
            try:
                found, _ = listener.accept()
            except OSError:
                return
            if number % 3 == 0:
                time.sleep(0.001)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            found.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


FILES = Path("/proc/self/fd")


def open_files() -> int:
    return len(list(FILES.iterdir()))


@pytest.mark.skipif(not FILES.is_dir(), reason="needs /proc")
def test_an_api_server_that_resets_connections_breaks_no_other() -> None:
    async def scene(port: int) -> Counter[str]:
        found: Counter[str] = Counter()
        async with Api(Way(port)) as api:

            async def ask(numbers: range) -> None:
                for number in numbers:
                    try:
                        async with asyncio.timeout(DEADLINES_S[number % len(DEADLINES_S)]):
                            await api.get("/api")
                    except (ApiError, TimeoutError) as error:
                        found[type(error).__name__] += 1

            await asyncio.gather(*(ask(range(n, TRIES, AT_ONCE)) for n in range(AT_ONCE)))
            assert open_files() < before + MORE_FILES
        return found

    before = open_files()
    with resetting() as port:
        found = uvloop.run(scene(port))
    assert found.total() == TRIES
    assert found["ApiError"] > AT_ONCE
