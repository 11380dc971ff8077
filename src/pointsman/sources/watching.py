"""Waking up when something under some paths changes, and knowing what.

The kernel tells of changes; a look at everything now and then is the net below that, for network
file systems and for what happens while a watch is set up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from watchfiles import awatch

from pointsman.resources.problems import Problem
from pointsman.sources.folders import STDIN

BURST_MS = 100
"""Changes within this time are taken together."""
STEP_MS = 10
"""A burst is over when this long nothing has come."""
ROOTS_S = 1.0
"""How often it is looked whether another folder was put in a watched one's place."""
MAX_TOUCHED = 1000
"""Paths that are remembered one by one; beyond that everything is looked at."""


class Watch:
    """Which paths have been touched since the last time somebody asked."""

    def __init__(self, paths: Sequence[str], on_problem: Callable[[Problem], None]) -> None:
        self._paths = tuple(path for path in paths if path != STDIN)
        self._on_problem = on_problem
        self._touched: set[str] = set()
        self._is_anything = False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            roots = await asyncio.to_thread(self._roots)
            groups = await asyncio.to_thread(self._groups)
            follows = [
                asyncio.create_task(self._follow(group, is_deep))
                for group, is_deep in groups
                if group
            ]
            try:
                await self._until_moved(roots)
            finally:
                for task in follows:
                    task.cancel()
                await asyncio.gather(*follows, return_exceptions=True)
            # What was put in place before the new watch stands is seen by looking.
            self._touch_anything()

    async def _until_moved(self, roots: object) -> None:
        # There is nothing to wait for: the watch of a folder that was moved away is silent.
        is_same = True
        while is_same:
            await asyncio.sleep(ROOTS_S)
            is_same = await asyncio.to_thread(self._roots) == roots

    async def wait(self, limit_s: float) -> frozenset[str] | None:
        """The paths touched, None when everything should be looked at (also after `limit_s`)."""
        try:
            async with asyncio.timeout(limit_s):
                await self._wake.wait()
        except TimeoutError:
            self._is_anything = True
        self._wake.clear()
        touched = None if self._is_anything else frozenset(self._touched)
        self._touched.clear()
        self._is_anything = False
        return touched

    def _touch_anything(self) -> None:
        self._is_anything = True
        self._wake.set()

    async def _follow(self, paths: list[str], is_deep: bool) -> None:
        try:
            changes = awatch(*paths, debounce=BURST_MS, step=STEP_MS, recursive=is_deep)
            async for batch in changes:
                self._touched.update(path for _, path in batch)
                if len(self._touched) > MAX_TOUCHED:
                    self._touched.clear()
                    self._is_anything = True
                self._wake.set()
        except FileNotFoundError:
            pass  # gone since it was listed; the next look at the roots sees that
        except (OSError, RuntimeError) as error:
            message = f"cannot be watched ({error}); it is looked at every second instead"
            self._on_problem(Problem("warning", ", ".join(paths), 0, "", message))

    def _roots(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_identity(path) for path in self._folders())

    def _folders(self) -> list[str]:
        # A file is watched by its folder: an editor's rename puts another file in its place.
        paths = (Path(path) for path in self._paths)
        return sorted({str(path if path.is_dir() else path.parent) for path in paths})

    def _groups(self) -> list[tuple[list[str], bool]]:
        folders = {path for path in self._paths if Path(path).is_dir()}
        single = {path for path in self._folders() if Path(path).is_dir()} - folders
        return [(sorted(folders), True), (sorted(single), False)]


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = Path(path).stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
