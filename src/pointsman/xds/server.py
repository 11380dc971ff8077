"""Serves the aggregated discovery service to Envoys over a Unix socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from pointsman.gateway import snapshot
from pointsman.gateway.snapshot import Key, Snapshot
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.xds.session import Session

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"
STOP_GRACE_S = 0.5
RETRY_S = 5.0
"""How often a refused resource is tried again: a port may have become free."""
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
OUTBOX = 256
"""Responses that wait for the socket: one is in flight for each type, so a handful."""

log = logging.getLogger(__name__)


class DiscoveryServer:
    """What Envoys are told, and what they answered."""

    def __init__(self, on_facts: Callable[[EnvoyFacts], None]) -> None:
        self._served = Snapshot()
        self._streams: dict[Session, asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse]] = {}
        self._on_facts = on_facts
        self._facts = EnvoyFacts()

    @property
    def facts(self) -> EnvoyFacts:
        """What Envoys last said."""
        return self._facts

    def serve(self, found: Snapshot) -> None:
        """Tell every Envoy of these resources, now and when it connects."""
        self._served = found
        now = asyncio.get_running_loop().time()
        for session, outbox in self._streams.items():
            _put(outbox, session.update(self._served, now))
        self._report()

    def version(self, key: Key) -> str:
        """The version in which a resource is served; "" where it is not."""
        found = self._served.get(key)
        return found.version if found is not None else ""

    def is_acknowledged(self, key: Key) -> bool:
        """Whether every connected Envoy has taken that resource as it is."""
        return bool(self._streams) and all(session.acknowledged(key) for session in self._streams)

    @property
    def is_settled(self) -> bool:
        """An Envoy is connected, and every one has answered everything."""
        return bool(self._streams) and all(session.is_settled for session in self._streams)

    @asynccontextmanager
    async def listening(self, socket_path: Path) -> AsyncIterator[None]:
        """Serve on that Unix socket for as long as the context lasts."""
        options = [
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ]
        server = grpc.aio.server(options=options)
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            discovery_pb2.DeltaDiscoveryRequest.FromString,
            discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        server.add_insecure_port(f"unix:{socket_path}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(STOP_GRACE_S)

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        session = Session(self._served)
        outbox: asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse] = asyncio.Queue(OUTBOX)
        self._streams[session] = outbox
        reader = asyncio.create_task(self._read(requests, session, outbox))
        timer = asyncio.create_task(self._tick(session, outbox))
        log.debug("Envoy connected")
        getter = asyncio.create_task(outbox.get())
        try:
            while not reader.done():
                await asyncio.wait({getter, reader}, return_when=asyncio.FIRST_COMPLETED)
                if not getter.done():
                    break
                response = getter.result()
                getter = asyncio.create_task(outbox.get())
                yield response
        finally:
            del self._streams[session]
            for task in (reader, timer, getter):
                task.cancel()
                with suppress(asyncio.CancelledError, grpc.aio.UsageError):
                    await task
            self._report()
            log.debug("Envoy disconnected")

    async def _read(
        self,
        requests: AsyncIterator[Any],
        session: Session,
        outbox: asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse],
    ) -> None:
        loop = asyncio.get_running_loop()
        async for request in requests:
            _put(outbox, session.receive(request, loop.time()))
            self._report()

    async def _tick(
        self, session: Session, outbox: asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse]
    ) -> None:
        """Wake up when a wait ends, and now and then to try refused resources again."""
        loop = asyncio.get_running_loop()
        next_retry = loop.time() + RETRY_S
        while True:
            deadline = session.deadline()
            now = loop.time()
            wake = next_retry if deadline is None else min(next_retry, deadline)
            await asyncio.sleep(max(wake - now, 0.1))
            now = loop.time()
            if now >= next_retry:
                next_retry = now + RETRY_S
                for key in list(session.refused):
                    _put(outbox, session.retry(key, now))
            _put(outbox, session.poll(now))

    def _report(self) -> None:
        refused: dict[Key, str] = {}
        for session in self._streams:
            refused.update(session.refused)
        listeners = frozenset(
            item.key.name
            for item in self._served.of_type(snapshot.LISTENER)
            if self.is_acknowledged(item.key)
        )
        facts = EnvoyFacts(len(self._streams), 1, listeners, refused)
        for key in refused.keys() - self._facts.refused.keys():
            log.warning("Envoy refused %s: %s", key.name, refused[key])
        if facts != self._facts:
            self._facts = facts
            self._on_facts(facts)


def _put(
    outbox: asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse],
    responses: list[discovery_pb2.DeltaDiscoveryResponse],
) -> None:
    for response in responses:
        outbox.put_nowait(response)
