"""Failures on purpose: by chance at a configured rate, or asked for by one request.

| kind | what the client sees |
| --- | --- |
| `rate_limit` | 429 |
| `invalid_api_key` | 401 |
| `context_length`, `invalid_request` | 400 |
| `model_not_found` | 404 |
| `server_error` | 500 |
| `unavailable` | 503 |
| `disconnect` | the connection closes without an answer |
| `cut` | a stream breaks off after its first tokens; a plain answer as `disconnect` |
| `hang` | no answer, until the client gives up |

A request asks with the header `X-Fail: KIND`, or with `X-Return-Error: STATUS` (the header of
llm-d's simulator).
"""

from __future__ import annotations

import asyncio
import random

from aiohttp import web

from pointsman.modelserver.api.errors import (
    BAD_REQUEST,
    INTERNAL,
    NOT_FOUND,
    UNAVAILABLE,
    RequestError,
)

_ANSWERS: dict[str, tuple[int, str, str]] = {
    "rate_limit": (429, "Rate limit reached (injected).", "RateLimitError"),
    "invalid_api_key": (401, "Incorrect API key provided (injected).", "AuthenticationError"),
    "context_length": (400, "The context length is exceeded (injected).", BAD_REQUEST),
    "invalid_request": (400, "Invalid request (injected).", BAD_REQUEST),
    "model_not_found": (404, "The model does not exist (injected).", NOT_FOUND),
    "server_error": (500, "Internal server error (injected).", INTERNAL),
    "unavailable": (503, "Service unavailable (injected).", UNAVAILABLE),
}

KINDS = (*_ANSWERS, "disconnect", "cut", "hang")
"""Every kind of failure."""

_HANG_S = 3600.0


class FailureInjector:
    """Decides which requests fail, repeatably for a seed."""

    def __init__(self, rate: float, kinds: tuple[str, ...], seed: int) -> None:
        self.rate = rate
        self.kinds = checked_kinds(kinds)
        self._random = random.Random(seed)
        self._cut: set[int] = set()
        """Requests in progress whose stream is to break off; `forget` takes them out."""

    async def apply(self, request: web.BaseRequest) -> None:
        """Lets this request fail, if its turn has come.

        Raises:
            RequestError: for the kinds that answer.
            ConnectionResetError: for those that do not.
        """
        status = request.headers.get("X-Return-Error")
        if status is not None:
            raise _by_status(status)
        kind = request.headers.get("X-Fail")
        if kind is None:
            if not self.rate or self._random.random() >= self.rate:
                return
            kind = self._random.choice(self.kinds)
        if kind == "cut":
            self._cut.add(id(request))
            return
        await _fail(kind, request)

    def cuts(self, request: web.BaseRequest) -> bool:
        """True if the stream that answers this request shall break off."""
        return id(request) in self._cut

    def forget(self, request: web.BaseRequest) -> None:
        """The request is over."""
        self._cut.discard(id(request))


async def _fail(kind: str, request: web.BaseRequest) -> None:
    if kind in _ANSWERS:
        status, message, name = _ANSWERS[kind]
        raise RequestError(status, message, name)
    if kind == "hang":
        await asyncio.sleep(_HANG_S)
    elif kind != "disconnect":
        raise RequestError(400, f"X-Fail: unknown kind {kind!r}, one of {', '.join(KINDS)}.")
    break_off(request)


def break_off(request: web.BaseRequest) -> None:
    """Closes the connection as a crash would.

    Raises:
        ConnectionResetError: always, to end the handler.
    """
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError("broken off on purpose")


def checked_kinds(kinds: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds, if all are known.

    Raises:
        ValueError: if one is not, or there are none.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"failure types {unknown}: expected some of {', '.join(KINDS)}")
    return kinds


def _by_status(status: str) -> RequestError:
    if not status.isdigit() or not 400 <= int(status) <= 599:
        return RequestError(400, "X-Return-Error has to be a status from 400 to 599.")
    return RequestError(int(status), f"Error {status} (injected).", "InjectedError")
