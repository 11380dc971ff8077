"""gRPC over an HTTP/2 connection, server side, without a socket.

A method is a function that takes a `Responder` and returns a `Call`; the call hears of each message
and of the end, and answers through the responder at any time. The rules (gRPC over HTTP/2):

- Each message has a head of five bytes: compressed or not, and its length. Compressed messages are
  refused with UNIMPLEMENTED, since the server never offers an encoding.
- The answer's header block goes out before its first message, with it in one write.
- Every call ends with trailers that carry a status, also a call that broke a rule: a reset would
  count against this server in the gateway's outlier detection.
- `Call.gone` is called exactly once for each call: when the client has reset the stream, when the
  connection is lost, or when the client has ended its side and we have ended ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Protocol
from urllib.parse import quote

from pointsman.wire.headers import Headers, literal
from pointsman.wire.http2 import (
    Connection,
    DataReceived,
    Event,
    RequestEnded,
    RequestStarted,
)

log = logging.getLogger(__name__)

MAX_PARTIAL_BYTES = 512 * 1024 * 1024
"""Of messages that are not complete, all calls of a connection together."""
MESSAGE_HEAD_BYTES = 5

RESPONSE_BLOCK = b"\x88" + literal(b"content-type", b"application/grpc")
"""`:status: 200` from HPACK's static table, and the content type."""


class Status(IntEnum):
    """How a call ended (the few that this server uses)."""

    OK = 0
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class Call(Protocol):
    """One call as its method sees it."""

    def received(self, message: bytes) -> None:
        """One message came."""

    def half_closed(self) -> None:
        """The client will send no more messages."""

    def gone(self) -> None:
        """Nothing can be sent any more; comes exactly once."""


Method = Callable[["Responder"], Call]


def trailers(status: Status, message: str = "") -> bytes:
    """The block of trailers that ends a call."""
    block = literal(b"grpc-status", str(int(status)).encode())
    if message:
        block += literal(b"grpc-message", quote(message[:1024], safe=" /:;,.()'=").encode())
    return block


OK_TRAILERS = trailers(Status.OK)


def framed(message: bytes) -> bytes:
    """A message with its head."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Responder:
    """The way to answer one call."""

    __slots__ = ("_channel", "_has_headers", "_stream_id", "is_finished", "metadata")

    def __init__(self, channel: Channel, stream_id: int, metadata: Headers) -> None:
        self._channel = channel
        self._stream_id = stream_id
        self._has_headers = False
        self.is_finished = False
        self.metadata = metadata
        """The request's headers and initial metadata, pseudo headers too."""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, or None."""
        for key, value in self.metadata:
            if key == name:
                return value
        return None

    def send(self, *messages: bytes) -> None:
        """Send messages, in one write; silently nothing once the call has ended."""
        if self.is_finished:
            return
        data = framed(messages[0]) if len(messages) == 1 else b"".join(map(framed, messages))
        limit = self._channel.max_sent_bytes
        if len(data) > limit and max(map(len, messages)) > limit:
            self.finish(Status.RESOURCE_EXHAUSTED, "an answer is larger than may be sent")
            return
        block = None if self._has_headers else RESPONSE_BLOCK
        self._has_headers = True
        self._channel.send(self._stream_id, block, data)

    def finish(self, status: Status = Status.OK, message: str = "") -> None:
        """End the call; the first ending counts."""
        if self.is_finished:
            return
        self.is_finished = True
        block = OK_TRAILERS if status is Status.OK and not message else trailers(status, message)
        if not self._has_headers:
            block = RESPONSE_BLOCK + block
        self._channel.finish(self._stream_id, block)


class _Open:
    """A call that is open, with what has come of its next message."""

    __slots__ = ("call", "have", "is_remote_done", "need", "parts", "responder")

    def __init__(self, call: Call, responder: Responder) -> None:
        self.call = call
        self.responder = responder
        self.parts: list[bytes] = []
        self.have = 0
        self.need = MESSAGE_HEAD_BYTES
        self.is_remote_done = False


class Channel:
    """The calls of one connection.

    `flush` is called when something was sent while no bytes were being received; whoever owns the
    socket writes the output then.
    """

    def __init__(
        self,
        methods: Mapping[bytes, Method],
        connection: Connection,
        flush: Callable[[], None],
    ) -> None:
        self._methods = methods
        self._connection = connection
        self._flush = flush
        self._max_received_bytes = connection.limits.max_received_message_bytes
        self.max_sent_bytes = connection.limits.max_sent_message_bytes
        """Of one message."""
        self._calls: dict[int, _Open] = {}
        self._partial_bytes = 0
        self._is_receiving = False

    @property
    def open_calls(self) -> int:
        """Calls that have not gone."""
        return len(self._calls)

    def receive(self, data: bytes) -> None:
        """Take in what the socket gave. The output is to be written afterwards."""
        self._is_receiving = True
        try:
            for event in self._connection.receive(data):
                self._on_event(event)
        finally:
            self._is_receiving = False

    def lose(self) -> None:
        """The connection is lost: every call is gone."""
        calls, self._calls = self._calls, {}
        self._partial_bytes = 0
        for opened in calls.values():
            opened.responder.is_finished = True
            self._guarded(opened, opened.call.gone)

    def send(self, stream_id: int, block: bytes | None, data: bytes) -> None:
        """Send for a responder."""
        if self._connection.queued_bytes > self._connection.limits.max_queued_bytes:
            opened = self._calls.get(stream_id)
            if opened is not None:
                opened.responder.finish(Status.RESOURCE_EXHAUSTED, "the peer reads too slowly")
            return
        self._connection.send(stream_id, block, data)
        if not self._is_receiving:
            self._flush()

    def finish(self, stream_id: int, block: bytes) -> None:
        """End a stream for a responder."""
        self._connection.end(stream_id, block)
        opened = self._calls.get(stream_id)
        if opened is not None and opened.is_remote_done:
            self._go(stream_id)
        if not self._is_receiving:
            self._flush()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            opened = self._calls.get(event.stream_id)
            if opened is not None and not opened.responder.is_finished:
                self._on_data(opened, event.data)
        elif isinstance(event, RequestStarted):
            self._start(event)
        elif isinstance(event, RequestEnded):
            opened = self._calls.get(event.stream_id)
            if opened is not None:
                opened.is_remote_done = True
                if opened.responder.is_finished:
                    self._go(event.stream_id)
                else:
                    self._guarded(opened, opened.call.half_closed)
        else:
            self._go(event.stream_id)

    def _go(self, stream_id: int) -> None:
        opened = self._calls.pop(stream_id, None)
        if opened is not None:
            self._forget_partial(opened)
            opened.responder.is_finished = True
            self._guarded(opened, opened.call.gone)

    def _start(self, event: RequestStarted) -> None:
        responder = Responder(self, event.stream_id, event.headers)
        method = self._methods.get(responder.header(b":path") or b"")
        if method is None:
            responder.finish(Status.UNIMPLEMENTED, "there is no such method here")
            return
        try:
            call = method(responder)
        except Exception:
            log.exception("A call could not be started")
            responder.finish(Status.INTERNAL, "the call could not be started")
            return
        self._calls[event.stream_id] = _Open(call, responder)

    def _on_data(self, opened: _Open, data: bytes) -> None:
        opened.have += len(data)
        if opened.parts:
            opened.parts.append(data)
            self._partial_bytes += len(data)
            if opened.have < opened.need:
                self._bound_partial(opened)
                return
            self._partial_bytes -= opened.have
            data = b"".join(opened.parts)
            opened.parts = []
        position, end = 0, len(data)
        while True:
            left = end - position
            if left < MESSAGE_HEAD_BYTES:
                opened.need = MESSAGE_HEAD_BYTES
                break
            if data[position]:
                opened.responder.finish(Status.UNIMPLEMENTED, "compressed messages are not read")
                return
            size = int.from_bytes(data[position + 1 : position + 5], "big")
            if size > self._max_received_bytes:
                opened.responder.finish(Status.RESOURCE_EXHAUSTED, "a message is too large")
                return
            opened.need = MESSAGE_HEAD_BYTES + size
            if left < opened.need:
                break
            start = position + MESSAGE_HEAD_BYTES
            position = start + size
            self._deliver(opened, data[start:position])
            if opened.responder.is_finished:
                return
        opened.have = left
        if left:
            opened.parts = [data[position:] if position else data]
            self._partial_bytes += left

    def _bound_partial(self, opened: _Open) -> None:
        if self._partial_bytes > MAX_PARTIAL_BYTES:
            self._forget_partial(opened)
            opened.responder.finish(Status.RESOURCE_EXHAUSTED, "too many unfinished messages")

    def _forget_partial(self, opened: _Open) -> None:
        if opened.parts:
            self._partial_bytes -= opened.have
            opened.parts = []
            opened.have = 0

    def _deliver(self, opened: _Open, message: bytes) -> None:
        try:
            opened.call.received(message)
        except Exception:
            log.exception("A call failed")
            opened.responder.finish(Status.INTERNAL, "the call failed")

    def _guarded(self, opened: _Open, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            log.exception("A call failed at its end")
            opened.responder.finish(Status.INTERNAL, "the call failed")
