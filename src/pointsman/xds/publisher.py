"""Takes statuses to where objects are written one by one: only those that have changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pointsman.gateway.conditions import with_times
from pointsman.gateway.statuses.facts import Status
from pointsman.resources.base import Ref
from pointsman.sources.clock import now_text
from pointsman.store import Store

WriteStatus = Callable[[Ref, dict[str, Any]], Awaitable[None]]


class Publisher:
    """Where we are the only controller: a status is ours as a whole."""

    def __init__(self, store: Store, write_status: WriteStatus) -> None:
        self._store = store
        self._write_status = write_status
        self._told: Mapping[Ref, Status] = {}

    async def publish(self, found: Mapping[Ref, Status]) -> None:
        """Write what differs from what the objects say; conditions keep their times."""
        now = now_text()
        told, self._told = self._told, found
        for ref, status in found.items():
            item = self._store.find(ref)
            if item is None or told.get(ref) is status:
                continue
            timed = with_times(status, item.status, now)
            if timed != item.status:
                await self._write_status(ref, timed)
