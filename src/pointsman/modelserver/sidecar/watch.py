"""Runs the reconciler: at once, when the file changes, and periodically."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from watchfiles import awatch

from pointsman.modelserver.sidecar.reconciler import Reconciler

_log = logging.getLogger(__name__)


async def keep_reconciled(
    reconciler: Reconciler, config: Path, periodic_s: float, stop: asyncio.Event
) -> None:
    """Reconciles until `stop` is set. Changes that come during a run cause one run after it."""
    changed = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(_watch(config, changed, stop))
        running = tasks.create_task(_run(reconciler, periodic_s, changed))
        await stop.wait()
        watching.cancel()
        running.cancel()


async def _run(reconciler: Reconciler, periodic_s: float, changed: asyncio.Event) -> None:
    while True:
        changed.clear()
        await reconciler.reconcile()
        try:
            async with asyncio.timeout(periodic_s):
                await changed.wait()
        except TimeoutError:
            continue


async def _watch(config: Path, changed: asyncio.Event, stop: asyncio.Event) -> None:
    """Watches the folder, since a ConfigMap's file is a link that is swapped with its folder."""
    while not _is_folder(config.parent):
        _log.warning("%s does not exist yet", config.parent)
        await asyncio.sleep(1.0)
    async for _ in awatch(config.parent, stop_event=stop, debounce=100, recursive=False):
        changed.set()


def _is_folder(path: Path) -> bool:
    return path.is_dir()
