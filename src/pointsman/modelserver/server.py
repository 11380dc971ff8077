"""Listeners: any number of replicas in one process, each on its own address."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from pointsman.modelserver.api.service import Service
from pointsman.modelserver.drain import finish_running, patience_s, refuse_new
from pointsman.modelserver.options import ServerOptions
from pointsman.modelserver.outlet import Outlet
from pointsman.modelserver.prose import Prose
from pointsman.modelserver.replica import Replica
from pointsman.modelserver.tokens import Tokenizer

_log = logging.getLogger(__name__)

_KEEPALIVE_S = 75.0
_BACKLOG = 1024
_STANDARD_INPUT = 0
_CONNECTION_CLOSE_S = 1.0
"""How long open connections may take to close once their requests are over."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one replica listens."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def addresses(host: str, port: int, replicas: int, *, by_host: bool) -> list[Address]:
    """One address per replica: consecutive ports or, `by_host`, consecutive IP addresses.

    Port 0 lets the system choose each port.

    Raises:
        ValueError: if the host is a name and addresses by host are wanted, or ports run out.
    """
    if by_host:
        first = ipaddress.ip_address(host)
        return [Address(str(first + number), port) for number in range(replicas)]
    if port == 0:
        return [Address(host, 0)] * replicas
    if port + replicas - 1 > 65_535:
        raise ValueError(f"{replicas} replicas from port {port} exceed port 65535")
    return [Address(host, port + number) for number in range(replicas)]


class Listener:
    """A replica and the socket on which it answers."""

    def __init__(self, replica: Replica, address: Address) -> None:
        self.replica = replica
        self.address = address
        self._runner: web.ServerRunner | None = None
        self._site: web.TCPSite | None = None

    async def open(self) -> None:
        """Begins to listen.

        Raises:
            OSError: if the address cannot be bound.
        """
        limit = self.replica.options.max_body_bytes

        loop = asyncio.get_running_loop()

        def make_request(
            message: Any, payload: Any, protocol: Any, writer: Any, task: Any
        ) -> web.BaseRequest:
            return web.BaseRequest(
                message, payload, protocol, writer, task, loop, client_max_size=limit
            )

        server = web.Server(
            Service(self.replica).handle,
            request_factory=make_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_S,
        )
        self._runner = web.ServerRunner(
            server, handle_signals=False, shutdown_timeout=_CONNECTION_CLOSE_S
        )
        await self._runner.setup()
        self._site = web.TCPSite(
            self._runner, self.address.host, self.address.port, backlog=_BACKLOG
        )
        await self._site.start()
        if self.address.port == 0:
            bound = self._runner.addresses[0]
            self.address = Address(self.address.host, bound[1])

    async def stop_listening(self) -> None:
        """Closes the port; open connections stay."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def close(self) -> None:
        """Closes the port and every connection."""
        self._site = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


@asynccontextmanager
async def running(options: ServerOptions, where: list[Address]) -> AsyncIterator[list[Listener]]:
    """Serves one replica per address for as long as the context is open, then ends at once.

    Raises:
        OSError: if an address cannot be bound; those opened before are closed again.
    """
    listeners: list[Listener] = []
    outlets: list[Outlet] = []
    try:
        prose = Prose(Tokenizer())
        for number, address in enumerate(where):
            listener = Listener(Replica(options, prose, number), address)
            listeners.append(listener)
            outlets.append(Outlet(listener.replica))
            await listener.open()
        yield listeners
    finally:
        for listener in listeners:
            listener.replica.driver.stop()
        await asyncio.gather(*(listener.close() for listener in listeners))
        for outlet in outlets:
            await outlet.close()


async def drain(listeners: list[Listener], hurry: asyncio.Event) -> None:
    """Ends what runs in the way that the options ask for, or at once when `hurry` is set."""
    replicas = [listener.replica for listener in listeners]
    timeout_s = patience_s(replicas[0].options)
    if timeout_s > 0:
        for replica in replicas:
            refuse_new(replica)
    else:
        await asyncio.gather(*(listener.stop_listening() for listener in listeners))
    finishing = asyncio.create_task(finish_running(replicas, timeout_s))
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait((finishing, hurrying), return_when=asyncio.FIRST_COMPLETED)
    for task in (finishing, hurrying):
        task.cancel()
    await asyncio.gather(finishing, hurrying, return_exceptions=True)


def on_end_of_input(stop: Callable[[], None]) -> None:
    """Calls `stop` in the running loop when standard input ends, that is when the parent died."""
    loop = asyncio.get_running_loop()

    def watch() -> None:
        try:
            while os.read(_STANDARD_INPUT, 4096):
                pass
        except OSError as error:
            _log.debug("standard input cannot be read: %s", error)
        # The loop may be closed by now, when the process is ending anyway.
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop)

    threading.Thread(target=watch, name="end-of-input", daemon=True).start()


async def _is_told_within(stop: asyncio.Event, delay_s: float) -> bool:
    """Waits as long as the weights would take to load, unless told to stop before."""
    if not delay_s:
        return False
    try:
        async with asyncio.timeout(delay_s):
            return await stop.wait()
    except TimeoutError:
        return False


async def serve(
    options: ServerOptions,
    where: list[Address],
    *,
    exits_with_parent: bool,
    ready: Callable[[list[Listener]], None],
) -> None:
    """Serves until SIGTERM, SIGINT or, if asked for, the end of standard input; then drains."""
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()

    def told() -> None:
        """The first signal drains, the second ends."""
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    if exits_with_parent:
        on_end_of_input(stop.set)
    if await _is_told_within(stop, options.startup_delay_s):
        return
    async with running(options, where) as listeners:
        ready(listeners)
        await stop.wait()
        await drain(listeners, hurry)
