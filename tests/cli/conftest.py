from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from click.testing import CliRunner, Result

from pointsman.admin.instances import SOCKET_NAME, instance_folder
from pointsman.admin.providers import Providers
from pointsman.admin.server import serve
from pointsman.cli.main import cli
from pointsman.resources.base import Ref, Resource
from pointsman.resources.parse import parse_text
from pointsman.store import Store

WITHIN_S = 10.0

Run = Callable[..., Result]


def objects(text: str) -> list[Resource]:
    parsed = parse_text(dedent(text), "test.yaml")
    assert not [problem for item in parsed for problem in item.problems]
    return [item.resource for item in parsed if item.resource is not None]


class RunningInstance:
    """An admin server in a thread of its own, as a command meets it."""

    def __init__(self, name: str | None, providers: Providers) -> None:
        self.store = Store()
        self._name = name
        self._providers = providers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> RunningInstance:
        self._thread.start()
        assert self._ready.wait(WITHIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self._thread.is_alive():
            assert self._loop is not None
            assert self._stop is not None
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        with instance_folder(self._name) as folder:
            async with serve(self.store, self._providers, folder / SOCKET_NAME):
                self._ready.set()
                await self._stop.wait()

    def put(self, text: str) -> None:
        """Objects of a YAML text into the store, from any thread."""
        self._call(lambda: self.store.apply(objects(text)))

    def delete(self, ref: Ref) -> None:
        self._call(lambda: self.store.apply(deleted=[ref]))

    def _call(self, change: Callable[[], object]) -> None:
        async def run() -> None:
            change()

        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(run(), self._loop).result(WITHIN_S)


@pytest.fixture(autouse=True)
def runtime_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder of the test's own, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.delenv("POINTSMAN_INSTANCE", raising=False)
        yield Path(folder)


@pytest.fixture
def running() -> Callable[..., RunningInstance]:
    def make(name: str | None = None, providers: Providers | None = None) -> RunningInstance:
        return RunningInstance(name, providers or Providers())

    return make


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, arguments, input=stdin, prog_name="pointsman")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
