"""The ext_proc service: a machine for each stream, a director for its question.

A stream that breaks the protocol ends with a status and hurts nothing else. The load of a request
is released when its stream ends, however it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf.message import DecodeError

from pointsman.inference.errors import ApiError
from pointsman.inference.headers import POOL_METADATA, TRUST_DEBUG_METADATA, TRUST_METADATA
from pointsman.picker.director import NOBODY, Director, Trust
from pointsman.picker.endpoints.table import Reservation
from pointsman.picker.extproc.answers import Refuse
from pointsman.picker.extproc.machine import (
    MAX_BODY_BYTES,
    Assumptions,
    BodyTooLargeError,
    Decide,
    Event,
    Machine,
    Mode,
    ProtocolViolationError,
    ResponseChunk,
    ResponseStarted,
)
from pointsman.picker.report import Labels, Report
from pointsman.wire.grpc import Method, Responder, Status

log = logging.getLogger(__name__)

PROCESS = b"/envoy.service.ext_proc.v3.ExternalProcessor/Process"

_POOL_METADATA = POOL_METADATA.encode()
_TRUST_METADATA = TRUST_METADATA.encode()
_TRUST_DEBUG_METADATA = TRUST_DEBUG_METADATA.encode()
MAX_STREAMS = 100_000
"""On all connections together; our own gateway holds one for each request under way."""
MAX_HELD_BYTES = 1024 * 1024 * 1024
"""Of unfinished request bodies in full duplex, all streams together."""
LINGER_S = 1.0
"""How long a request counts whose end is not seen: until the next reading of metrics shows it."""

_parse = pb.ProcessingRequest.FromString


class ExtProc:
    """The service; one for a process, whatever it listens on."""

    def __init__(
        self,
        director: Director,
        report: Report,
        *,
        default_pool: str | None = None,
        mode_without_config: Mode = Mode.FULL_DUPLEX_STREAMED,
        foreign_trust: Trust = NOBODY,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self.director = director
        self.report = report
        self.clock = clock
        self.unended_streams = 0
        """Streams that have not been closed from both sides."""
        self.started_streams = 0
        """All that were ever opened."""
        self.held_bytes = 0
        """Of request bodies that are not complete, all streams together."""
        self.later = later
        """Calls a function after some seconds; without it nothing lingers."""
        self._default_pool = default_pool
        self._foreign_trust = foreign_trust
        self._ours = Assumptions(mode_without_config, takes_lists=True)
        self._ours_with_answers = replace(self._ours, asks_for_response_headers=True)
        self._foreign = Assumptions(mode_without_config)
        self._streams: set[Stream] = set()
        self._is_draining = False

    @property
    def open_streams(self) -> int:
        """Streams on which a request still lives."""
        return len(self._streams)

    @property
    def busy_streams(self) -> int:
        """Streams whose end now would cut a question or an answer."""
        return sum(stream.is_busy for stream in self._streams)

    def methods(self) -> dict[bytes, Method]:
        """The service's methods by path."""
        return {PROCESS: self._open}

    def drain(self) -> None:
        """End every stream with status 0: the gateway lets running answers go on."""
        self._is_draining = True
        for stream in tuple(self._streams):
            stream.finish()

    def forget(self, stream: Stream) -> None:
        """A stream has ended."""
        self._streams.discard(stream)

    def _open(self, responder: Responder) -> Stream:
        named = responder.header(_POOL_METADATA)
        pool = named.decode("utf-8", "replace") if named is not None else self._default_pool
        if named is None:
            assumptions = self._foreign
        elif self.director.config.answers_headers:
            assumptions = self._ours_with_answers
        else:
            assumptions = self._ours
        trust = self._foreign_trust if named is None else _told_trust(responder)
        stream = Stream(self, responder, pool or "", assumptions, trust)
        self.unended_streams += 1
        self.started_streams += 1
        if len(self._streams) >= MAX_STREAMS:
            stream.finish(Status.RESOURCE_EXHAUSTED, "too many streams are open")
            return stream
        self._streams.add(stream)
        if self._is_draining:
            stream.finish(Status.UNAVAILABLE, "the picker is going away")
        return stream


def _told_trust(responder: Responder) -> Trust:
    """What our own gateway says of the route."""
    objective = responder.header(_TRUST_METADATA) == b"true"
    debug = responder.header(_TRUST_DEBUG_METADATA) == b"true"
    return Trust(objective, debug) if objective or debug else NOBODY


class Stream:
    """One request of the gateway, as a call."""

    __slots__ = (
        "_has_first_chunk",
        "_held_bytes",
        "_is_ours",
        "_knows_the_end",
        "_labels",
        "_machine",
        "_picked_at",
        "_pool",
        "_reservation",
        "_responder",
        "_service",
        "_started",
        "_trust",
    )

    def __init__(
        self,
        service: ExtProc,
        responder: Responder,
        pool: str,
        assumptions: Assumptions,
        trust: Trust,
    ) -> None:
        self._service = service
        self._responder = responder
        self._pool = pool
        self._trust = trust
        self._machine = Machine(assumptions)
        self._held_bytes = 0
        self._labels: Labels | None = None
        self._reservation: Reservation | None = None
        self._started = service.clock()
        self._is_ours = assumptions.takes_lists
        self._knows_the_end = assumptions.takes_lists
        self._has_first_chunk = False
        self._picked_at = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether an answer is owed, or the answer's body passes through here."""
        machine = self._machine
        return machine.owes_an_answer or machine.response_mode is not Mode.NONE

    def received(self, message: bytes) -> None:
        """One ProcessingRequest came."""
        try:
            event = self._machine.receive(_parse(message))
        except (DecodeError, ProtocolViolationError) as error:
            self._service.report.protocol_errors.add(())
            self.finish(Status.INVALID_ARGUMENT, str(error))
            return
        except BodyTooLargeError:
            limit = MAX_BODY_BYTES // (1024 * 1024)
            error_413 = ApiError(413, f"The body is larger than {limit} MiB.", "body_too_large")
            self._machine.refuse(Refuse(error_413))
            event = None
        if event is not None:
            self._on_event(event)
        self._count_held()
        if self._machine.out:
            out, self._machine.out = self._machine.out, []
            self._responder.send(*out)

    def half_closed(self) -> None:
        """The request has ended; or a gateway that shows us no responses has heard enough."""
        self._linger()
        self.finish()

    def gone(self) -> None:
        """The stream has ended, whoever ended it."""
        self._service.unended_streams -= 1
        self._linger()
        self._release()

    def finish(self, status: Status = Status.OK, message: str = "") -> None:
        """End the stream and let the request's load go."""
        self._release()
        self._responder.finish(status, message)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Decide):
            picked = self._service.director.decide(
                self._pool, event, is_logged=self._is_ours, trust=self._trust
            )
            self._picked_at = self._service.clock()
            self._reservation = picked.reservation
            # The outcome holds the body; a stream keeps only what its end needs.
            labels = self._service.report.decided(picked)
            self._labels = labels if picked.reservation is not None else None
            self._machine.answer(picked.answer)
        elif isinstance(event, ResponseStarted):
            self._knows_the_end = True
            self._follow(event.served)
        elif isinstance(event, ResponseChunk):
            self._on_response_chunk(event)

    def _follow(self, served: str | None) -> None:
        """Let the load be where the data plane says that the request has gone."""
        reservation = self._reservation
        if reservation is None or served in (None, reservation.endpoint.address):
            return
        endpoint = self._service.director.pools.endpoint(served or "")
        if endpoint is not None:
            self._reservation = reservation.move(endpoint)
            self._reservation.release_tokens()
            # The time that was lost elsewhere says nothing of how fast this one reads.
            self._has_first_chunk = True

    def _on_response_chunk(self, chunk: ResponseChunk) -> None:
        reservation = self._reservation
        if reservation is not None and not self._has_first_chunk:
            self._has_first_chunk = True
            seconds = self._service.clock() - self._picked_at
            reservation.release_tokens()
            reservation.endpoint.prefill.learn(reservation.tokens, seconds)
        if chunk.is_end:
            self._release()

    def _count_held(self) -> None:
        held, service = self._machine.held_bytes, self._service
        service.held_bytes += held - self._held_bytes
        self._held_bytes = held
        if held and service.held_bytes > MAX_HELD_BYTES:
            message = "The picker holds too many unfinished request bodies."
            self._machine.refuse(Refuse(ApiError(503, message, "overloaded", None, 1)))
            self._count_held()

    def _linger(self) -> None:
        """Keep the load for a moment where the end of the stream is not the end of the request.

        Our own gateway holds a stream open until its request ends, and a gateway that processes
        responses shows their end. From any other one the picker learns nothing more; until the
        server's metrics show the request, the book must.
        """
        reservation, later = self._reservation, self._service.later
        if reservation is None or later is None or self._knows_the_end:
            return
        self._reservation = None
        later(LINGER_S, reservation.release)

    def _release(self) -> None:
        self._service.held_bytes -= self._held_bytes
        self._held_bytes = 0
        self._service.forget(self)
        labels, self._labels = self._labels, None
        if labels is not None:
            self._service.report.ended(labels, self._service.clock() - self._started)
        if self._reservation is not None:
            self._reservation.release()
            self._reservation = None
