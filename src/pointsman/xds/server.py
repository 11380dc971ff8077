"""Serves the aggregated discovery service to Envoys: each is told what its fleet is served.

On one machine over a Unix socket. In a cluster over mutual TLS: there a certificate says of which
fleet an Envoy is, whatever it says itself, so that none gets at the certificates of another.

A fleet that is served no more, or not yet, is not told that there is nothing: its Envoys keep what
they have, and ask again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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

FleetOf = Callable[[Mapping[str, Iterable[bytes]]], str | None]
"""The fleet that a client's certificate is for, from gRPC's authentication context."""

LEAST_PING_S = 1.0
"""How often an Envoy may ask whether we are there. By gRPC's own measure (5 minutes) every quiet
stream would be ended at the fourth time."""
PING_S = 60.0
"""How often we ask, so that the stream of an Envoy whose machine is gone does not stay for ever."""
PING_ANSWER_S = 20.0

_NOTHING = Snapshot()
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", int(LEAST_PING_S * 1000)),
    ("grpc.keepalive_time_ms", int(PING_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(PING_ANSWER_S * 1000)),
)

log = logging.getLogger(__name__)


Outbox = asyncio.Queue[discovery_pb2.DeltaDiscoveryResponse]
Served = Mapping[str, Snapshot]
"""What is served, by fleet."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """One Envoy's."""

    fleet: str
    outbox: Outbox


class DiscoveryServer:
    """What Envoys are told, and what they answered."""

    def __init__(self, on_facts: Callable[[EnvoyFacts], None]) -> None:
        self._served: Served = {}
        self._streams: dict[Session, _Stream] = {}
        self._begun: set[Session] = set()
        """Of the Envoys that had every listener once; who has just come says nothing of them."""
        self._on_facts = on_facts
        self._facts = EnvoyFacts()

    @property
    def facts(self) -> EnvoyFacts:
        """What Envoys last said."""
        return self._facts

    def serve(self, found: Served) -> None:
        """Tell the Envoys of each fleet of its resources, now and when they connect."""
        self._served = found
        now = asyncio.get_running_loop().time()
        for session, stream in self._streams.items():
            if stream.fleet in found:
                _put(stream.outbox, session.update(found[stream.fleet], now))
        self._report()

    def version(self, key: Key) -> str:
        """The version in which a resource is served; "" where it is not."""
        found = next((item.get(key) for item in self._served.values() if item.get(key)), None)
        return found.version if found is not None else ""

    def is_acknowledged(self, key: Key) -> bool:
        """Whether every Envoy that is served that resource has taken it as it is.

        Those that are only beginning do not count.
        """
        asked = [
            session
            for session, stream in self._streams.items()
            if session in self._begun
            and self._served.get(stream.fleet, _NOTHING).get(key) is not None
        ]
        return bool(asked) and all(session.acknowledged(key) for session in asked)

    @property
    def is_settled(self) -> bool:
        """An Envoy is connected, and every one has answered everything."""
        return bool(self._streams) and all(session.is_settled for session in self._streams)

    @asynccontextmanager
    async def listening(self, socket_path: Path) -> AsyncIterator[None]:
        """Serve on that Unix socket for as long as the context lasts."""
        server = self._server(None)
        server.add_insecure_port(f"unix:{socket_path}")
        async with _started(server):
            yield

    @asynccontextmanager
    async def listening_tls(
        self, address: str, credentials: grpc.ServerCredentials, fleet_of: FleetOf
    ) -> AsyncIterator[int]:
        """Serve at `host:port` to whom `fleet_of` tells a fleet, by the certificate that it shows.

        Yields the port.
        """
        server = self._server(fleet_of)
        port = server.add_secure_port(address, credentials)
        async with _started(server):
            yield port

    def _server(self, fleet_of: FleetOf | None) -> Any:
        async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            first = await anext(aiter(requests), None)
            if first is None:
                return
            fleet = first.node.cluster
            if fleet_of is not None and fleet != fleet_of(context.auth_context()):
                log.warning("An Envoy says that it is of %r, and its certificate does not", fleet)
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not of that fleet")
            if fleet not in self._served:
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"{fleet} is not served")
            async for response in self._stream(first, requests, fleet):
                yield response

        server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_stream_rpc_method_handler(
            stream,
            discovery_pb2.DeltaDiscoveryRequest.FromString,
            discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
        )
        return server

    async def _stream(
        self, first: Any, requests: AsyncIterator[Any], fleet: str
    ) -> AsyncIterator[Any]:
        session = Session(self._served[fleet])
        outbox: Outbox = asyncio.Queue(OUTBOX)
        self._streams[session] = _Stream(fleet, outbox)
        self._take(first, session, outbox)
        reader = asyncio.create_task(self._read(requests, session, outbox))
        timer = asyncio.create_task(self._tick(session, outbox))
        log.debug("An Envoy of %s has connected", fleet)
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
            self._begun.discard(session)
            for task in (reader, timer, getter):
                task.cancel()
                with suppress(asyncio.CancelledError, grpc.aio.UsageError):
                    await task
            self._report()
            log.debug("An Envoy of %s has gone", fleet)

    async def _read(self, requests: AsyncIterator[Any], session: Session, outbox: Outbox) -> None:
        async for request in requests:
            self._take(request, session, outbox)

    def _take(self, request: Any, session: Session, outbox: Outbox) -> None:
        _put(outbox, session.receive(request, asyncio.get_running_loop().time()))
        if session.has_listeners:
            self._begun.add(session)
        self._report()

    async def _tick(self, session: Session, outbox: Outbox) -> None:
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
            for served in self._served.values()
            for item in served.of_type(snapshot.LISTENER)
            if self.is_acknowledged(item.key)
        )
        facts = EnvoyFacts(
            connected=len(self._streams),
            connected_of=Counter(self._streams[session].fleet for session in self._begun),
            listeners=listeners,
            refused=refused,
        )
        for key in refused.keys() - self._facts.refused.keys():
            log.warning("Envoy refused %s: %s", key.name, refused[key])
        if facts != self._facts:
            self._facts = facts
            self._on_facts(facts)


@asynccontextmanager
async def _started(server: Any) -> AsyncIterator[None]:
    await server.start()
    try:
        yield
    finally:
        await server.stop(STOP_GRACE_S)


def _put(outbox: Outbox, responses: list[discovery_pb2.DeltaDiscoveryResponse]) -> None:
    for response in responses:
        outbox.put_nowait(response)
