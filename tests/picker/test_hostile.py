"""The whole way from bytes to bytes, fed with what no gateway says."""

from __future__ import annotations

import random
from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from pointsman.picker.director import Director
from pointsman.picker.endpoints.table import Table
from pointsman.picker.extproc.machine import Mode
from pointsman.picker.extproc.service import PROCESS, ExtProc
from pointsman.picker.pools import Pools
from pointsman.picker.report import Report
from pointsman.store import Store
from pointsman.wire import frames
from pointsman.wire.grpc import Channel, framed
from pointsman.wire.headers import literal
from pointsman.wire.http2 import Connection
from tests.picker.conftest import model, pod, pool

OBJECTS = [pool(), pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), model("m")]
BLOCK = literal(b":path", PROCESS) + literal(b"x-pointsman-pool", b"default/pool")


def head(mode: int, *, end: bool, path: bytes) -> bytes:
    message = pb.ProcessingRequest()
    message.request_headers.end_of_stream = end
    message.request_headers.headers.headers.add(key=":path", raw_value=path)
    message.request_headers.headers.headers.add(key=":method", raw_value=b"GET")
    message.protocol_config.request_body_mode = mode
    data: bytes = message.SerializeToString()
    return data


def part(data: bytes, *, end: bool) -> bytes:
    message = pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=end))
    serialized: bytes = message.SerializeToString()
    return serialized


BODIES = st.sampled_from(
    [b"", b"{}", b"{", b'{"model":"m"}', b'{"model":"x"}', b"\xff" * 9, b"[" * 2_000]
) | st.binary(max_size=50)
PATHS = st.sampled_from([b"/v1/chat/completions", b"/v1/models", b"/", b"\xff\xfe", b""])
MESSAGES = st.one_of(
    st.builds(head, st.sampled_from([*Mode, 77]), end=st.booleans(), path=PATHS),
    st.builds(part, BODIES, end=st.booleans()),
    st.builds(lambda: pb.ProcessingRequest(response_headers={}).SerializeToString()),
    st.builds(lambda: pb.ProcessingRequest(response_body={}).SerializeToString()),
    st.builds(lambda: pb.ProcessingRequest(request_trailers={}).SerializeToString()),
    st.binary(max_size=40),
)
STEPS = st.one_of(
    st.builds(lambda s: frames.frame(frames.HEADERS, 4, s, BLOCK), st.sampled_from([1, 3, 5])),
    st.builds(
        lambda s, m, f: frames.frame(frames.DATA, f, s, framed(m)),
        st.sampled_from([1, 3, 5]),
        MESSAGES,
        st.sampled_from([0, 0, 0, frames.END_STREAM]),
    ),
    st.builds(lambda s: frames.reset(s, frames.ErrorCode.CANCEL), st.sampled_from([1, 3, 5])),
    st.binary(max_size=20),
)


def heard(said: bytes, size: int) -> None:
    """A picker hears these bytes, so many at a time; what it held is let go in the end."""
    store, table = Store(), Table()
    store.apply(OBJECTS)
    pools = Pools(store, table)
    pools.refresh()
    service = ExtProc(Director(pools, random.Random(1)), Report())
    connection = Connection()
    written: list[Any] = []
    channel = Channel(service.methods(), connection, lambda: written.append(None))
    for at in range(0, len(said), size):
        channel.receive(said[at : at + size])
        written.append(connection.take_output())
    held = sum(endpoint.requests for endpoint in table)
    assert held <= service.open_streams <= 3
    channel.lose()
    assert [(endpoint.requests, endpoint.tokens) for endpoint in table] == [(0, 0), (0, 0)]
    assert (service.open_streams, service.held_bytes, channel.open_calls) == (0, 0, 0)


@given(st.lists(STEPS, max_size=25), st.integers(1, 400))
def test_whatever_comes_every_load_is_let_go_in_the_end(steps: list[bytes], size: int) -> None:
    heard(frames.PREFACE + frames.frame(frames.HEADERS, 4, 1, BLOCK) + b"".join(steps), size)


def conversation(mode: int) -> bytes:
    """Two requests as a gateway says them, on one connection."""
    parts = [frames.PREFACE, frames.frame(frames.SETTINGS, 0, 0, b"")]
    for stream in (1, 3):
        messages = [
            head(mode, end=False, path=b"/v1/chat/completions"),
            part(b'{"model":"m","prompt":"' + b"x" * 300 + b'"}', end=True),
            pb.ProcessingRequest(response_headers={}).SerializeToString(),
            pb.ProcessingRequest(response_body={}).SerializeToString(),
        ]
        parts.append(frames.frame(frames.HEADERS, 4, stream, BLOCK))
        parts += [frames.frame(frames.DATA, 0, stream, framed(each)) for each in messages]
        parts.append(frames.frame(frames.DATA, frames.END_STREAM, stream, b""))
    return b"".join(parts)


CONVERSATIONS = [conversation(mode) for mode in Mode]
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2_000),
        st.sampled_from(["flip", "cut", "put", "copy"]),
        st.binary(max_size=9),
    ),
    max_size=6,
)


def changed(said: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    """The same with some bytes flipped, cut out, put in, or said twice."""
    for place, how, data in changes:
        at = place % (len(said) + 1)
        if how == "flip":
            mask = data[:1] or b"\x01"
            said = said[:at] + bytes(each ^ mask[0] for each in said[at : at + 1]) + said[at + 1 :]
        elif how == "cut":
            said = said[:at] + said[at + len(data) :]
        elif how == "put":
            said = said[:at] + data + said[at:]
        else:
            said = said[:at] + said[max(0, at - 60) : at] + said[at:]
    return said


@given(st.sampled_from(CONVERSATIONS), CHANGES, st.integers(1, 1_500))
def test_a_conversation_that_is_garbled_holds_nothing_in_the_end(
    said: bytes, changes: list[tuple[int, str, bytes]], size: int
) -> None:
    heard(changed(said, changes), size)
