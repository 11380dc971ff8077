"""The socket around `http2` and `grpc`: an asyncio protocol, and a server that owns listeners."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from pointsman.wire.grpc import Channel, Method
from pointsman.wire.http2 import Connection, Limits

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1_024
"""Of one server; what comes above is hung up on."""
PREFACE_TIMEOUT_S = 10.0
"""How long a peer may take to say its first word."""
FORGIVE_INTERVAL_S = 10.0
"""The time in which `Limits.max_idle_frames` may come."""
BACKLOG = 1_024


class _Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, methods: Mapping[bytes, Method], limits: Limits, server: GrpcServer) -> None:
        self.connection = Connection(limits)
        self.channel = Channel(methods, self.connection, self.flush)
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.admit(self):
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(PREFACE_TIMEOUT_S, self._transport.abort)
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.channel.receive(data)
        self.flush()

    def flush(self) -> None:
        """Write what is to be written."""
        transport = self._transport
        if transport is None:
            return
        output = self.connection.take_output()
        if output:
            transport.write(output)
        if self.connection.is_closing:
            transport.close()
            self.channel.lose()

    def pause_writing(self) -> None:
        self.connection.set_writable(False)

    def resume_writing(self) -> None:
        self.connection.set_writable(True)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._transport = None
        self.channel.lose()
        self._server.dismiss(self)

    def announce_end(self) -> None:
        """Ask for new streams to be opened elsewhere."""
        self.connection.announce_end()
        self.flush()

    def drain(self) -> None:
        """Announce that no new streams are taken."""
        self.connection.drain()
        self.flush()

    def hang_up(self) -> None:
        """Close after what is buffered has been written."""
        if self._transport is not None:
            self._transport.close()


class GrpcServer:
    """Listeners that serve the same methods; an async context manager that owns them.

    Listen on as many addresses as wanted after entering. Leaving closes the listeners and every
    connection; call `drain` first to end calls in good order.
    """

    def __init__(self, methods: Mapping[bytes, Method], limits: Limits | None = None) -> None:
        self._methods = methods
        self._limits = limits if limits is not None else Limits()
        self._servers: list[asyncio.Server] = []
        self._sessions: set[_Session] = set()
        self._forgiving: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._forgive()
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._forgiving is not None:
            self._forgiving.cancel()
        for server in self._servers:
            server.close()
        for session in tuple(self._sessions):
            session.hang_up()

    @property
    def open_calls(self) -> int:
        """Calls that are open on all connections."""
        return sum(session.channel.open_calls for session in self._sessions)

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._sessions)

    async def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket; a stale file of that name is replaced."""
        path.unlink(missing_ok=True)  # noqa: ASYNC240  # one call, on a local file system
        loop = asyncio.get_running_loop()
        self._servers.append(
            await loop.create_unix_server(self._session, str(path), backlog=BACKLOG)
        )

    async def listen_tcp(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Listen on a TCP port; returns it (the one that was found free when 0 was asked for)."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._session, host, port, ssl=tls, backlog=BACKLOG)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def admit(self, session: _Session) -> bool:
        """Count a connection in, unless there are too many."""
        if len(self._sessions) >= MAX_CONNECTIONS:
            log.warning("A connection was refused: %d are open", len(self._sessions))
            return False
        self._sessions.add(session)
        return True

    def dismiss(self, session: _Session) -> None:
        """A connection has gone."""
        self._sessions.discard(session)

    def announce_end(self) -> None:
        """Ask all peers to open their next calls elsewhere; what comes here still is served."""
        for session in tuple(self._sessions):
            session.announce_end()

    def drain(self) -> None:
        """Take no new connections nor calls."""
        for server in self._servers:
            server.close()
        for session in tuple(self._sessions):
            session.drain()

    def _forgive(self) -> None:
        for session in self._sessions:
            session.connection.forgive()
        loop = asyncio.get_running_loop()
        self._forgiving = loop.call_later(FORGIVE_INTERVAL_S, self._forgive)

    def _session(self) -> _Session:
        return _Session(self._methods, self._limits, self)
