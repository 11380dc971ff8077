"""One model server: its engine, its models, its metrics, and the way of a request through it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

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
from pointsman.modelserver.api.generation import busy
from pointsman.modelserver.api.messages import error_response
from pointsman.modelserver.api.routes import (
    GENERATION_PATHS,
    LORA_PATHS,
    MESSAGES_PATHS,
    POST_HANDLERS,
    Handler,
    get_handlers,
)
from pointsman.modelserver.api.stream import EventStream
from pointsman.modelserver.driver import EngineDriver, Session
from pointsman.modelserver.engine import Engine, QueueFullError, StepResult, TooLongError
from pointsman.modelserver.failures import FailureInjector, break_off
from pointsman.modelserver.metrics import EngineMetrics
from pointsman.modelserver.options import ServerOptions
from pointsman.modelserver.prose import Prose
from pointsman.modelserver.runtime import Conduct
from pointsman.modelserver.served import ServedModels
from pointsman.modelserver.traffic import HttpTraffic, write_process

_log = logging.getLogger(__name__)

_BODY_DEADLINE_S = 60.0
"""How long a client may take to send its body."""

# Paths that the web framework beneath vLLM does not count.
_UNCOUNTED = frozenset(("/metrics", "/health", "/ping", "/version", "/load"))


class Replica:
    """One engine behind one address. Must be made while the event loop runs.

    Replicas of one process share `prose`, which is the same for all.
    """

    def __init__(self, options: ServerOptions, prose: Prose, number: int = 0) -> None:
        self.options = options
        self.number = number
        self.started_s = time.time()
        self.prose = prose
        self.tokenizer = prose.tokenizer
        capacity = options.capacity
        self.models = ServedModels(
            options.model, options.names, capacity.max_model_len, options.adapters
        )
        engine = Engine(
            options.timing,
            capacity,
            seed=options.seed + number,
            records_events=options.events is not None,
        )
        self.metrics = EngineMetrics(engine, self.models.primary, has_lora=options.has_lora)
        self.traffic = HttpTraffic()
        self.driver = EngineDriver(
            engine, scale=options.time_scale, on_step=self._stepped, on_end=self.metrics.ended
        )
        self.step_listeners: list[Callable[[StepResult], None]] = []
        self.conduct = Conduct(
            answer_median_tokens=options.answer_median_tokens,
            echoes=options.echoes,
            names_itself=options.names_itself,
        )
        self.failures = FailureInjector(
            options.failures.rate, options.failures.kinds, options.seed + number
        )
        self.idle = asyncio.Event()
        """Set while no request is being answered; scrapes and health checks do not count."""
        self.idle.set()
        self._in_progress = 0
        self._requests = 0
        self._updates_adapters = options.has_lora and options.allows_lora_updates
        self._gets = get_handlers()

    def next_request(self) -> int:
        """The number of this request, which makes answers differ that shall differ."""
        self._requests += 1
        return self._requests

    def submit(self, session: Session) -> None:
        """Starts a session.

        Raises:
            RequestError: 503 if the queue is full, 400 if it could never run.
        """
        try:
            self.driver.submit(session)
        except QueueFullError as error:
            self.metrics.rejected(error.reason)
            raise busy() from None
        except TooLongError as error:
            raise RequestError(400, str(error)) from None

    def script_of(self, text: Any) -> str | None:
        """What to say in echo mode: the user's words."""
        if self.conduct.echoes and isinstance(text, str):
            return text
        return None

    def event_stream(self, request: web.BaseRequest) -> EventStream:
        """The stream that answers a request."""
        return EventStream(
            request, self.headers_for(request), breaks_off=self.failures.cuts(request)
        )

    def headers_for(self, request: web.BaseRequest) -> dict[str, str]:
        """Headers that go with an answer: which pod gave it, if known, and the request's id."""
        headers = {}
        if self.options.pod:
            headers["x-inference-pod"] = self.options.pod
            headers["x-inference-namespace"] = self.options.namespace
        given = request.headers.get("X-Request-Id")
        if given is not None and self.options.echoes_request_id:
            headers["X-Request-Id"] = given
        return headers

    def metrics_text(self) -> bytes:
        """The body of `/metrics`, as of this moment."""
        self.driver.catch_up()
        lines: list[str] = []
        write_process(lines, self.started_s)
        self.metrics.write(lines)
        self.traffic.write(lines)
        lines.append("")
        return "\n".join(lines).encode()

    def _stepped(self, result: StepResult) -> None:
        self.metrics.stepped(result)
        for listener in self.step_listeners:
            listener(result)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one HTTP request."""
        path = request.path
        if path in _UNCOUNTED:
            return await self._dispatch(request, path)
        started = time.perf_counter()
        self._in_progress += 1
        self.idle.clear()
        try:
            response = await self._dispatch(request, path)
        finally:
            self._in_progress -= 1
            if self._in_progress == 0:
                self.idle.set()
        known = path if path in POST_HANDLERS or path in self._gets else "none"
        length = request.content_length or 0
        body_length = response.content_length or 0
        self.traffic.observe(
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
        if path in LORA_PATHS and not self._updates_adapters:
            return detail_response(404, "Not Found")
        if path.startswith("/v1/") and not self._is_authorized(request):
            problem = RequestError(401, UNAUTHORIZED, UNAUTHORIZED)
            return json_response(problem.body(), problem.status)
        if method == hdrs.METH_POST and (handler := POST_HANDLERS.get(path)) is not None:
            return await self._answer(request, handler)
        if method in (hdrs.METH_GET, hdrs.METH_HEAD) and (get := self._gets.get(path)) is not None:
            return get(self, request)
        if path in POST_HANDLERS or path in self._gets:
            return detail_response(405, "Method Not Allowed")
        return detail_response(404, "Not Found")

    async def _answer(self, request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        try:
            body = await _read(request)
            if request.path in GENERATION_PATHS:
                self._refuse_if_ending()
                await self.failures.apply(request)
            response = await handler(self, request, body)
            if self.failures.cuts(request):
                break_off(request)
            return response
        except RequestError as problem:
            headers = self.headers_for(request)
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
            self.failures.forget(request)

    def _refuse_if_ending(self) -> None:
        status = self.conduct.refuses_with
        if status == 500:
            raise RequestError(500, "cannot schedule new futures after shutdown", INTERNAL)
        if status:
            raise RequestError(status, "The server is ending.", UNAVAILABLE)

    def _is_authorized(self, request: web.BaseRequest) -> bool:
        keys = self.options.api_keys
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
