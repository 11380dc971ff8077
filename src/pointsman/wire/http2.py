"""An HTTP/2 connection as seen by a server, without a socket: bytes in, events out.

The rules that live here (RFC 9113), and what breaking one costs:

- The client opens with the preface; our SETTINGS is the first frame that we send.
- A frame longer than what we announced, a frame of a stream that was never opened, a header block
  cut by another frame, an even stream id: the connection ends (GOAWAY).
- More streams than announced: that stream is refused (RST_STREAM, REFUSED_STREAM).
- More DATA than a stream's window: that stream ends (FLOW_CONTROL_ERROR). The windows are topped
  up as bytes come in; it is the layer above that bounds what it keeps.
- Our DATA never exceeds the peer's windows nor its frame size; what does not fit waits, and
  trailers wait behind it. While the transport is full nothing but control frames is added.
- A frame for a stream that has ended is dropped: Envoy ends every stream with RST_STREAM, before or
  after our trailers, and that is no error.
- Frames that carry nothing (PING, SETTINGS, PRIORITY, empty DATA, unknown types) may come
  `max_idle_frames` times in a row without a byte of work; then the peer is told to calm down.
  Resets do not count: they free what they end. Whoever has a clock calls `forgive` now and then,
  so that the pings of a quiet day do not add up.

What is not here because gRPC has no use for it: push, priorities, upgrades from HTTP/1.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pointsman.wire import frames
from pointsman.wire.frames import ConnectionBrokenError, ErrorCode
from pointsman.wire.headers import HeaderDecoder, Headers


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask for."""

    max_concurrent_streams: int = 10_000
    max_header_list_bytes: int = 64 * 1024
    stream_window_bytes: int = 1024 * 1024
    """How far a client may run ahead on one stream."""
    max_queued_bytes: int = 256 * 1024 * 1024
    """Answers that wait for the peer's windows, all streams together."""
    max_received_message_bytes: int = 64 * 1024 * 1024
    """Of one gRPC message: larger than the gateway's largest body (50 MiB) and its envelope."""
    max_sent_message_bytes: int = 2**31 - 1
    max_idle_frames: int = 1_000


class RequestStarted(NamedTuple):
    """A stream was opened."""

    stream_id: int
    headers: Headers


class DataReceived(NamedTuple):
    """Some bytes of a request's body."""

    stream_id: int
    data: bytes


class RequestEnded(NamedTuple):
    """The client has said all that it will say on this stream."""

    stream_id: int


class StreamGone(NamedTuple):
    """A stream that was open has been reset by either side; nothing can be sent on it."""

    stream_id: int


Event = RequestStarted | DataReceived | RequestEnded | StreamGone


class _Stream:
    __slots__ = (
        "consumed_bytes",
        "is_local_done",
        "is_remote_done",
        "queue",
        "receive_window",
        "send_window",
        "trailers",
    )

    def __init__(self, send_window: int, receive_window: int) -> None:
        self.send_window = send_window
        self.receive_window = receive_window
        self.consumed_bytes = 0
        self.queue: deque[bytes] | None = None
        self.trailers: bytes | None = None
        self.is_remote_done = False
        self.is_local_done = False


class Connection:
    """One HTTP/2 connection, server side."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits if limits is not None else Limits()
        self.queued_bytes = 0
        """Bytes of answers that wait for a window or for the transport."""
        self.is_closing = False
        """Nothing more will be read; write what is left and hang up."""
        self._streams: dict[int, _Stream] = {}
        self._waiting: set[int] = set()
        self._out: list[bytes] = []
        self._buffer = b""
        self._is_preface_seen = False
        self._last_stream_id = 0
        self._is_draining = False
        self._is_writable = True
        self._idle_frames = 0
        self._decoder = HeaderDecoder(self.limits.max_header_list_bytes)
        self._block: tuple[int, int, list[bytes]] | None = None
        self._block_bytes = 0
        self._peer_window = frames.DEFAULT_WINDOW_BYTES
        self._peer_initial_window = frames.DEFAULT_WINDOW_BYTES
        self._peer_frame_bytes = frames.DEFAULT_FRAME_BYTES
        self._consumed_bytes = 0
        self._handlers: dict[int, Callable[[int, int, bytes, list[Event]], None]] = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.PRIORITY: self._on_nothing,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_nothing,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }
        self._out.append(
            frames.settings(
                {
                    frames.SETTINGS_HEADER_TABLE_SIZE: 0,
                    frames.SETTINGS_MAX_CONCURRENT_STREAMS: self.limits.max_concurrent_streams,
                    frames.SETTINGS_INITIAL_WINDOW_SIZE: self.limits.stream_window_bytes,
                    frames.SETTINGS_MAX_HEADER_LIST_SIZE: self.limits.max_header_list_bytes,
                }
            )
        )
        self._out.append(
            frames.window_update(0, frames.LARGEST_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES)
        )

    @property
    def open_streams(self) -> int:
        """Streams on which either side may still speak."""
        return len(self._streams)

    def receive(self, data: bytes) -> list[Event]:
        """Take in what the socket gave; tells what it means."""
        events: list[Event] = []
        if self.is_closing:
            return events
        buffer = self._buffer + data if self._buffer else data
        position = 0
        try:
            if not self._is_preface_seen:
                if not self._see_preface(buffer):
                    return events
                position = len(frames.PREFACE)
            position = self._cut(buffer, position, events)
        except ConnectionBrokenError as failure:
            self._fail(failure, events)
            return events
        self._buffer = buffer[position:] if position < len(buffer) else b""
        return events

    def take_output(self) -> bytes:
        """What the socket should send now."""
        out = b"".join(self._out) if len(self._out) != 1 else self._out[0]
        self._out.clear()
        return out

    def send(self, stream_id: int, block: bytes | None, data: bytes) -> bool:
        """Send a header block (once, first) and bytes of the body; False if the stream is gone."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_local_done or stream.trailers is not None:
            return False
        if block is not None:
            self._out.append(frames.frame(frames.HEADERS, frames.END_HEADERS, stream_id, block))
        if data:
            if stream.queue:
                self._enqueue(stream_id, stream, data)
            else:
                rest = self._send_what_fits(stream_id, stream, data)
                if rest:
                    self._enqueue(stream_id, stream, rest)
        return True

    def end(self, stream_id: int, trailers: bytes) -> bool:
        """End our side with a header block of trailers; it waits behind what waits."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_local_done or stream.trailers is not None:
            return False
        if stream.queue:
            stream.trailers = trailers
        else:
            self._send_trailers(stream_id, stream, trailers)
        return True

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Give a stream up. The peer sees an error; prefer `end`."""
        if stream_id in self._streams:
            self._out.append(frames.reset(stream_id, code))
            self._forget(stream_id)

    def forgive(self) -> None:
        """Forget how many idle frames have come; what counts is how many come in a short time."""
        self._idle_frames = 0

    def announce_end(self) -> None:
        """Ask the peer to open its next streams elsewhere; those that it still opens are taken."""
        if not self._is_draining:
            highest = frames.STREAM_ID_MASK
            self._out.append(frames.goaway(highest, ErrorCode.NO_ERROR, "going away soon"))

    def drain(self) -> None:
        """Take no new streams; those that are open may finish."""
        if not self._is_draining:
            self._is_draining = True
            self._out.append(frames.goaway(self._last_stream_id, ErrorCode.NO_ERROR, "draining"))

    def set_writable(self, is_writable: bool) -> None:
        """Whether the transport takes more; what waits is sent as soon as it does."""
        self._is_writable = is_writable
        if is_writable:
            self._flush()

    def _see_preface(self, buffer: bytes) -> bool:
        if len(buffer) < len(frames.PREFACE):
            if not frames.PREFACE.startswith(buffer):
                raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
            self._buffer = buffer
            return False
        if not buffer.startswith(frames.PREFACE):
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "this is not HTTP/2")
        self._is_preface_seen = True
        return True

    def _cut(self, buffer: bytes, position: int, events: list[Event]) -> int:
        end = len(buffer)
        unpack, handlers = frames.HEAD.unpack_from, self._handlers
        while end - position >= frames.HEAD_BYTES:
            high, low, kind, flags, stream_id = unpack(buffer, position)
            length = high << 8 | low
            if length > frames.DEFAULT_FRAME_BYTES:
                raise ConnectionBrokenError(
                    ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes"
                )
            start = position + frames.HEAD_BYTES
            if end - start < length:
                break
            position = start + length
            stream_id &= frames.STREAM_ID_MASK
            if self._block is not None and kind != frames.CONTINUATION:
                raise ConnectionBrokenError(
                    ErrorCode.PROTOCOL_ERROR, "a header block was interrupted"
                )
            handler = handlers.get(kind, self._on_nothing)
            handler(flags, stream_id, buffer[start:position], events)
        return position

    def _fail(self, failure: ConnectionBrokenError, events: list[Event]) -> None:
        self._out.append(frames.goaway(self._last_stream_id, failure.code, failure.reason))
        events.extend(StreamGone(stream_id) for stream_id in self._streams)
        self._streams.clear()
        self._waiting.clear()
        self.queued_bytes = 0
        self._buffer = b""
        self.is_closing = True

    # ── frames, by type ──────────────────────────────────────────────────────

    def _on_data(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        size = len(payload)
        if size:
            self._idle_frames = 0
            self._consumed_bytes += size
            if self._consumed_bytes >= frames.LARGEST_WINDOW_BYTES >> 2:
                self._out.append(frames.window_update(0, self._consumed_bytes))
                self._consumed_bytes = 0
        elif not flags & frames.END_STREAM:
            self._count_idle_frame()
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_remote_done:
            self._require_opened(stream_id)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            self.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
            events.append(StreamGone(stream_id))
            return
        data = frames.unpadded(flags, payload) if flags & frames.PADDED else payload
        if data:
            events.append(DataReceived(stream_id, data))
        if flags & frames.END_STREAM:
            self._end_remote(stream_id, stream, events)
            return
        stream.consumed_bytes += size
        if stream.consumed_bytes >= self.limits.stream_window_bytes >> 1:
            self._out.append(frames.window_update(stream_id, stream.consumed_bytes))
            stream.receive_window += stream.consumed_bytes
            stream.consumed_bytes = 0

    def _on_headers(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        payload = frames.unpadded(flags, payload)
        if flags & frames.PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionBrokenError(
                    ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority"
                )
            payload = payload[5:]
        if not flags & frames.END_HEADERS:
            self._block = (flags, stream_id, [payload])
            self._block_bytes = len(payload)
            return
        self._on_block(flags, stream_id, payload, events)

    def _on_continuation(
        self, flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> None:
        if self._block is None or self._block[1] != stream_id:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        first_flags, _, parts = self._block
        parts.append(payload)
        self._block_bytes += len(payload)
        if self._block_bytes > self.limits.max_header_list_bytes or len(parts) > 64:
            raise ConnectionBrokenError(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & frames.END_HEADERS:
            self._block = None
            self._on_block(first_flags, stream_id, b"".join(parts), events)

    def _on_block(self, flags: int, stream_id: int, block: bytes, events: list[Event]) -> None:
        headers = self._decoder.decode(block)
        is_end = bool(flags & frames.END_STREAM)
        stream = self._streams.get(stream_id)
        if stream is not None:
            # Trailers of a request: nothing in gRPC needs them, but they end the request.
            if not is_end or stream.is_remote_done:
                raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a second block of headers")
            self._end_remote(stream_id, stream, events)
            return
        if stream_id <= self._last_stream_id:
            return
        if stream_id % 2 == 0:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd ids")
        self._idle_frames = 0
        if self._is_draining:
            return
        self._last_stream_id = stream_id
        if len(self._streams) >= self.limits.max_concurrent_streams:
            self._out.append(frames.reset(stream_id, ErrorCode.REFUSED_STREAM))
            return
        stream = _Stream(self._peer_initial_window, self.limits.stream_window_bytes)
        self._streams[stream_id] = stream
        events.append(RequestStarted(stream_id, headers))
        if is_end:
            self._end_remote(stream_id, stream, events)

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if len(payload) != 4:
            raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        if stream_id in self._streams:
            self._forget(stream_id)
            events.append(StreamGone(stream_id))
        else:
            self._require_opened(stream_id)

    def _on_settings(
        self, flags: int, stream_id: int, payload: bytes, _events: list[Event]
    ) -> None:
        self._count_idle_frame()
        if stream_id or len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "a malformed SETTINGS")
        if flags & frames.ACK:
            return
        for position in range(0, len(payload), 6):
            self._apply_setting(*frames.SETTING.unpack_from(payload, position))
        self._out.append(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        self._flush()

    def _apply_setting(self, key: int, value: int) -> None:
        if key == frames.SETTINGS_INITIAL_WINDOW_SIZE:
            if value > frames.LARGEST_WINDOW_BYTES:
                raise ConnectionBrokenError(
                    ErrorCode.FLOW_CONTROL_ERROR, "a window of 2^31 or more"
                )
            change = value - self._peer_initial_window
            self._peer_initial_window = value
            for stream in self._streams.values():
                stream.send_window += change
                if stream.send_window > frames.LARGEST_WINDOW_BYTES:
                    raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "a window overflows")
        elif key == frames.SETTINGS_MAX_FRAME_SIZE:
            if not frames.DEFAULT_FRAME_BYTES <= value <= frames.LARGEST_FRAME_BYTES:
                raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a frame size out of range")
            self._peer_frame_bytes = value

    def _on_ping(self, flags: int, stream_id: int, payload: bytes, _events: list[Event]) -> None:
        self._count_idle_frame()
        if stream_id or len(payload) != 8:
            raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "a malformed PING")
        if not flags & frames.ACK:
            self._out.append(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(
        self, _flags: int, stream_id: int, payload: bytes, events: list[Event]
    ) -> None:
        if len(payload) != 4:
            raise ConnectionBrokenError(ErrorCode.FRAME_SIZE_ERROR, "a malformed WINDOW_UPDATE")
        increment = frames.U32.unpack(payload)[0] & frames.STREAM_ID_MASK
        if not stream_id:
            self._peer_window += increment
            if not increment or self._peer_window > frames.LARGEST_WINDOW_BYTES:
                raise ConnectionBrokenError(ErrorCode.FLOW_CONTROL_ERROR, "the window overflows")
            if not self._waiting:
                self._count_idle_frame()
            self._flush()
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._require_opened(stream_id)
            self._count_idle_frame()
            return
        stream.send_window += increment
        if not increment or stream.send_window > frames.LARGEST_WINDOW_BYTES:
            self.reset(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
            events.append(StreamGone(stream_id))
        elif stream.queue:
            self._drain_queue(stream_id, stream)
        else:
            self._count_idle_frame()

    def _on_push_promise(
        self, _flags: int, _stream_id: int, _payload: bytes, _events: list[Event]
    ) -> None:
        raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _on_nothing(
        self, _flags: int, _stream_id: int, _payload: bytes, _events: list[Event]
    ) -> None:
        self._count_idle_frame()

    def _count_idle_frame(self) -> None:
        self._idle_frames += 1
        if self._idle_frames > self.limits.max_idle_frames:
            raise ConnectionBrokenError(ErrorCode.ENHANCE_YOUR_CALM, "many frames and no request")

    def _require_opened(self, stream_id: int) -> None:
        if stream_id > self._last_stream_id and not self._is_draining:
            raise ConnectionBrokenError(
                ErrorCode.PROTOCOL_ERROR, "a frame of a stream never opened"
            )
        if not stream_id:
            raise ConnectionBrokenError(ErrorCode.PROTOCOL_ERROR, "a stream's frame on stream 0")

    # ── sending ──────────────────────────────────────────────────────────────

    def _enqueue(self, stream_id: int, stream: _Stream, data: bytes) -> None:
        if stream.queue is None:
            stream.queue = deque()
        stream.queue.append(data)
        self.queued_bytes += len(data)
        self._waiting.add(stream_id)

    def _send_what_fits(self, stream_id: int, stream: _Stream, data: bytes) -> bytes:
        """Send as much as the windows allow; returns the rest."""
        size = len(data)
        room = min(stream.send_window, self._peer_window) if self._is_writable else 0
        if room <= 0:
            return data
        take = min(size, room)
        largest = self._peer_frame_bytes
        if take == size and size <= largest:
            self._out.append(frames.HEAD.pack(size >> 8, size & 0xFF, 0, 0, stream_id))
            self._out.append(data)
        else:
            view = memoryview(data)
            for start in range(0, take, largest):
                part = view[start : min(start + largest, take)]
                length = len(part)
                self._out.append(frames.HEAD.pack(length >> 8, length & 0xFF, 0, 0, stream_id))
                self._out.append(part)  # type: ignore[arg-type]  # join takes any buffer
        stream.send_window -= take
        self._peer_window -= take
        return data[take:] if take < size else b""

    def _drain_queue(self, stream_id: int, stream: _Stream) -> None:
        queue = stream.queue
        while queue:
            data = queue.popleft()
            rest = self._send_what_fits(stream_id, stream, data)
            self.queued_bytes -= len(data) - len(rest)
            if rest:
                queue.appendleft(rest)
                return
        self._waiting.discard(stream_id)
        if stream.trailers is not None:
            self._send_trailers(stream_id, stream, stream.trailers)

    def _flush(self) -> None:
        for stream_id in tuple(self._waiting):
            if self._peer_window <= 0 or not self._is_writable:
                return
            stream = self._streams.get(stream_id)
            if stream is not None:
                self._drain_queue(stream_id, stream)

    def _send_trailers(self, stream_id: int, stream: _Stream, trailers: bytes) -> None:
        flags = frames.END_HEADERS | frames.END_STREAM
        self._out.append(frames.frame(frames.HEADERS, flags, stream_id, trailers))
        stream.is_local_done = True
        if stream.is_remote_done:
            self._forget(stream_id)

    def _end_remote(self, stream_id: int, stream: _Stream, events: list[Event]) -> None:
        stream.is_remote_done = True
        events.append(RequestEnded(stream_id))
        if stream.is_local_done:
            self._forget(stream_id)

    def _forget(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None and stream.queue:
            self.queued_bytes -= sum(map(len, stream.queue))
        self._waiting.discard(stream_id)
