"""The ext_proc machine, message by message, in every mode, without a socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from pointsman.inference.errors import ApiError
from pointsman.picker.extproc.answers import CHUNK_BYTES, Answer, Forward, Refuse
from pointsman.picker.extproc.machine import (
    Assumptions,
    Decide,
    Event,
    Machine,
    Mode,
    ProtocolViolationError,
    RequestAbandoned,
    ResponseChunk,
    ResponseStarted,
    State,
)

PICK = Forward(("10.0.0.1:8000", "10.0.0.2:8000"))
REWRITE = Forward(("10.0.0.1:8000",), body=b"a longer body")


def head(mode: Mode | None = None, *, end: bool = False, **flags: Any) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest()
    message.request_headers.end_of_stream = end
    message.request_headers.headers.headers.add(key=":path", raw_value=b"/v1/completions")
    if mode is not None:
        message.protocol_config.request_body_mode = int(mode)
        message.protocol_config.response_body_mode = flags.pop("response", 0)
        message.protocol_config.send_body_without_waiting_for_header_response = flags.pop(
            "no_wait", False
        )
    for name, value in flags.items():
        setattr(message, name, value)
    return message


def part(data: bytes, *, end: bool = False) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=end))


def trailers() -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_trailers=pb.HttpTrailers())


def response_head(served: str = "") -> pb.ProcessingRequest:
    message = pb.ProcessingRequest()
    message.response_headers.headers.headers.add(key=":status", raw_value=b"200")
    if served:
        fields = message.metadata_context.filter_metadata["envoy.lb"]
        fields["x-gateway-destination-endpoint-served"] = served
    return message


def response_part(data: bytes, *, end: bool = False) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(response_body=pb.HttpBody(body=data, end_of_stream=end))


class Talk:
    """A machine and a director that answers at once."""

    def __init__(self, answer: Answer = PICK, assumptions: Assumptions | None = None) -> None:
        self.machine = Machine(assumptions or Assumptions())
        self.answer = answer
        self.events: list[Event] = []

    def say(self, *messages: pb.ProcessingRequest) -> list[str]:
        """Feed messages; tells the answers in short."""
        shown: list[str] = []
        for message in messages:
            event = self.machine.receive(message)
            if event is not None:
                self.events.append(event)
            if isinstance(event, Decide):
                self.machine.answer(self.answer)
            shown += [short(pb.ProcessingResponse.FromString(data)) for data in self.machine.out]
            self.machine.out.clear()
        return shown

    @property
    def asked(self) -> Decide:
        return next(event for event in self.events if isinstance(event, Decide))


def short(answer: pb.ProcessingResponse) -> str:
    """A response in one line: its kind, its header changes, its body."""
    kind = answer.WhichOneof("response")
    if kind == "immediate_response":
        return f"refuse {answer.immediate_response.status.code}"
    words = [kind]
    if kind.endswith(("headers", "body")):
        common = getattr(answer, kind).response
        for option in common.header_mutation.set_headers:
            assert option.append_action == base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
            words.append(f"{option.header.key}={option.header.raw_value.decode()}")
        words += [f"-{name}" for name in common.header_mutation.remove_headers]
        mutation = common.body_mutation
        if mutation.WhichOneof("mutation") == "body":
            words.append(f"body:{mutation.body.decode()}")
        elif mutation.WhichOneof("mutation") == "clear_body":
            words.append("cleared")
        elif mutation.WhichOneof("mutation") == "streamed_response":
            streamed = mutation.streamed_response
            words.append(f"stream:{streamed.body.decode()}{'.' if streamed.end_of_stream else ''}")
    metadata = answer.dynamic_metadata.fields
    if "envoy.lb" in metadata:
        fields = metadata["envoy.lb"].struct_value.fields
        words.append(f"meta={fields['x-gateway-destination-endpoint'].string_value}")
    return " ".join(words)


TO = "x-gateway-destination-endpoint=10.0.0.1:8000"
META = "meta=10.0.0.1:8000"


@dataclass(frozen=True)
class Case:
    says: list[pb.ProcessingRequest]
    hears: list[str]
    asked: bytes | None = None
    answer: Answer = PICK


D, B, S = Mode.FULL_DUPLEX_STREAMED, Mode.BUFFERED, Mode.STREAMED
CASES: dict[str, Case] = {
    "without a body": Case([head(D, end=True)], [f"request_headers {TO} {META}"]),
    "without a body, buffered": Case([head(B, end=True)], [f"request_headers {TO} {META}"]),
    "headers only": Case([head(Mode.NONE)], [f"request_headers {TO} {META}"]),
    "buffered": Case(
        [head(B), part(b"{}", end=True)],
        ["request_headers", f"request_body {TO} {META}"],
        b"{}",
    ),
    "buffered, rewritten": Case(
        [head(B), part(b"{}", end=True)],
        ["request_headers", f"request_body {TO} content-length=13 body:a longer body {META}"],
        b"{}",
        REWRITE,
    ),
    "buffered with trailers": Case(
        [head(B), part(b"{}"), trailers()],
        ["request_headers", f"request_body {TO} {META}", "request_trailers"],
        b"{}",
    ),
    "buffered, trailers and no body": Case(
        [head(B), trailers()], ["request_headers", f"request_trailers {META}"], b""
    ),
    "buffered in part": Case(
        [head(Mode.BUFFERED_PARTIAL), part(b"{")],
        ["request_headers", f"request_body {TO} {META}"],
        b"{",
    ),
    "streamed, blind": Case(
        [head(S), part(b"{"), part(b"}", end=True)],
        [f"request_headers {TO} {META}", "request_body", "request_body"],
    ),
    "streamed without waiting": Case(
        [head(S, no_wait=True), part(b"{"), part(b"}", end=True)],
        [f"request_headers {TO} content-length=2 {META}", "request_body", "request_body"],
        b"{}",
    ),
    "streamed without waiting, rewritten": Case(
        [head(S, no_wait=True), part(b"{"), part(b"}", end=True)],
        [
            f"request_headers {TO} content-length=13 {META}",
            "request_body body:a longer body",
            "request_body cleared",
        ],
        b"{}",
        REWRITE,
    ),
    "full duplex": Case(
        [head(D), part(b"{"), part(b""), part(b"}", end=True)],
        [f"request_headers {TO} content-length=2 {META}", "request_body stream:{}."],
        b"{}",
    ),
    "full duplex, rewritten": Case(
        [head(D), part(b"{}", end=True)],
        [f"request_headers {TO} content-length=13 {META}", "request_body stream:a longer body."],
        b"{}",
        REWRITE,
    ),
    "full duplex with trailers": Case(
        [head(D), part(b"{}"), trailers()],
        [f"request_headers {TO} {META}", "request_body stream:{}", "request_trailers"],
        b"{}",
    ),
    "an older Envoy that does not say its mode": Case(
        [head(), part(b"{}", end=True)],
        [f"request_headers {TO} content-length=2 {META}", "request_body stream:{}."],
        b"{}",
    ),
    "refused": Case(
        [head(B), part(b"{}", end=True), response_head()],
        ["request_headers", "refuse 404"],
        b"{}",
        Refuse(ApiError(404, "no", "no")),
    ),
    "response, streamed": Case(
        [
            head(D, end=True, response=int(S)),
            response_head(),
            response_part(b"a"),
            response_part(b"b", end=True),
        ],
        [f"request_headers {TO} {META}", "response_headers", "response_body", "response_body"],
    ),
    "response, full duplex": Case(
        [
            head(D, end=True, response=int(D)),
            response_head(),
            response_part(b"a"),
            pb.ProcessingRequest(response_trailers=pb.HttpTrailers()),
        ],
        [
            f"request_headers {TO} {META}",
            "response_headers",
            "response_body stream:a",
            "response_trailers",
        ],
    ),
    "a response before the body": Case(
        [head(B), response_head()], ["request_headers", "response_headers"]
    ),
    "a response without a request": Case([response_head()], ["response_headers"]),
    "only watched": Case([head(B, observability_mode=True), part(b"{}")], [], b"{}"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_mode_is_answered_as_envoy_expects(name: str) -> None:
    case = CASES[name]
    talk = Talk(case.answer)
    assert talk.say(*case.says) == case.hears
    if case.asked is not None:
        assert talk.asked.body == case.asked


def test_a_list_goes_only_to_gateways_that_take_lists() -> None:
    talk = Talk(assumptions=Assumptions(takes_lists=True))
    (answer,) = talk.say(head(B, end=True))
    both = "10.0.0.1:8000,10.0.0.2:8000"
    assert answer == f"request_headers x-gateway-destination-endpoint={both} meta={both}"


def test_a_large_body_is_echoed_in_chunks_that_add_up() -> None:
    data = bytes(range(32, 127)) * 2_000
    talk = Talk()
    _, *chunks = talk.say(head(D), part(data, end=True))
    texts = [chunk.removeprefix("request_body stream:") for chunk in chunks]
    assert [text.endswith(".") for text in texts[:-1]] == [False] * (len(texts) - 1)
    assert "".join(texts) == data.decode() + "."
    assert max(map(len, texts)) <= CHUNK_BYTES + 1


def test_a_held_request_extends_its_deadline() -> None:
    machine = Machine(Assumptions())
    machine.receive(head(B))
    assert isinstance(machine.receive(part(b"{}", end=True)), Decide)
    machine.out.clear()
    machine.hold(2.5)
    (data,) = machine.out
    assert pb.ProcessingResponse.FromString(data).override_message_timeout.ToSeconds() == 2
    machine.answer(PICK)
    assert machine.state is State.ANSWERED


def test_what_the_response_tells_is_told() -> None:
    talk = Talk()
    talk.say(head(D, end=True), response_head("10.0.0.1:8000"), response_part(b"abc", end=True))
    assert talk.events[1:] == [ResponseStarted(200, "10.0.0.1:8000"), ResponseChunk(3, True)]


def test_an_answer_that_comes_before_the_pick_drops_the_pick() -> None:
    machine = Machine(Assumptions())
    machine.receive(head(B))
    assert machine.receive(response_head()) == RequestAbandoned()
    machine.out.clear()
    machine.answer(PICK)
    assert machine.out == []


VIOLATIONS: dict[str, list[Callable[[], pb.ProcessingRequest]]] = {
    "nothing": [pb.ProcessingRequest],
    "a body first": [lambda: part(b"x")],
    "trailers first": [trailers],
    "headers twice": [lambda: head(B), lambda: head(B)],
    "response headers twice": [response_head, response_head],
    "a response body while the request is open": [lambda: head(B), lambda: response_part(b"x")],
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_message_out_of_place_is_a_violation(name: str) -> None:
    talk = Talk()
    with pytest.raises(ProtocolViolationError):
        talk.say(*(make() for make in VIOLATIONS[name]))


MESSAGES = st.sampled_from(
    [
        *(head(mode) for mode in Mode),
        head(S, no_wait=True),
        head(D, end=True),
        head(),
        part(b"{}"),
        part(b"{}", end=True),
        part(b""),
        trailers(),
        response_head(),
        response_part(b"x"),
        response_part(b"x", end=True),
        pb.ProcessingRequest(response_trailers=pb.HttpTrailers()),
    ]
)
ANSWERS = st.sampled_from([PICK, REWRITE, Refuse(ApiError(503, "no", "no"))])


@given(st.lists(MESSAGES, max_size=12), ANSWERS)
def test_no_sequence_of_messages_breaks_it(messages: list[Any], answer: Answer) -> None:
    talk = Talk(answer)
    try:
        talk.say(*messages)
    except ProtocolViolationError:
        return
    assert sum(isinstance(event, Decide) for event in talk.events) <= 1


@given(st.binary(max_size=64))
def test_no_bytes_break_it(data: bytes) -> None:
    try:
        message = pb.ProcessingRequest.FromString(data)
    except DecodeError:
        return
    try:
        Talk().say(message)
    except ProtocolViolationError:
        return
