"""Brings the server to what the file wishes.

That happens at the start, when the file changes, and every so often, since a server that restarted
has forgotten its adapters.

    wait until healthy -> list -> unload what must not exist -> load what has to -> list again

What fails for a reason that may pass (no connection, 5xx) is tried again, each time after twice
the delay up to a bound; what the server refuses (4xx) is logged and left for the next change or
the next periodic run.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pointsman.modelserver.sidecar.gauges import SidecarMetrics
from pointsman.modelserver.sidecar.rollout import (
    Rollout,
    RolloutError,
    WantedAdapter,
    parse_rollout,
)
from pointsman.modelserver.sidecar.target import Target, TargetError

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the sidecar is. Seconds."""

    health_interval_s: float = 2.0
    health_timeout_s: float = 300.0
    """After this long without a healthy server, the run is given up until the next one."""
    periodic_s: float = 5.0
    retry_first_s: float = 0.5
    retry_most_s: float = 30.0
    retries: int = 5


class Reconciler:
    """Reconciles one server with one file."""

    def __init__(
        self,
        config: Path,
        make_target: Callable[[Rollout], Target],
        metrics: SidecarMetrics,
        pace: Pace,
    ) -> None:
        self._config = config
        self._make_target = make_target
        self._metrics = metrics
        self._pace = pace
        self._last_text: str | None = None
        self._last_rollout: Rollout | None = None
        self.last_said = ""
        """The state that was last logged; the same one is not logged again."""

    def read(self) -> Rollout | None:
        """The wish as the file now says it; the last good one if the file is bad or gone."""
        try:
            text = self._config.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._refuse(f"cannot read {self._config}: {error}")
            return self._last_rollout
        if text == self._last_text:
            return self._last_rollout
        self._last_text = text
        try:
            rollout = parse_rollout(text)
        except RolloutError as error:
            self._refuse(f"{self._config}: {error}")
            return self._last_rollout
        self._metrics.config_is_valid = True
        self._last_rollout = rollout
        if rollout.contradictory:
            names = ", ".join(rollout.contradictory)
            _log.warning(
                "left alone, since both ensureExist and ensureNotExist name them: %s", names
            )
        return rollout

    def _refuse(self, problem: str) -> None:
        self._metrics.config_is_valid = False
        self._say(problem, logging.ERROR)

    async def reconcile(self) -> bool:
        """One run. True if the server is then as wished."""
        rollout = self.read()
        if rollout is None:
            return False
        self._metrics.runs += 1
        async with self._make_target(rollout) as target:
            if not await self._wait_healthy(target):
                self._say(f"{target.url} is not healthy", logging.WARNING)
                self._metrics.failed_runs += 1
                return False
            done = await self._apply(target, rollout)
        if not done:
            self._metrics.failed_runs += 1
        return done

    async def _apply(self, target: Target, rollout: Rollout) -> bool:
        """Unloads first: where adapters share few slots, that makes room."""
        try:
            present = await self._patiently("list", target.adapters)
        except TargetError as error:
            self._say(str(error), logging.ERROR)
            return False
        complete = True
        for adapter in rollout.to_unload:
            if adapter.id in present:
                complete &= await self._change("unload", target.unload, adapter)
            else:
                self._metrics.set_status(adapter.id, is_loaded=False)
        for adapter in rollout.to_load:
            if adapter.id not in present:
                complete &= await self._change("load", target.load, adapter)
            else:
                self._metrics.set_status(adapter.id, is_loaded=True)
        wanted = {adapter.id for adapter in (*rollout.to_load, *rollout.to_unload)}
        self._metrics.keep_only(wanted)
        if complete:
            self._say(f"{target.url} is as {self._config} wishes", logging.INFO)
        return complete

    async def _change(
        self,
        verb: str,
        action: Callable[[WantedAdapter], Awaitable[None]],
        adapter: WantedAdapter,
    ) -> bool:
        try:
            await self._patiently(f"{verb} {adapter.id}", lambda: action(adapter))
        except TargetError as error:
            self._metrics.failures[verb] = self._metrics.failures.get(verb, 0) + 1
            self._metrics.set_status(adapter.id, is_loaded=verb == "unload")
            self._say(f"cannot {verb} {adapter.id}: {error}", logging.ERROR)
            return False
        self.last_said = ""
        _log.info("%sed %s", verb, adapter.id)
        self._metrics.set_status(adapter.id, is_loaded=verb == "load")
        return True

    async def _patiently(self, what: str, action: Callable[[], Awaitable[T]]) -> T:
        """Tries an action again while its failure may pass."""
        pace = self._pace
        delay_s = pace.retry_first_s
        for attempt in range(1, pace.retries + 1):
            try:
                return await action()
            except TargetError as error:
                if error.is_final or attempt == pace.retries:
                    raise
                _log.warning("%s: %s; again in about %.1f s", what, error, delay_s)
            # Spread, so that the sidecars of many pods do not knock together.
            await asyncio.sleep(delay_s * random.uniform(0.75, 1.25))
            delay_s = min(delay_s * 2, pace.retry_most_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _wait_healthy(self, target: Target) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._pace.health_timeout_s
        while not await target.is_healthy():
            if loop.time() + self._pace.health_interval_s > deadline:
                return False
            self._say(f"waiting for {target.url}", logging.INFO)
            await asyncio.sleep(self._pace.health_interval_s)
        return True

    def _say(self, text: str, level: int) -> None:
        """Logs a state once, not with every periodic run."""
        if text != self.last_said:
            self.last_said = text
            _log.log(level, "%s", text)
