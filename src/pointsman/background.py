"""Parts of a process that run beside each other.

Each ends with its context, and one that breaks is everybody's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any


class Background:
    """Runs parts; made inside the event loop."""

    def __init__(self) -> None:
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def keep(self, stack: AsyncExitStack, part: Coroutine[Any, Any, None], name: str) -> None:
        """Run `part` until the stack is unwound."""
        await stack.enter_async_context(self._running(part, name))

    async def failed(self) -> None:
        """Returns never, unless a part breaks or ends by itself: then raises why."""
        await asyncio.shield(self._failure)

    @asynccontextmanager
    async def _running(self, part: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
        def on_end(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                return
            reason = task.exception() or RuntimeError(f"{name} ended by itself")
            if not self._failure.done():
                self._failure.set_exception(reason)

        task = asyncio.create_task(part, name=name)
        task.add_done_callback(on_end)
        try:
            yield
        finally:
            task.cancel()
            # Why it broke is told by `failed`; here it only has to be over.
            await asyncio.gather(task, return_exceptions=True)
