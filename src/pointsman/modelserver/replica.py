"""One model server: its engine, its models, its metrics. `api.service` is the way of a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from pointsman.modelserver.api.errors import RequestError, busy
from pointsman.modelserver.conduct import Conduct
from pointsman.modelserver.driver import EngineDriver, Session
from pointsman.modelserver.engine import Engine, QueueFullError, StepResult, TooLongError
from pointsman.modelserver.failures import FailureInjector
from pointsman.modelserver.metrics import EngineMetrics
from pointsman.modelserver.options import ServerOptions
from pointsman.modelserver.prose import Prose
from pointsman.modelserver.served import ServedModels
from pointsman.modelserver.traffic import HttpTraffic, write_process


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
        self.updates_adapters = options.has_lora and options.allows_lora_updates
        """Adapters may be loaded and unloaded at run time."""

    @contextmanager
    def answering(self) -> Iterator[None]:
        """One request more is being answered inside this context."""
        self._in_progress += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._in_progress -= 1
            if self._in_progress == 0:
                self.idle.set()

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
