"""The watch stream: what is there, then what changes, one JSON object a line.

    {"type": "ADDED", "object": {...}}     once for everything that is there
    {"type": "SYNCED"}
    {"type": "MODIFIED", "object": {...}}  and so on, as it comes
    {"type": "HEARTBEAT"}                  when nothing has come for some seconds

A reader that is slow gets the latest state of each object and not every state between: the store
folds what waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from pointsman.resources.base import Resource
from pointsman.store import Change, Store

HEARTBEAT_S = 4.0
"""Readers may give a stream up that was silent for 5 s."""
WRITE_DEADLINE_S = 30.0
"""A reader that takes nothing for so long is cut off."""
_PART = 200
"""Objects written between two looks at what else there is to do."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects a reader wants; None and () mean all."""

    kinds: tuple[tuple[str, str], ...] = ()
    """(group, kind)."""
    namespace: str | None = None
    name: str | None = None

    def has(self, item: Resource) -> bool:
        """Whether the reader wants it."""
        ref = item.ref
        return (
            (not self.kinds or (ref.group, ref.kind) in self.kinds)
            and (self.namespace is None or ref.namespace == self.namespace)
            and (self.name is None or ref.name == self.name)
        )


async def stream(
    store: Store,
    selection: Selection,
    response: web.StreamResponse,
    heartbeat_s: float = HEARTBEAT_S,
) -> None:
    """Write to a prepared response until the reader goes or the task is cancelled."""
    with store.subscribe() as subscription:
        current = [item for item in store if selection.has(item)]
        for start in range(0, len(current), _PART):
            part = current[start : start + _PART]
            await _write(response, (_line("ADDED", item) for item in part))
        await _write(response, [b'{"type":"SYNCED"}\n'])
        while True:
            try:
                async with asyncio.timeout(heartbeat_s):
                    batch = await subscription.batch()
            except TimeoutError:
                await _write(response, [b'{"type":"HEARTBEAT"}\n'])
                continue
            for start in range(0, len(batch), _PART):
                part_of_batch = batch[start : start + _PART]
                lines = (_change_line(change, selection.has) for change in part_of_batch)
                await _write(response, (line for line in lines if line is not None))


def _change_line(change: Change, wants: Callable[[Resource], bool]) -> bytes | None:
    if change.new is not None:
        kind = "ADDED" if change.old is None else "MODIFIED"
        return _line(kind, change.new) if wants(change.new) else None
    if change.old is not None and wants(change.old):
        return _line("DELETED", change.old)
    return None


def _line(kind: str, item: Resource) -> bytes:
    event: dict[str, Any] = {"type": kind, "object": item.to_dict()}
    return orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


async def _write(response: web.StreamResponse, lines: Iterable[bytes]) -> None:
    text = b"".join(lines)
    if text:
        async with asyncio.timeout(WRITE_DEADLINE_S):
            await response.write(text)
