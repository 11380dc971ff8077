"""Reads the metrics of model servers, one task for each endpoint, about once a second.

Bounded: an answer may take `TIMEOUT_S` and `MAX_BYTES`, redirects are not followed, and one reading
per endpoint is under way at a time. A server that fails is asked again after the same pause; its
last reading ages, and scheduling stops believing it after `STALE_AFTER_S`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import aiohttp

from pointsman.picker.endpoints.measures import read_measures
from pointsman.picker.endpoints.table import Endpoint

log = logging.getLogger(__name__)

INTERVAL_S = 1.0
TIMEOUT_S = 2.0
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
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._on_failure = on_failure
        self._tasks: dict[Endpoint, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=2, keepalive_timeout=30),
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
        session = self._session
        if session is None:
            raise RuntimeError("the scraper is used outside of its context")
        try:
            url = f"http://{endpoint.address}/metrics"
            async with session.get(url, allow_redirects=False) as response:
                text = await response.content.read(MAX_BYTES)
                while not response.content.at_eof():
                    more = await response.content.read(MAX_BYTES)
                    text += more
                    if len(text) > MAX_BYTES:
                        log.warning("The metrics of %s are too long", endpoint.address)
                        self._failed(endpoint)
                        return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.debug("No metrics from %s: %s", endpoint.address, error)
            self._failed(endpoint)
            return
        measures = read_measures(text, self._clock(), endpoint.requests)
        if measures is None:
            self._failed(endpoint)
        else:
            endpoint.measures = measures

    def _failed(self, endpoint: Endpoint) -> None:
        last = endpoint.measures
        if last is not None and self._clock() - last.at > STALE_AFTER_S:
            endpoint.measures = None
        if self._on_failure is not None:
            self._on_failure(endpoint)

    async def _follow(self, endpoint: Endpoint) -> None:
        while True:
            try:
                await self.read_once(endpoint)
            except Exception:
                log.exception("Reading the metrics of %s failed", endpoint.address)
            # Spread, so that a hundred servers are not asked in the same millisecond.
            await asyncio.sleep(self._interval_s * random.uniform(0.9, 1.1))
