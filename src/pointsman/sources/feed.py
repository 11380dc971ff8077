"""Objects from another Pointsman process, over its admin socket.

The protocol is HTTP on a Unix socket: `GET /api/watch?kinds=Pod.,InferencePool.GROUP,...` answers
with one JSON object a line: `{"type": "ADDED" | "MODIFIED" | "DELETED", "object": {...}}` for all
that exists, then `{"type": "SYNCED"}`, then changes for ever, with `{"type": "HEARTBEAT"}` when
nothing happens. A line that does not come for `SILENCE_S` means that the other side is gone: the
store keeps what it has, and the feed is asked for again, with a growing pause. After each SYNCED
the objects that were not seen again are taken out. A feed goes one way: statuses are written where
the objects are.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from pointsman.resources.base import Ref, Resource
from pointsman.resources.parse import parse_object
from pointsman.store import Store

log = logging.getLogger(__name__)

SILENCE_S = 15.0
"""Three heartbeats that did not come."""
CONNECT_TIMEOUT_S = 5.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
MAX_LINE_BYTES = 16 * 1024 * 1024


class FeedError(Exception):
    """The other side said something that is not of the protocol, or nothing for too long."""


class FeedSource:
    """Keeps a store as the other process's is, for some kinds."""

    def __init__(self, store: Store, socket: Path, kinds: Iterable[type[Resource]]) -> None:
        self._store = store
        self._socket = socket
        self._kinds = tuple(kinds)
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_synced(self) -> bool:
        """Whether everything that existed has been seen once."""
        return self._synced.is_set()

    async def start(self) -> None:
        """Returns when everything that exists now is in the store."""
        self._task = asyncio.create_task(self._run())
        await self._synced.wait()

    async def follow(self) -> None:
        """Keeps the store current until it is cancelled."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            await self._task
        finally:
            self._task.cancel()

    async def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            was_synced = self._synced.is_set()
            try:
                await self._watch()
                reason = "it ended"
            except (aiohttp.ClientError, OSError, TimeoutError, FeedError, ValueError) as error:
                reason = str(error) or type(error).__name__
            log.log(
                logging.WARNING if was_synced else logging.DEBUG,
                "The feed of objects is lost (%s); asking again",
                reason,
            )
            pause_s = FIRST_PAUSE_S if self._synced.is_set() and not was_synced else pause_s
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _watch(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_S)
        names = ",".join(f"{cls.KIND.kind}.{cls.KIND.group}" for cls in self._kinds)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket)),
                timeout=timeout,
                read_bufsize=MAX_LINE_BYTES,
            ) as session,
            session.get("http://feed/api/watch", params={"kinds": names}) as response,
        ):
            if response.status != 200:
                raise FeedError(f"the feed answered {response.status}")
            await self._take(response.content)

    async def _take(self, content: aiohttp.StreamReader) -> None:
        unseen: set[Ref] | None = {
            item.ref for item in self._store if isinstance(item, self._kinds)
        }
        pending: dict[Ref, Resource | None] = {}
        while line := await content.readline():
            message = orjson.loads(line)
            kind = message.get("type") if isinstance(message, dict) else None
            if kind in ("ADDED", "MODIFIED", "DELETED"):
                item = self._parsed(message)
                if item is None:
                    continue
                pending[item.ref] = None if kind == "DELETED" else item
                if unseen is not None:
                    unseen.discard(item.ref)
                    continue
            elif kind == "SYNCED":
                if unseen:
                    pending.update(dict.fromkeys(unseen))
                unseen = None
            elif kind != "HEARTBEAT":
                raise FeedError(f"a line of unknown type {str(kind)[:40]!r}")
            if unseen is None:
                self._apply(pending)
                pending = {}
                self._synced.set()

    def _apply(self, pending: dict[Ref, Resource | None]) -> None:
        if pending:
            self._store.apply(
                [item for item in pending.values() if item is not None],
                [ref for ref, item in pending.items() if item is None],
            )

    def _parsed(self, message: dict[str, Any]) -> Resource | None:
        parsed = parse_object(message.get("object"), "feed")
        if parsed.resource is None or not isinstance(parsed.resource, self._kinds):
            log.warning("The feed has an object that cannot be read: %s", parsed.problems)
            return None
        return parsed.resource
