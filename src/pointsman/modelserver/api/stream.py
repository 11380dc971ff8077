"""Server-sent events: one event per token, all that is due in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from pointsman.modelserver.api.generation import Choice, Generation
from pointsman.modelserver.failures import break_off

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica

_WRITE_DEADLINE_S = 120.0
"""A client that reads nothing for this long is given up."""

_BUFFERED_LIMIT = 64 * 1024
"""Bytes that may wait for a slow client before the stream waits for it."""

_EVENTS_BEFORE_CUT = 3
"""Writes that an answer which is to break off still gets out."""

DONE = b"data: [DONE]\n\n"

TokenEvent = Callable[[Choice, int, bool], bytes]
"""Writes the event of one token: the choice, the token's number, whether it is the last."""


def open_stream(replica: Replica, request: web.BaseRequest) -> EventStream:
    """The stream that answers a request."""
    breaks_off = replica.failures.cuts(request)
    return EventStream(request, replica.headers_for(request), breaks_off=breaks_off)


class EventStream:
    """The answer to a streamed request."""

    def __init__(
        self, request: web.BaseRequest, headers: dict[str, str], *, breaks_off: bool = False
    ) -> None:
        self._request = request
        self._breaks_off = breaks_off
        self._sent = 0
        self._response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                **headers,
            }
        )

    async def open(self) -> None:
        """Sends the head."""
        async with asyncio.timeout(_WRITE_DEADLINE_S):
            await self._response.prepare(self._request)

    async def send(self, data: bytes) -> None:
        """Sends some events.

        Raises:
            TimeoutError: if the client reads nothing.
            ConnectionResetError: if this answer is to break off.
        """
        if not data:
            return  # an empty chunk would end the answer
        self._sent += 1
        if self._breaks_off and self._sent > _EVENTS_BEFORE_CUT:
            break_off(self._request)
        transport = self._request.transport
        if transport is not None and transport.get_write_buffer_size() > _BUFFERED_LIMIT:
            async with asyncio.timeout(_WRITE_DEADLINE_S):
                await self._response.write(data)
        else:
            await self._response.write(data)

    async def close(self) -> web.StreamResponse:
        """Ends the answer."""
        async with asyncio.timeout(_WRITE_DEADLINE_S):
            await self._response.write_eof()
        return self._response


async def stream_tokens(generation: Generation, stream: EventStream, event: TokenEvent) -> None:
    """Sends an event for each token as it comes out, until every choice has ended.

    A choice that was aborted gets one more event, so that its finish reason is told.
    """
    session = generation.session
    sent = [0] * len(generation.choices)
    done: set[int] = set()
    while True:
        is_over = session.open == 0
        parts: list[bytes] = []
        for choice in generation.choices:
            index = choice.index
            if index in done:
                continue
            sequence = choice.sequence
            has_ended = sequence.finished_s is not None
            upto = sequence.generated
            parts += [
                event(choice, token, has_ended and token == upto - 1)
                for token in range(sent[index], upto)
            ]
            if has_ended:
                done.add(index)
                if sent[index] == upto:
                    parts.append(event(choice, upto, True))
            sent[index] = upto
        if parts:
            await stream.send(b"".join(parts))
        if is_over:
            return
        await session.changed()


def sse(body: object) -> bytes:
    """One event with a JSON body."""
    return b"data: " + orjson.dumps(body) + b"\n\n"
