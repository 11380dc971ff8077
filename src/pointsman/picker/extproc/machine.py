"""One ext_proc stream as a state machine: requests in, events and serialized responses out.

What decides how a request is answered is the stream itself: its first message carries
`protocol_config` with the body modes that Envoy was configured with (Envoy 1.31 and newer; for
older ones the machine is told what to assume). R is the rule for the request side:

    request            | headers are answered | the pick is asked for   | the pick goes out with
    -------------------+----------------------+-------------------------+-------------------------
    without a body     | with the pick        | at the headers          | the headers
    NONE, GRPC         | with the pick        | at the headers, blind   | the headers
    STREAMED           | with the pick        | at the headers, blind   | the headers
    STREAMED, no wait  | with the pick        | at the end of the body  | the headers, then chunks
    the same, trailers | with the pick        | at the headers, blind   | the headers
    BUFFERED, PARTIAL  | at once, empty       | at the body             | the body
    FULL_DUPLEX        | with the pick        | at the end of the body  | the headers, then chunks
                       |                      | or at the trailers      |

- "no wait" is `send_body_without_waiting_for_header_response`. Without it Envoy holds the body back
  until the headers are answered, so a picker that waited for the body would wait for ever.
- In STREAMED each body message gets exactly one answer; in full duplex any number of chunks does.
- In BUFFERED Envoy picks the host after the body's answer, so the pick may come there.
- The header carries one endpoint, since an ORIGINAL_DST cluster answers 503 to a list; a gateway
  that is known to take lists (`takes_lists`) gets the whole order, in header and metadata alike.
- The response side is echoed as it comes; only headers may be added (a decision that was asked for,
  the token of a session). It may begin at any time, also before the pick, when Envoy or a filter
  answers by itself; then the pick is dropped.
- With `observability_mode` Envoy expects no answer, and none is given.
- After an immediate response nothing more is answered.
- A message that may not come where it comes is a ProtocolViolationError; the owner of the stream
  ends it with a status, and nothing else is hurt.

States: NEW -(headers)-> BODY or DECIDING -(end of body)-> DECIDING -(answer)-> ANSWERED;
NEW, BODY, DECIDING, ANSWERED -(response headers)-> RESPONSE; any -(refusal)-> CLOSED.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from pointsman.inference.headers import (
    DECISION,
    DESTINATION_ENDPOINT_SERVED,
    DESTINATION_NAMESPACE,
)
from pointsman.picker.extproc import answers
from pointsman.picker.extproc.answers import Answer, Refuse, Respond

MAX_BODY_BYTES = 50 * 1024 * 1024
"""The largest body that is collected; the gateway's own buffer limit."""


class Mode(IntEnum):
    """Envoy's BodySendMode."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    GRPC = 5


class State(Enum):
    """Where a stream stands."""

    NEW = "new"
    BODY = "body"
    DECIDING = "deciding"
    ANSWERED = "answered"
    RESPONSE = "response"
    CLOSED = "closed"


class ProtocolViolationError(Exception):
    """A message came where it may not come; the text says which."""


class BodyTooLargeError(Exception):
    """The request's body is larger than what is collected."""


class Decide(NamedTuple):
    """The request is known as far as it will be: call `answer`."""

    headers: dict[str, str]
    """Names in lower case; of headers that repeat, the first."""
    body: bytes | None
    """None where the body is not seen: the mode does not send it, or there is none."""
    is_complete: bool
    """False when `body` is only the beginning."""
    metadata: Any
    """The `metadata_context` of the headers message (envoy.config.core.v3.Metadata)."""


class ResponseStarted(NamedTuple):
    """The response's headers have come."""

    status: int
    served: str | None
    """The endpoint that answered, if the data plane says so."""


class ResponseChunk(NamedTuple):
    """Bytes of the response's body have come."""

    size: int
    is_end: bool


class RequestAbandoned(NamedTuple):
    """The response began before the pick was made: there is nothing left to answer."""


Event = Decide | ResponseStarted | ResponseChunk | RequestAbandoned


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What the stream does not say."""

    mode: Mode = Mode.FULL_DUPLEX_STREAMED
    """The request's body mode where the first message has no `protocol_config`."""
    takes_lists: bool = False
    """Our own gateway: a list of endpoints may go out, and a decision goes by the metadata."""
    asks_for_response_headers: bool = False
    """Whether our own gateway shall show the headers of the answer, which it does not by itself."""


class Machine:
    """The state of one stream."""

    __slots__ = (
        "_assumptions",
        "_body",
        "_body_messages",
        "_headers",
        "_is_answer_in_body",
        "_is_silent",
        "_metadata",
        "_response_headers",
        "_waits_for_headers",
        "_was_trailers",
        "held_bytes",
        "out",
        "request_mode",
        "response_mode",
        "state",
    )

    def __init__(self, assumptions: Assumptions) -> None:
        self.state = State.NEW
        self.out: list[bytes] = []
        """Serialized ProcessingResponses that are to be sent, in order; take them out."""
        self.held_bytes = 0
        """Bytes of the request's body that are kept until the answer."""
        self.request_mode = assumptions.mode
        self.response_mode = Mode.NONE
        self._assumptions = assumptions
        self._headers: dict[str, str] = {}
        self._metadata: Any = None
        self._body: list[bytes] = []
        self._body_messages = 0
        self._response_headers: tuple[tuple[str, str], ...] = ()
        self._waits_for_headers = True
        self._is_silent = False
        self._is_answer_in_body = False
        self._was_trailers = False

    @property
    def owes_an_answer(self) -> bool:
        """Whether the request has come and the pick has not gone out."""
        return self.state in (State.NEW, State.BODY, State.DECIDING)

    def receive(self, message: Any) -> Event | None:
        """Take in one ProcessingRequest; tells what it means, if anything.

        Raises:
            ProtocolViolationError: the message may not come here.
            BodyTooLargeError: the body outgrows `MAX_BODY_BYTES`.
        """
        kind = message.WhichOneof("request")
        if self.state is State.CLOSED:
            return None
        if self.state is State.NEW:
            self._configure(message)
        if kind == "request_headers":
            event = self._on_request_headers(message)
        elif kind == "request_body":
            event = self._on_request_body(message.request_body)
        elif kind == "request_trailers":
            event = self._on_request_trailers()
        elif kind == "response_headers":
            event = self._on_response_headers(message)
        elif kind == "response_body":
            event = self._on_response_body(message.response_body)
        elif kind == "response_trailers":
            event = self._on_response_trailers()
        else:
            raise ProtocolViolationError("a message without content")
        if self._is_silent:
            self.out.clear()
        return event

    def answer(self, answer: Answer) -> None:
        """Answer a `Decide`, at once or later."""
        if self.state is not State.DECIDING:
            return
        if isinstance(answer, Refuse):
            self.out.append(answers.refused(answer))
            self._close()
        elif isinstance(answer, Respond):
            self.out.append(answers.responded(answer))
            self._close()
        else:
            self._forward(answer)
            self._response_headers = answer.response_headers
            if answer.decision and not self._assumptions.takes_lists:
                self._response_headers += ((DECISION, answer.decision),)
            self.state = State.ANSWERED
            self._drop_body()
        if self._is_silent:
            self.out.clear()

    def refuse(self, refuse: Refuse) -> None:
        """Answer with an error wherever the request side stands."""
        if self.state in (State.BODY, State.DECIDING, State.NEW):
            self.state = State.DECIDING
            self.answer(refuse)

    def hold(self, seconds: float) -> None:
        """Ask Envoy for more time before the answer."""
        if self.state is State.DECIDING and not self._is_silent:
            self.out.append(answers.wait_longer(seconds))

    def _close(self) -> None:
        self.state = State.CLOSED
        self._drop_body()

    def _drop_body(self) -> None:
        self._body = []
        self.held_bytes = 0

    def _configure(self, message: Any) -> None:
        self._is_silent = message.observability_mode
        if not message.HasField("protocol_config"):
            if self._assumptions.mode is Mode.FULL_DUPLEX_STREAMED:
                self.response_mode = Mode.FULL_DUPLEX_STREAMED
            return
        config = message.protocol_config
        try:
            self.request_mode = Mode(config.request_body_mode)
            self.response_mode = Mode(config.response_body_mode)
        except ValueError as error:
            raise ProtocolViolationError(f"an unknown body mode: {error}") from error
        self._waits_for_headers = not config.send_body_without_waiting_for_header_response

    # ── the request side ─────────────────────────────────────────────────────

    def _on_request_headers(self, message: Any) -> Event | None:
        if self.state is not State.NEW:
            raise ProtocolViolationError("request headers came twice")
        http = message.request_headers
        headers: dict[str, str] = {}
        for header in http.headers.headers:
            raw = header.raw_value
            # Values are only looked at: records, errors and bodies that name them must be UTF-8.
            value = raw.decode("utf-8", "replace") if raw else header.value
            headers.setdefault(header.key.lower(), value)
        self._headers = headers
        self._metadata = message.metadata_context
        mode = self.request_mode
        if http.end_of_stream or mode in (Mode.NONE, Mode.GRPC):
            return self._decide(None, is_complete=bool(http.end_of_stream))
        # Trailers come only when the body before them is answered, so its end would not be known.
        if mode is Mode.STREAMED and (self._waits_for_headers or "trailer" in headers):
            return self._decide(None, is_complete=False)
        if mode in (Mode.BUFFERED, Mode.BUFFERED_PARTIAL):
            go_on = answers.REQUEST_HEADERS_GO_ON
            if self._assumptions.asks_for_response_headers:
                go_on += answers.SHOW_RESPONSE_HEADERS
            self.out.append(go_on)
        self.state = State.BODY
        return None

    def _on_request_body(self, body: Any) -> Event | None:
        if self.state is State.BODY:
            data: bytes = body.body
            self.held_bytes += len(data)
            self._body_messages += 1
            if self.held_bytes > MAX_BODY_BYTES:
                raise BodyTooLargeError
            if data:
                self._body.append(data)
            if self.request_mode in (Mode.BUFFERED, Mode.BUFFERED_PARTIAL):
                self._is_answer_in_body = True
                is_complete = body.end_of_stream or self.request_mode is Mode.BUFFERED
                return self._decide(self._joined(), is_complete=is_complete)
            if body.end_of_stream:
                return self._decide(self._joined(), is_complete=True)
            return None
        if self.state in (State.ANSWERED, State.RESPONSE):
            # Blind picks let the body pass; after an early response its rest may still come.
            if self.request_mode is Mode.FULL_DUPLEX_STREAMED:
                self.out.extend(answers.echoed_request_body(body.body, is_end=body.end_of_stream))
            else:
                self.out.append(answers.REQUEST_BODY_GO_ON)
            return None
        if self.state is State.DECIDING and self.request_mode is Mode.BUFFERED_PARTIAL:
            return None
        raise ProtocolViolationError(f"a request body in state {self.state.value}")

    def _on_request_trailers(self) -> Event | None:
        if self.state is State.BODY:
            self._was_trailers = True
            return self._decide(self._joined(), is_complete=True)
        if self.state is State.NEW:
            raise ProtocolViolationError("request trailers before headers")
        if self.state is State.DECIDING:
            self._was_trailers = True
        else:
            self.out.append(answers.REQUEST_TRAILERS_GO_ON)
        return None

    def _joined(self) -> bytes:
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    def _decide(self, body: bytes | None, *, is_complete: bool) -> Decide:
        self.state = State.DECIDING
        return Decide(self._headers, body, is_complete, self._metadata)

    def _forward(self, forward: answers.Forward) -> None:
        endpoints = forward.endpoints
        destination = answers.joined(endpoints) if self._assumptions.takes_lists else endpoints[0]
        new_length = None if forward.body is None else len(forward.body)
        if self._is_answer_in_body:
            self.out.append(
                answers.picked(
                    forward,
                    destination,
                    in_body_response=True,
                    content_length=new_length,
                    body=forward.body,
                )
            )
        elif self._body_messages:
            self._forward_held_body(forward, destination)
        elif self.request_mode in (Mode.BUFFERED, Mode.BUFFERED_PARTIAL) and self._was_trailers:
            # Headers were answered and no body came: only the metadata can still carry the pick.
            self.out.append(answers.REQUEST_TRAILERS_GO_ON + answers.metadata_only(destination))
            return
        else:
            data = answers.picked(forward, destination, in_body_response=False, content_length=None)
            if self._assumptions.asks_for_response_headers:
                data += answers.SHOW_RESPONSE_HEADERS
            self.out.append(data)
        if self._was_trailers:
            self.out.append(answers.REQUEST_TRAILERS_GO_ON)

    def _forward_held_body(self, forward: answers.Forward, destination: str) -> None:
        body = self._joined() if forward.body is None else forward.body
        self.out.append(
            answers.picked(
                forward,
                destination,
                in_body_response=False,
                # Envoy drops the length of a body that may change; the model server likes one.
                content_length=None if self._was_trailers else len(body),
            )
        )
        if self.request_mode is Mode.FULL_DUPLEX_STREAMED:
            self.out.extend(answers.echoed_request_body(body, is_end=not self._was_trailers))
        elif forward.body is None:
            self.out.extend([answers.REQUEST_BODY_GO_ON] * self._body_messages)
        else:
            self.out.append(answers.body_replaced(body))
            self.out.extend([answers.REQUEST_BODY_DROPPED] * (self._body_messages - 1))

    # ── the response side ────────────────────────────────────────────────────

    def _on_response_headers(self, message: Any) -> Event:
        if self.state is State.RESPONSE:
            raise ProtocolViolationError("response headers came twice")
        was_unanswered = self.state in (State.BODY, State.DECIDING)
        self.state = State.RESPONSE
        self._drop_body()
        if self._response_headers:
            self.out.append(answers.response_headers_with(self._response_headers))
        else:
            self.out.append(answers.RESPONSE_HEADERS_GO_ON)
        if was_unanswered:
            return RequestAbandoned()
        return ResponseStarted(_status(message.response_headers), _served(message))

    def _on_response_body(self, body: Any) -> Event:
        self._begin_response("a response body")
        if self.response_mode is Mode.FULL_DUPLEX_STREAMED:
            self.out.extend(answers.echoed_response_body(body.body, is_end=body.end_of_stream))
        else:
            self.out.append(answers.RESPONSE_BODY_GO_ON)
        return ResponseChunk(len(body.body), bool(body.end_of_stream))

    def _on_response_trailers(self) -> Event | None:
        self._begin_response("response trailers")
        self.out.append(answers.RESPONSE_TRAILERS_GO_ON)
        return None

    def _begin_response(self, what: str) -> None:
        """Bodies and trailers come first where response headers are skipped."""
        if self.state in (State.BODY, State.DECIDING):
            raise ProtocolViolationError(f"{what} while the request is open")
        self.state = State.RESPONSE


def _status(headers: Any) -> int:
    for header in headers.headers.headers:
        if header.key == ":status":
            text = header.raw_value.decode("latin-1") or header.value
            return int(text) if text.isdecimal() and len(text) <= 3 else 0
    return 0


def _served(message: Any) -> str | None:
    metadata = message.metadata_context.filter_metadata
    if DESTINATION_NAMESPACE not in metadata:
        return None
    fields = metadata[DESTINATION_NAMESPACE].fields
    if DESTINATION_ENDPOINT_SERVED not in fields:
        return None
    return fields[DESTINATION_ENDPOINT_SERVED].string_value or None
