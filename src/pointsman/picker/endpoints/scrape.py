"""Reads the metrics of model servers, one task for each endpoint, about once a second.

Bounded: an answer may take `TIMEOUT_S` and `MAX_BYTES`, redirects are not followed, and one reading
per endpoint is under way at a time. A server that fails is asked again after the same pause; its
last reading ages, and where one fails that is older than `STALE_AFTER_S`, nothing is known.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import aiohttp

from pointsman.picker.endpoints.measures import NOTHING_MORE, Extraction, read_measures
from pointsman.picker.endpoints.table import Endpoint
from pointsman.picker.requests.listing import read_listing
from pointsman.sockets import loop_socket

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
TIMEOUT_S = 2.0
MODELS_EVERY_READINGS = 5
"""A server's list of models changes seldom."""
MAX_BYTES = 8 * 1024 * 1024
STALE_AFTER_S = 10.0
"""A reading older than this counts as none."""


class Scraper:
    """Owns the tasks and the HTTP session; an async context manager."""

    def __init__(
        self,
        clock: Callable[[], float],
        interval_s: float = INTERVAL_S,
        on_failure: Callable[[Endpoint], None] | None = None,
        extraction: Callable[[], Extraction] = lambda: NOTHING_MORE,
        stale_after_s: float = STALE_AFTER_S,
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._on_failure = on_failure
        self._extraction = extraction
        self._stale_after_s = stale_after_s
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            connector=aiohttp.TCPConnector(
                limit=0, limit_per_host=2, keepalive_timeout=30, socket_factory=loop_socket
            ),
            auto_decompress=True,
            raise_for_status=True,
        )
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.change((), tuple(self._tasks))
        if self._session is not None:
            await self._session.close()

    def change(self, came: Iterable[Endpoint], went: Iterable[Endpoint]) -> None:
        """Begin and end the reading of endpoints."""
        for endpoint in went:
            task = self._tasks.pop(endpoint, None)
            if task is not None:
                task.cancel()
        for endpoint in came:
            self._tasks[endpoint] = asyncio.create_task(self._follow(endpoint))

    async def read_once(self, endpoint: Endpoint) -> None:
        """Read one server's metrics now; a failure leaves the last reading."""
        text = await self._get(endpoint, "/metrics")
        measures = (
            read_measures(text, self._clock(), endpoint.requests, self._extraction())
            if text is not None
            else None
        )
        if measures is None:
            self._failed(endpoint)
        else:
            endpoint.learn(measures)

    async def read_models(self, endpoint: Endpoint) -> None:
        """Read which models a server lists; a failure leaves the last list."""
        body = await self._get(endpoint, "/v1/models")
        models = read_listing(body) if body is not None else None
        if models is not None:
            endpoint.models = models

    async def _get(self, endpoint: Endpoint, path: str) -> bytes | None:
        session = self._session
        if session is None:
            raise RuntimeError("the scraper is used outside of its context")
        parts: list[bytes] = []
        size = 0
        try:
            async with session.get(
                f"http://{endpoint.address}{path}", allow_redirects=False
            ) as response:
                async for part in response.content.iter_any():
                    size += len(part)
                    if size > MAX_BYTES:
                        log.warning("%s of %s is too long to be read", path, endpoint.address)
                        return None
                    parts.append(part)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("No %s from %s: %s", path, endpoint.address, error)
            return None
        return b"".join(parts)

    def _failed(self, endpoint: Endpoint) -> None:
        last = endpoint.measures
        if last is not None and self._clock() - last.at > self._stale_after_s:
            endpoint.learn(None)
        if self._on_failure is not None:
            self._on_failure(endpoint)

    async def _follow(self, endpoint: Endpoint) -> None:
        for reading in itertools.count():
            try:
                await self.read_once(endpoint)
                if reading % MODELS_EVERY_READINGS == 0:
                    await self.read_models(endpoint)
            except Exception:
                log.exception("Reading the metrics of %s failed", endpoint.address)
            # Spread, so that a hundred servers are not asked in the same millisecond.
            await asyncio.sleep(self._interval_s * random.uniform(0.9, 1.1))
