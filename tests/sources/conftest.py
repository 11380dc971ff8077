from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pointsman.resources.problems import Problem
from pointsman.sources.files import FileSource
from pointsman.store import Store

WITHIN_S = 5.0


class Watched:
    """A followed source, and what it has said."""

    def __init__(self, paths: list[str], **options: Any) -> None:
        self.store = Store()
        self.lines: list[str] = []
        self.problems: list[Problem] = []
        self._news = asyncio.Event()
        self.source = FileSource(
            self.store, paths, on_change=self._line, on_problem=self._problem, **options
        )

    def _line(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    def _problem(self, problem: Problem) -> None:
        self.problems.append(problem)
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at when the source says something."""

        async def wait() -> None:
            while not condition():
                self._news.clear()
                await self._news.wait()

        await asyncio.wait_for(wait(), WITHIN_S)

    async def until_line(self, line: str) -> None:
        await self.until(lambda: line in self.lines)

    async def until_problem(self, text: str) -> None:
        await self.until(lambda: any(text in str(problem) for problem in self.problems))


@asynccontextmanager
async def followed(paths: list[str], **options: Any) -> AsyncIterator[Watched]:
    watched = Watched(paths, **options)
    await watched.source.start()
    task = asyncio.create_task(watched.source.follow())
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=WITHIN_S)
        assert task.cancelled()


@pytest.fixture
def follow() -> Callable[..., Any]:
    return followed


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file below the temporary folder, as a shell's `>` would."""

    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return put
