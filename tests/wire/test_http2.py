"""The HTTP/2 connection without a socket: rules, flow control, hostile bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from pointsman.wire import frames
from pointsman.wire.frames import ErrorCode
from pointsman.wire.http2 import (
    Connection,
    DataReceived,
    Limits,
    RequestEnded,
    RequestStarted,
    StreamGone,
)

PATH = [(b":method", b"POST"), (b":path", b"/a/B"), (b"te", b"trailers")]
BLOCK = Encoder().encode(PATH)
TRAILERS = b"\x00\x01a\x01b"


class Peer:
    """A client that keeps its side of the rules only where a test wants it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.connection = Connection(limits)
        self.connection.take_output()
        self.encoder = Encoder()

    def say(self, *parts: bytes) -> list[Any]:
        return self.connection.receive(b"".join(parts))

    def hear(self) -> list[tuple[int, int, int, bytes]]:
        """The frames that the server sent: type, flags, stream, payload."""
        data, heard, at = self.connection.take_output(), [], 0
        while at < len(data):
            high, low, kind, flags, stream = frames.HEAD.unpack_from(data, at)
            end = at + frames.HEAD_BYTES + (high << 8 | low)
            heard.append((kind, flags, stream, data[at + frames.HEAD_BYTES : end]))
            at = end
        return heard

    def died_of(self) -> ErrorCode | None:
        goaways = [payload for kind, _, _, payload in self.hear() if kind == frames.GOAWAY]
        if not goaways:
            return None
        assert self.connection.is_closing
        return ErrorCode(frames.U32.unpack_from(goaways[0], 4)[0])


def opened(limits: Limits | None = None) -> Peer:
    peer = Peer(limits)
    peer.say(frames.PREFACE, frames.settings({}))
    peer.hear()
    return peer


def start(stream: int, *, end: bool = False, block: bytes = BLOCK) -> bytes:
    flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
    return frames.frame(frames.HEADERS, flags, stream, block)


def data(stream: int, payload: bytes, *, end: bool = False, flags: int = 0) -> bytes:
    return frames.frame(frames.DATA, flags | (frames.END_STREAM if end else 0), stream, payload)


def test_settings_are_the_first_frame_and_take_the_peers_table_away() -> None:
    connection = Connection()
    output = connection.take_output()
    assert output[3] == frames.SETTINGS
    assert output[9:15] == frames.SETTING.pack(frames.SETTINGS_HEADER_TABLE_SIZE, 0)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_request_means_the_same_in_whatever_pieces_it_comes(size: int) -> None:
    peer = Peer()
    said = b"".join((frames.PREFACE, start(1), data(1, b"hello"), data(1, b"!", end=True)))
    events: list[Any] = []
    for at in range(0, len(said), size):
        events += peer.say(said[at : at + size])
    assert isinstance(events[0], RequestStarted)
    assert events[0].headers == tuple(PATH)
    assert events[1:] == [DataReceived(1, b"hello"), DataReceived(1, b"!"), RequestEnded(1)]


def test_padding_priority_and_continuation_are_taken_off() -> None:
    peer = opened()
    flags = frames.PADDED | frames.PRIORITY_FLAG
    first = bytes((3,)) + b"\0\0\0\0\x10" + BLOCK[:4] + b"\0\0\0"
    events = peer.say(
        frames.frame(frames.HEADERS, flags, 1, first),
        frames.frame(frames.CONTINUATION, 0, 1, BLOCK[4:6]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, BLOCK[6:]),
        data(1, b"\x02ab\0\0", flags=frames.PADDED),
    )
    assert events == [RequestStarted(1, tuple(PATH)), DataReceived(1, b"ab")]


def test_a_block_that_repeats_is_decoded_once_the_table_is_gone() -> None:
    peer = opened()
    encoder = Encoder()
    peer.say(start(1, block=encoder.encode(PATH)))
    encoder.header_table_size = 0
    blocks = [encoder.encode(PATH) for _ in range(3)]
    assert blocks[1] == blocks[2]
    for number, block in enumerate(blocks):
        (event,) = peer.say(start(3 + 2 * number, block=block))
        assert event.headers == tuple(PATH)


def test_a_peer_that_takes_its_table_back_is_still_understood() -> None:
    peer = opened()
    encoder = Encoder()
    encoder.header_table_size = 0
    plain = encoder.encode(PATH)
    peer.say(start(1, block=plain), start(3, block=encoder.encode(PATH)))
    encoder.header_table_size = 4096
    more = [*PATH, (b"x", b"1")]
    for stream in (5, 7, 9):
        (event,) = peer.say(start(stream, block=encoder.encode(more)))
        assert event.headers == tuple(more)


def test_answers_keep_to_the_windows_and_trailers_wait_behind_them() -> None:
    peer = opened()
    peer.say(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 10}), start(1, end=True))
    peer.hear()
    peer.connection.send(1, BLOCK, b"x" * 25)
    peer.connection.end(1, TRAILERS)
    assert [(kind, len(load)) for kind, _, _, load in peer.hear()] == [(1, len(BLOCK)), (0, 10)]
    assert peer.connection.queued_bytes == 15
    peer.say(frames.window_update(1, 4))
    assert [len(load) for _, _, _, load in peer.hear()] == [4]
    peer.say(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 100}))
    peer.say(frames.window_update(1, 1))
    heard = [each for each in peer.hear() if each[0] != frames.SETTINGS]
    assert [(kind, flags, len(load)) for kind, flags, _, load in heard] == [(0, 0, 11), (1, 5, 5)]
    assert peer.connection.open_streams == 0
    assert peer.connection.queued_bytes == 0


def test_answers_keep_to_the_connections_window_and_the_frame_size() -> None:
    peer = opened()
    peer.say(frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 1_000_000}))
    peer.say(start(1), start(3))
    peer.hear()
    peer.connection.send(1, None, b"a" * 60_000)
    peer.connection.send(3, None, b"b" * 60_000)
    sizes = [len(load) for _, _, _, load in peer.hear()]
    assert max(sizes) == frames.DEFAULT_FRAME_BYTES
    assert sum(sizes) == frames.DEFAULT_WINDOW_BYTES
    peer.say(frames.window_update(0, 1_000_000))
    assert sum(len(load) for _, _, _, load in peer.hear()) == 120_000 - frames.DEFAULT_WINDOW_BYTES


def test_nothing_is_added_while_the_transport_is_full() -> None:
    peer = opened()
    peer.say(start(1))
    peer.connection.set_writable(False)
    peer.connection.send(1, BLOCK, b"abc")
    assert [kind for kind, _, _, _ in peer.hear()] == [frames.HEADERS]
    peer.connection.set_writable(True)
    assert [load for _, _, _, load in peer.hear()] == [b"abc"]


def test_the_client_may_send_on_as_its_bytes_come_in() -> None:
    peer = opened(Limits(stream_window_bytes=1000))
    peer.say(start(1))
    for _ in range(50):
        peer.say(data(1, b"x" * 400))
    given = sum(
        frames.U32.unpack(load)[0]
        for kind, _, stream, load in peer.hear()
        if kind == frames.WINDOW_UPDATE and stream == 1
    )
    assert given >= 50 * 400 - 1000


def test_a_client_that_overruns_its_window_loses_the_stream_only() -> None:
    peer = opened(Limits(stream_window_bytes=1000))
    events = peer.say(start(1), data(1, b"x" * 1001), start(3))
    assert StreamGone(1) in events
    assert not peer.connection.is_closing
    assert peer.connection.open_streams == 1


def test_more_streams_than_allowed_are_refused() -> None:
    peer = opened(Limits(max_concurrent_streams=1))
    events = peer.say(start(1), start(3))
    assert len(events) == 1
    assert (frames.RST_STREAM, 0, 3, frames.U32.pack(ErrorCode.REFUSED_STREAM)) in peer.hear()


def test_a_reset_after_the_end_is_no_error() -> None:
    peer = opened()
    peer.say(start(1, end=True))
    peer.connection.send(1, BLOCK, b"")
    peer.connection.end(1, TRAILERS)
    assert peer.say(frames.reset(1, ErrorCode.INTERNAL_ERROR)) == []
    assert peer.connection.open_streams == 0
    for stream in range(3, 5003, 2):
        peer.say(start(stream, end=True), frames.reset(stream, ErrorCode.INTERNAL_ERROR))
    assert not peer.connection.is_closing


def test_ping_is_answered_and_a_drain_takes_no_new_streams() -> None:
    peer = opened()
    peer.say(start(1), frames.frame(frames.PING, 0, 0, b"12345678"))
    assert peer.hear() == [(frames.PING, frames.ACK, 0, b"12345678")]
    peer.connection.drain()
    assert peer.say(start(3), data(3, b"x"), data(1, b"y")) == [DataReceived(1, b"y")]


def test_an_end_that_is_announced_refuses_nothing() -> None:
    peer = opened()
    peer.say(start(1))
    peer.hear()
    peer.connection.announce_end()
    ((kind, _, _, payload),) = peer.hear()
    assert (kind, payload[:8]) == (frames.GOAWAY, b"\x7f\xff\xff\xff\0\0\0\0")
    assert [type(event) for event in peer.say(start(3))] == [RequestStarted]
    peer.connection.drain()
    assert peer.hear()[0][3][:4] == b"\0\0\0\x03"
    assert peer.say(start(5)) == []


MANY = 1_100
BREACHES: dict[str, tuple[bytes, ErrorCode]] = {
    "a frame too large": (b"\x00\x40\x01\0\0\0\0\0\x01", ErrorCode.FRAME_SIZE_ERROR),
    "data of no stream": (data(1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data on stream 0": (data(0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "an even stream": (start(2), ErrorCode.PROTOCOL_ERROR),
    "a reset of no stream": (frames.reset(9, ErrorCode.CANCEL), ErrorCode.PROTOCOL_ERROR),
    "padding longer than the frame": (
        start(1) + data(1, b"\x09a", flags=frames.PADDED),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a block that is interrupted": (
        frames.frame(frames.HEADERS, 0, 1, BLOCK) + frames.settings({}),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a block without end": (
        frames.frame(frames.HEADERS, 0, 1, b"")
        + frames.frame(frames.CONTINUATION, 0, 1, b"x" * 16_000) * 5,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a block that cannot be read": (
        start(1, block=b"\xff\xff\xff\xff"),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "headers that grow when decoded": (
        start(1, block=b"\x40\x01a\x7f\xd0\x1e" + b"x" * 4000) + b"",
        ErrorCode.COMPRESSION_ERROR,
    ),
    "push": (frames.frame(frames.PUSH_PROMISE, 0, 1, b""), ErrorCode.PROTOCOL_ERROR),
    "a window that overflows": (
        frames.window_update(0, frames.LARGEST_WINDOW_BYTES) * 2,
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "settings out of range": (
        frames.settings({frames.SETTINGS_INITIAL_WINDOW_SIZE: 2**31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "pings": (frames.frame(frames.PING, 0, 0, b"12345678") * MANY, ErrorCode.ENHANCE_YOUR_CALM),
    "settings": (frames.settings({}) * MANY, ErrorCode.ENHANCE_YOUR_CALM),
    "empty data": (start(1) + data(1, b"") * MANY, ErrorCode.ENHANCE_YOUR_CALM),
    "priorities": (
        frames.frame(frames.PRIORITY, 0, 1, b"\0\0\0\0\0") * MANY,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "unknown frames": (frames.frame(99, 0, 0, b"") * MANY, ErrorCode.ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_ends_the_connection_and_says_why(name: str) -> None:
    said, code = BREACHES[name]
    peer = opened()
    peer.say(said)
    assert peer.died_of() is code


def test_pings_of_a_quiet_day_do_not_add_up() -> None:
    peer = opened()
    for _ in range(10):
        peer.say(frames.frame(frames.PING, 0, 0, b"12345678") * 900)
        peer.connection.forgive()
    assert peer.died_of() is None


def test_another_protocol_is_told_so() -> None:
    peer = Peer()
    peer.say(b"GET / HTTP/1.1\r\n\r\n")
    assert peer.died_of() is ErrorCode.PROTOCOL_ERROR


FRAMES = st.one_of(
    st.builds(start, st.integers(0, 9), end=st.booleans()),
    st.builds(data, st.integers(0, 9), st.binary(max_size=40), end=st.booleans()),
    st.builds(frames.window_update, st.integers(0, 9), st.integers(0, 2**31 - 1)),
    st.builds(frames.reset, st.integers(0, 9), st.sampled_from(ErrorCode)),
    st.builds(
        frames.frame,
        st.integers(0, 12),
        st.integers(0, 255),
        st.integers(0, 9),
        st.binary(max_size=40),
    ),
    st.builds(lambda size: frames.settings({4: size}), st.integers(0, 2**31 - 1)),
    st.binary(max_size=30),
)


@given(st.lists(FRAMES, max_size=30), st.integers(1, 200))
def test_no_frames_break_it_and_every_stream_that_starts_ends_once(
    said: list[bytes], size: int
) -> None:
    peer = opened()
    stream = b"".join(said)
    started: set[int] = set()
    gone: list[int] = []
    for at in range(0, len(stream), size):
        for event in peer.say(stream[at : at + size]):
            if isinstance(event, RequestStarted):
                started.add(event.stream_id)
                peer.connection.send(event.stream_id, BLOCK, b"answer" * 100)
            elif isinstance(event, RequestEnded):
                peer.connection.end(event.stream_id, TRAILERS)
            elif isinstance(event, StreamGone):
                gone.append(event.stream_id)
        peer.connection.take_output()
    assert len(gone) == len(set(gone))
    assert set(gone) <= started
    assert peer.connection.queued_bytes >= 0
    if peer.connection.is_closing:
        assert peer.connection.open_streams == 0
