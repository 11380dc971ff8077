"""Connections of a Service: what comes in at its address goes on to one of its endpoints."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

CONNECT_S = 1.5
BACKLOG = 1024

_log = logging.getLogger("node.proxy")


@dataclass(frozen=True)
class Target:
    """One endpoint of a port of a Service."""

    host: str
    port: int


MakeSocket = Callable[[], socket.socket]


class Forwarder:
    """Listens at one address and port while there is somebody to go on to, in turn.

    Without a target nobody listens, so a connection is refused, as it is where kube-proxy has no
    endpoint. A target that refuses costs its turn. Connections that stand outlive a change of the
    targets.
    """

    def __init__(self, listen: Callable[[], socket.socket], make_socket: MakeSocket) -> None:
        self._listen = listen
        self._make_socket = make_socket
        self._targets: tuple[Target, ...] = ()
        self._turn = itertools.count()
        self._server: asyncio.Server | None = None
        self._held: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    async def lead_to(self, targets: Sequence[Target]) -> None:
        """From now on new connections go to these.

        Raises:
            OSError: the address is taken.
        """
        async with self._lock:
            self._targets = tuple(targets)
            if targets and self._server is None:
                loop = asyncio.get_running_loop()
                self._server = await loop.create_server(
                    lambda: _Side(self._accepted), sock=self._listen(), backlog=BACKLOG
                )
            elif not targets and self._server is not None:
                self._server.close()
                self._server = None

    async def close(self) -> None:
        """Nobody listens any more."""
        await self.lead_to(())

    def _accepted(self, client: _Side) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._held.add(task)
        task.add_done_callback(self._held.discard)

    async def _connect(self, client: _Side) -> None:
        loop = asyncio.get_running_loop()
        targets = self._targets
        first = next(self._turn)
        for step in range(len(targets)):
            target = targets[(first + step) % len(targets)]
            made = self._make_socket()
            try:
                async with asyncio.timeout(CONNECT_S):
                    await loop.sock_connect(made, (target.host, target.port))
            except (OSError, TimeoutError):
                made.close()
                continue
            _, server = await loop.create_connection(lambda: _Side(None), sock=made)
            client.join(server)
            return
        client.reset()


class _Side(asyncio.Protocol):
    """One end of a connection that goes on to another, and reads no faster than that one writes."""

    def __init__(self, accepted: Callable[[_Side], None] | None) -> None:
        self._accepted = accepted
        self._other: _Side | None = None
        self._transport: asyncio.Transport | None = None
        self._has_ended = False
        self._is_read = False
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of no class of asyncio.
        self._transport = cast("asyncio.Transport", transport)
        made = transport.get_extra_info("socket")
        with suppress(OSError):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Nothing is read before there is somewhere to write it to; uvloop may read once more.
        self._transport.pause_reading()
        if self._accepted is not None:
            self._accepted(self)

    def join(self, other: _Side) -> None:
        self._other, other._other = other, self
        for side in (self, other):
            if side._early:
                side.data_received(side._early)
                side._early = b""
            if side._has_ended:
                side.connection_lost(None)
            elif side._is_read:
                side.eof_received()
        for side in (self, other):
            if side._transport is not None and not side._transport.is_closing():
                side._transport.resume_reading()

    def reset(self) -> None:
        if self._transport is not None:
            made = self._transport.get_extra_info("socket")
            with suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early += data
            if self._transport is not None:
                self._transport.pause_reading()
        elif self._other._transport is not None:
            self._other._transport.write(data)

    def eof_received(self) -> bool:
        self._is_read = True
        other = self._other
        if other is None or other._transport is None:
            return other is None
        if other._is_read:
            # Both have said all; what is still in a buffer is written before the end.
            other._transport.close()
            return False
        with suppress(OSError, RuntimeError):
            other._transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._has_ended = True
        other = self._other
        if other is None or other._transport is None:
            return
        if error is not None:
            other._transport.abort()
        else:
            other._transport.close()
