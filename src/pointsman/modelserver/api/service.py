"""The way of a request through a replica: dispatch, its body, its handler, its errors."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from pointsman.modelserver.api.errors import (
    INTERNAL,
    UNAUTHORIZED,
    UNAVAILABLE,
    RequestError,
    detail_response,
    json_response,
)
from pointsman.modelserver.api.fields import Body, parse_body
from pointsman.modelserver.api.messages import error_response
from pointsman.modelserver.api.routes import (
    GENERATION_PATHS,
    LORA_PATHS,
    MESSAGES_PATHS,
    POST_HANDLERS,
    Handler,
    get_handlers,
)
from pointsman.modelserver.failures import break_off

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica

_log = logging.getLogger(__name__)

_BODY_DEADLINE_S = 60.0
"""How long a client may take to send its body."""

# Paths that the web framework beneath vLLM does not count.
_UNCOUNTED = frozenset(("/metrics", "/health", "/ping", "/version", "/load"))


class Service:
    """Answers the requests of one replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._gets = get_handlers()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one HTTP request."""
        path = request.path
        if path in _UNCOUNTED:
            return await self._dispatch(request, path)
        started = time.perf_counter()
        with self._replica.answering():
            response = await self._dispatch(request, path)
        known = path if path in POST_HANDLERS or path in self._gets else "none"
        length = request.content_length or 0
        body_length = response.content_length or 0
        self._replica.traffic.observe(
            known,
            request.method,
            response.status,
            time.perf_counter() - started,
            length,
            body_length,
        )
        return response

    async def _dispatch(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        method = request.method
        if path in LORA_PATHS and not self._replica.updates_adapters:
            return detail_response(404, "Not Found")
        if path.startswith("/v1/") and not self._is_authorized(request):
            problem = RequestError(401, UNAUTHORIZED, UNAUTHORIZED)
            return json_response(problem.body(), problem.status)
        if method == hdrs.METH_POST and (handler := POST_HANDLERS.get(path)) is not None:
            return await self._answer(request, handler)
        if method in (hdrs.METH_GET, hdrs.METH_HEAD) and (get := self._gets.get(path)) is not None:
            return get(self._replica, request)
        if path in POST_HANDLERS or path in self._gets:
            return detail_response(405, "Method Not Allowed")
        return detail_response(404, "Not Found")

    async def _answer(self, request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        try:
            body = await _read(request)
            if request.path in GENERATION_PATHS:
                self._refuse_if_ending()
                await self._replica.failures.apply(request)
            response = await handler(self._replica, request, body)
            if self._replica.failures.cuts(request):
                break_off(request)
            return response
        except RequestError as problem:
            headers = self._replica.headers_for(request)
            if problem.status in (429, 503):
                headers["Retry-After"] = "1"
            if request.path in MESSAGES_PATHS:
                return error_response(problem, headers)
            return json_response(problem.body(), problem.status, headers)
        except (ConnectionError, TimeoutError):
            raise  # the client is gone, or reads nothing: there is nobody to tell
        except Exception:
            # A mistake of ours must look like one of vLLM's, and say in the log what it was.
            _log.exception("%s %s failed", request.method, request.path)
            return json_response(RequestError(500, "Internal server error", INTERNAL).body(), 500)
        finally:
            self._replica.failures.forget(request)

    def _refuse_if_ending(self) -> None:
        status = self._replica.conduct.refuses_with
        if status == 500:
            raise RequestError(500, "cannot schedule new futures after shutdown", INTERNAL)
        if status:
            raise RequestError(status, "The server is ending.", UNAVAILABLE)

    def _is_authorized(self, request: web.BaseRequest) -> bool:
        keys = self._replica.options.api_keys
        if not keys:
            return True
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return given in keys or request.headers.get("x-api-key") in keys


async def _read(request: web.BaseRequest) -> Body:
    try:
        async with asyncio.timeout(_BODY_DEADLINE_S):
            data = await request.read()
    except TimeoutError:
        raise RequestError(408, "The body did not arrive in time.", "Timeout") from None
    except web.HTTPRequestEntityTooLarge:
        raise RequestError(413, "The body is too large.", "Payload Too Large") from None
    return parse_body(data) if data else {}
