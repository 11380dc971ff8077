"""Keeps a store as a cluster is, for the kinds that somebody is interested in.

Only kinds that are installed are asked for. One that is installed later (its definition appears, or
discovery names it) is taken up then; one that is taken away leaves with its objects.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pointsman.resources.base import Ref, Resource
from pointsman.resources.parse import parse_object
from pointsman.resources.problems import Problem
from pointsman.resources.unused import CustomResourceDefinition
from pointsman.sources.kubernetes.api import Api, ApiError
from pointsman.sources.kubernetes.catalogue import served_versions
from pointsman.sources.kubernetes.reflector import Interest, Reflector
from pointsman.store import Store

__all__ = ["Interest", "KubernetesSource"]

CATALOGUE_INTERVAL_S = 30.0
"""How often it is asked which kinds there are, without an occasion."""
SOON_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""After a definition has come or gone: an API server takes a moment to serve its kind."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MAX_PROBLEMS = 1000
"""Objects that cannot be read, of which is told; the oldest are forgotten beyond."""

log = logging.getLogger(__name__)


class KubernetesSource:
    """A `pointsman.sources.Source` over an API server."""

    def __init__(
        self,
        store: Store,
        api: Api,
        interests: Sequence[Interest],
        *,
        on_problem: Callable[[Problem], None] | None = None,
    ) -> None:
        """`on_problem` is told of each object that cannot be read; by default the log is."""
        self._store = store
        self._api = api
        self._interests = tuple(interests)
        self._on_problem = on_problem or _log_problem
        self._known: dict[Interest, set[Ref]] = {}
        self._reflectors: dict[Interest, Reflector] = {}
        self._tasks: dict[Interest, asyncio.Task[None]] = {}
        self._versions: Mapping[type[Resource], str] | None = None
        self._wake = asyncio.Event()
        self._pauses_s: list[float] = []
        self._unread: dict[Ref, Problem] = {}
        self._catalogue_complaint = ""
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_synced(self) -> bool:
        """Whether everything that existed has been seen once."""
        return self._synced.is_set()

    def version(self, cls: type[Resource]) -> str | None:
        """In which version that kind is served; None where it is not, or not known yet."""
        return self._versions.get(cls) if self._versions is not None else None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The objects that cannot be read at this moment; their last good state counts."""
        return tuple(self._unread.values())

    @property
    def complaints(self) -> tuple[str, ...]:
        """Which kinds are not heard of at this moment, and why."""
        found = [
            f"{at}: {item.complaint}" for at, item in self._reflectors.items() if item.complaint
        ]
        return (*((self._catalogue_complaint,) * bool(self._catalogue_complaint)), *found)

    @property
    def unheard(self) -> frozenset[type[Resource]]:
        """The kinds that are served and of which nothing was ever heard, for want of rights."""
        reflectors = self._reflectors.items()
        return frozenset(at.cls for at, item in reflectors if not item.has_listed)

    async def start(self) -> None:
        """Returns when everything that exists now is in the store."""
        self._task = asyncio.create_task(self._run())
        waiting = asyncio.create_task(self._synced.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._task.result()

    async def follow(self) -> None:
        """Keeps the store current until it is cancelled."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            await self._task
        finally:
            self._task.cancel()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), self._task, return_exceptions=True)

    def replace(self, interest: Interest, version: str, items: list[dict[str, Any]]) -> None:
        """Take in a whole list."""
        found = [
            parsed
            for item in items
            if (parsed := self._parsed(interest, version, item)) is not None
        ]
        # What cannot be read now stands as it was, if it was read before.
        present = {ref for ref, _ in found}
        gone = self._known.get(interest, set()) - present
        self._known[interest] = present
        for ref in gone:
            self._unread.pop(ref, None)
        self._store.apply([item for _, item in found if item is not None], gone)

    def event(self, interest: Interest, version: str, kind: str, item: dict[str, Any]) -> None:
        """Take in one change."""
        parsed = self._parsed(interest, version, item)
        if interest.cls is CustomResourceDefinition:
            self._look_soon()
        if parsed is None:
            return
        ref, resource = parsed
        known = self._known.setdefault(interest, set())
        if kind == "DELETED":
            known.discard(ref)
            self._unread.pop(ref, None)
            self._store.apply((), [ref])
            return
        known.add(ref)
        if resource is not None:
            self._store.apply([resource])

    def _parsed(
        self, interest: Interest, version: str, item: dict[str, Any]
    ) -> tuple[Ref, Resource | None] | None:
        kind = interest.cls.KIND
        group_version = f"{kind.group}/{version}" if kind.group else version
        data = {**item, "apiVersion": group_version, "kind": kind.kind}
        parsed = parse_object(data, "cluster")
        if parsed.ref is None:
            return None
        if parsed.resource is not None:
            self._unread.pop(parsed.ref, None)
            return parsed.ref, parsed.resource
        self._complain(parsed.ref, next(item for item in parsed.problems if item.is_error))
        return parsed.ref, None

    def _complain(self, ref: Ref, problem: Problem) -> None:
        if self._unread.get(ref) == problem:
            return
        self._unread.pop(ref, None)
        while len(self._unread) >= MAX_PROBLEMS:
            self._unread.pop(next(iter(self._unread)))
        self._unread[ref] = problem
        self._on_problem(problem)

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                versions = await served_versions(
                    self._api, {interest.cls: None for interest in self._interests}
                )
            except ApiError as error:
                if str(error) != self._catalogue_complaint:
                    log.warning("The API server does not say which kinds there are: %s", error)
                self._catalogue_complaint = str(error)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                continue
            self._catalogue_complaint = ""
            pause_s = FIRST_PAUSE_S
            await self._follow_kinds(versions)
            if not self._synced.is_set():
                await asyncio.gather(*(item.settled.wait() for item in self._reflectors.values()))
                self._synced.set()
            await self._until_asked()

    async def _follow_kinds(self, versions: Mapping[type[Resource], str]) -> None:
        before, self._versions = self._versions, versions
        for interest in self._interests:
            version = versions.get(interest.cls)
            was = before.get(interest.cls) if before is not None else None
            task = self._tasks.get(interest)
            if task is not None and (version != was or task.done()):
                await self._stop(interest)
                task = None
            if version is None:
                self._forget(interest)
            elif task is None:
                if before is not None:
                    log.info("%s: installed, in version %s", interest, version)
                reflector = Reflector(self._api, interest, version, self)
                self._reflectors[interest] = reflector
                task = asyncio.create_task(reflector.run(), name=str(interest))
                task.add_done_callback(self._on_end)
                self._tasks[interest] = task

    async def _stop(self, interest: Interest) -> None:
        task = self._tasks.pop(interest)
        self._reflectors.pop(interest, None)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _forget(self, interest: Interest) -> None:
        if gone := self._known.pop(interest, set()):
            log.info("%s: no longer installed", interest)
            self._store.apply((), gone)

    def _look_soon(self) -> None:
        """Ask which kinds there are now, and some more times in the next seconds."""
        self._pauses_s = [*SOON_S]
        self._wake.set()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        # Not one that we have ended, but also one that ended in a way that nobody has thought of.
        if task in self._tasks.values():
            self._look_soon()

    async def _until_asked(self) -> None:
        pause_s = self._pauses_s.pop(0) if self._pauses_s else CATALOGUE_INTERVAL_S
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
                # Definitions come many at a time.
                await asyncio.sleep(SOON_S[0])
        self._wake.clear()


def _log_problem(problem: Problem) -> None:
    log.warning("%s", problem)
