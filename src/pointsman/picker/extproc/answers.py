"""The messages that answer Envoy, serialized.

Source: envoy/service/ext_proc/v3/external_processor.proto and the endpoint picker protocol
(proposal 004 of the inference extension): the destination goes out as a header and as dynamic
metadata, with the same value.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.inference.errors import OWN_DETAILS, ApiError
from pointsman.inference.headers import (
    DECISION_KEY,
    DESTINATION_ENDPOINT,
    DESTINATION_NAMESPACE,
    MODEL_KEY,
    PICK_KEY,
    PICK_NAMESPACE,
    TARGET_KEY,
)

MAX_LOGGED_CHARACTERS = 256

CHUNK_BYTES = 62_000
"""Of a body that is echoed in full duplex: some proxies cap a message at 64 KB."""


def _serialized(message: pb.ProcessingResponse) -> bytes:
    data: bytes = message.SerializeToString()
    return data


REQUEST_HEADERS_GO_ON = _serialized(pb.ProcessingResponse(request_headers=pb.HeadersResponse()))
REQUEST_BODY_GO_ON = _serialized(pb.ProcessingResponse(request_body=pb.BodyResponse()))
REQUEST_TRAILERS_GO_ON = _serialized(pb.ProcessingResponse(request_trailers=pb.TrailersResponse()))
RESPONSE_HEADERS_GO_ON = _serialized(pb.ProcessingResponse(response_headers=pb.HeadersResponse()))
RESPONSE_BODY_GO_ON = _serialized(pb.ProcessingResponse(response_body=pb.BodyResponse()))
RESPONSE_TRAILERS_GO_ON = _serialized(
    pb.ProcessingResponse(response_trailers=pb.TrailersResponse())
)
SHOW_RESPONSE_HEADERS = _serialized(
    pb.ProcessingResponse(
        mode_override={
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "request_trailer_mode": "SKIP",
            "response_header_mode": "SEND",
            "response_body_mode": "NONE",
            "response_trailer_mode": "SEND",
        }
    )
)
"""Follows the answer to a request's headers: Envoy is to show the answer's headers too. Our gateway
allows this and no other change of its mode."""
REQUEST_BODY_DROPPED = _serialized(
    pb.ProcessingResponse(
        request_body=pb.BodyResponse(
            response=pb.CommonResponse(body_mutation=pb.BodyMutation(clear_body=True))
        )
    )
)


@dataclass(frozen=True, slots=True)
class Forward:
    """The request goes to these endpoints, in order of preference."""

    endpoints: tuple[str, ...]
    """`ip:port` each; the first in the header, all of them where the gateway knows lists."""
    body: bytes | None = None
    """The body in place of the one that came; None if that stays."""
    set_headers: tuple[tuple[str, str], ...] = ()
    removed_headers: tuple[str, ...] = ()
    response_headers: tuple[tuple[str, str], ...] = ()
    """For the answer, where its headers are shown to the picker."""
    pick: str = ""
    """The number that the access log shall bring back; "" where none is awaited."""
    model: str = ""
    """The model that was asked for, for the access log; told where a number is told."""
    target: str = ""
    """The model in its place, for the same; "" where there is none."""
    decision: str = ""
    """How it came about, for a client that may know; "" for all others."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request is answered with an error at once."""

    error: ApiError
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Respond:
    """The request is answered with this JSON at once."""

    body: bytes


Answer = Forward | Refuse | Respond


def _set(name: str, value: str) -> base_pb2.HeaderValueOption:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, raw_value=value.encode("utf-8", "surrogateescape")),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


@lru_cache(maxsize=4096)
def _destination_parts(destination: str) -> tuple[bytes, bytes]:
    """The serialized `dynamic_metadata` field and header of a destination, which repeat."""
    response = pb.ProcessingResponse()
    response.dynamic_metadata[DESTINATION_NAMESPACE] = {DESTINATION_ENDPOINT: destination}
    mutation = pb.HeaderMutation(set_headers=[_set(DESTINATION_ENDPOINT, destination)])
    return _serialized(response), mutation.SerializeToString()


def header_mutation(forward: Forward, destination: str, content_length: int | None) -> bytes:
    """The serialized HeaderMutation of a pick. Repeated fields of two messages simply add up."""
    data = _destination_parts(destination)[1]
    if content_length is None and not forward.set_headers and not forward.removed_headers:
        return data
    more = pb.HeaderMutation(
        set_headers=[_set(*header) for header in forward.set_headers],
        remove_headers=forward.removed_headers,
    )
    if content_length is not None:
        more.set_headers.append(_set("content-length", str(content_length)))
    rest: bytes = more.SerializeToString()
    return data + rest


def picked(
    forward: Forward,
    destination: str,
    *,
    in_body_response: bool,
    content_length: int | None,
    body: bytes | None = None,
) -> bytes:
    """The response that carries a pick: a HeadersResponse, or a BodyResponse with a new body.

    Written field by field, since protobuf's own encoder would copy the body three times:
    ProcessingResponse {request_headers = 1 | request_body = 3} {response = 1} CommonResponse
    {header_mutation = 2, body_mutation = 3} BodyMutation {body = 1}; dynamic_metadata = 8.
    """
    common = [_field(2, header_mutation(forward, destination, content_length))]
    if body is not None:
        common.append(_field(3, _field(1, body)))
    response = _field(1, b"".join(common))
    metadata = _destination_parts(destination)[0]
    if forward.pick or forward.decision:
        # A second `dynamic_metadata` merges with the first, as protobuf's fields do.
        model, target = _loggable(forward.model), _loggable(forward.target)
        metadata += _pick_metadata(forward.pick, model, target, forward.decision)
    return _field(3 if in_body_response else 1, response) + metadata


def _pick_metadata(pick: str, model: str, target: str, decision: str) -> bytes:
    """`dynamic_metadata {pointsman: {pick: "...", model: "..."}}`, by hand: it never repeats.

    Struct {map fields = 1 of key = 1, value = 2}, Value {string_value = 3 | struct_value = 5}.
    """
    facts = {PICK_KEY: pick, MODEL_KEY: model, TARGET_KEY: target, DECISION_KEY: decision}
    inner = b"".join(_entry(key, value) for key, value in facts.items() if value)
    outer = _field(1, _field(1, PICK_NAMESPACE.encode()) + _field(2, _field(5, inner)))
    return _field(8, outer)


def _entry(key: str, value: str) -> bytes:
    return _field(1, _field(1, key.encode()) + _field(2, _field(3, value.encode())))


def _loggable(model: str) -> str:
    """A client's word as it may stand in a line of a log: short, and no end of the line in it."""
    short = model[:MAX_LOGGED_CHARACTERS]
    if short.isprintable() and '"' not in short:
        return short
    return "".join(c if c.isprintable() and c != '"' else "?" for c in short)


def metadata_only(destination: str) -> bytes:
    """The serialized `dynamic_metadata` of a pick, to follow another message."""
    return _destination_parts(destination)[0]


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field of protobuf's wire format."""
    return bytes((number << 3 | 2,)) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def body_replaced(body: bytes) -> bytes:
    """The answer to one message of a streamed request body, with another body in its place."""
    mutation = pb.BodyMutation(body=body)
    response = pb.BodyResponse(response=pb.CommonResponse(body_mutation=mutation))
    return _serialized(pb.ProcessingResponse(request_body=response))


def echoed_request_body(body: bytes, *, is_end: bool) -> list[bytes]:
    """A request body in full duplex, in chunks; the last one ends it unless trailers follow."""
    last = max(0, len(body) - 1) // CHUNK_BYTES * CHUNK_BYTES
    return [
        _serialized(
            pb.ProcessingResponse(
                request_body=_streamed(
                    body[start : start + CHUNK_BYTES], is_end=is_end and start == last
                )
            )
        )
        for start in range(0, last + 1, CHUNK_BYTES)
    ]


def echoed_response_body(body: bytes, *, is_end: bool) -> list[bytes]:
    """A part of a response body in full duplex."""
    last = max(0, len(body) - 1) // CHUNK_BYTES * CHUNK_BYTES
    return [
        _serialized(
            pb.ProcessingResponse(
                response_body=_streamed(
                    body[start : start + CHUNK_BYTES], is_end=is_end and start == last
                )
            )
        )
        for start in range(0, last + 1, CHUNK_BYTES)
    ]


def _streamed(chunk: bytes, *, is_end: bool) -> pb.BodyResponse:
    streamed = pb.StreamedBodyResponse(body=chunk, end_of_stream=is_end)
    mutation = pb.BodyMutation(streamed_response=streamed)
    return pb.BodyResponse(response=pb.CommonResponse(body_mutation=mutation))


def response_headers_with(headers: Iterable[tuple[str, str]]) -> bytes:
    """The answer to response headers that sets some more."""
    mutation = pb.HeaderMutation(set_headers=[_set(*header) for header in headers])
    response = pb.HeadersResponse(response=pb.CommonResponse(header_mutation=mutation))
    return _serialized(pb.ProcessingResponse(response_headers=response))


def refused(refuse: Refuse) -> bytes:
    """The error as Envoy's immediate response."""
    error = refuse.error
    headers: list[tuple[str, str]] = [("content-type", "application/json"), *refuse.headers]
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    response = pb.ImmediateResponse(
        body=error.body(),
        details=OWN_DETAILS,
        headers=pb.HeaderMutation(set_headers=[_set(*header) for header in headers]),
    )
    response.status.code = error.status
    return _serialized(pb.ProcessingResponse(immediate_response=response))


def responded(respond: Respond) -> bytes:
    """The answer as Envoy's immediate response."""
    response = pb.ImmediateResponse(
        body=respond.body,
        details=OWN_DETAILS,
        headers=pb.HeaderMutation(set_headers=[_set("content-type", "application/json")]),
    )
    response.status.code = 200
    return _serialized(pb.ProcessingResponse(immediate_response=response))


def wait_longer(seconds: float) -> bytes:
    """Asks Envoy to go on waiting for this answer (within its `max_message_timeout`)."""
    response = pb.ProcessingResponse()
    response.override_message_timeout.FromNanoseconds(int(seconds * 1e9))
    return _serialized(response)


def joined(endpoints: Iterable[str]) -> str:
    """The value of a destination: a list in the order of fallback."""
    return ",".join(endpoints)
