"""A child process that is kept running: started, watched, restarted, and ended with its owner.

No child outlives the parent. Our own children read their standard input and drain when it ends,
which it does when the parent is gone, however it went; Envoy has a parent-death signal of its own.
Each child leads a session, so that a Ctrl-C at the terminal reaches only the parent, which then
ends its children in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakSet

LOG_LINES = 2000
"""Lines of output that are kept of each process."""
LINE_BYTES = 8 * 1024
"""Longer lines of output are cut."""

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 10.0
STEADY_S = 10.0
"""A process that has run this long has started well: its next restart is prompt again."""
KILL_TIMEOUT_S = 5.0
LAST_WORDS_S = 1.0
"""For what is still in the pipe when a child has ended."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. A process of ours gets `--exit-with-parent` from who makes the command."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the parent's own."""
    grace_s: float = 10.0
    """From SIGTERM to SIGKILL."""
    folder: str | None = None
    shares_stdout: bool = False
    """What it writes to its standard output goes straight to ours; what it says to its standard
    error is kept as of the others."""


class Output:
    """The last lines that a process wrote, and those to come for who follows."""

    def __init__(self, echo: Callable[[str], None] | None = None) -> None:
        self._echo = echo
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._followers: WeakSet[asyncio.Queue[str]] = WeakSet()

    @property
    def lines(self) -> tuple[str, ...]:
        """What is kept, oldest first."""
        return tuple(self._lines)

    def add(self, line: str) -> None:
        """Keep a line; a follower that is too slow misses it."""
        self._lines.append(line)
        if self._echo is not None:
            self._echo(line)
        for queue in self._followers:
            with suppress(asyncio.QueueFull):
                queue.put_nowait(line)

    def follow(self) -> AsyncIterator[str]:
        """Each line that comes from this call on."""
        queue: asyncio.Queue[str] = asyncio.Queue(LOG_LINES)
        self._followers.add(queue)
        return self._lines_of(queue)

    async def _lines_of(self, queue: asyncio.Queue[str]) -> AsyncIterator[str]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(queue)


class _Streams(asyncio.subprocess.SubprocessStreamProtocol):
    """A child's pipes, and word of its end."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        """The child itself has ended."""
        super().process_exited()
        self.exited.set()


class _Child(asyncio.subprocess.Process):
    """A child whose end is its own.

    In Python 3.11 `wait` returns when the pipes have closed too, and a grandchild holds them: the
    engine of a vLLM outlives the killed server that started it, which was never restarted then.
    """

    def __init__(
        self,
        transport: asyncio.SubprocessTransport,
        streams: _Streams,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, streams, loop)
        self._exited = streams.exited

    async def wait(self) -> int:
        """The exit code, when there is one."""
        await self._exited.wait()
        return self.returncode if self.returncode is not None else -signal.SIGKILL


class Process:
    """One child that is restarted whenever it ends, until its context is left."""

    def __init__(
        self, command: Command, output: Output, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.command = command
        self.output = output
        self.restarts = 0
        self._on_change = on_change
        self._child: asyncio.subprocess.Process | None = None
        self._problem = ""
        self._changes = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The child that runs now."""
        return self._child.pid if self._child is not None else None

    @property
    def is_running(self) -> bool:
        """A child is there, whether or not it is ready."""
        return self._child is not None and self._child.returncode is None

    @property
    def problem(self) -> str:
        """How the last child ended, "" while the first one runs."""
        return self._problem

    async def changed(self, timeout_s: float) -> None:
        """Wait until a child starts or ends, at most that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changes.wait()
        self._changes.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """The process is kept running inside this context and is gone after it."""
        task = asyncio.create_task(self._keep_running(), name=f"process {self.command.name}")
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            started = loop.time()
            try:
                await self._run_once()
            except OSError as error:
                self._problem = f"cannot start {self.command.argv[0]}: {error}"
            if loop.time() - started > STEADY_S:
                backoff_s = FIRST_BACKOFF_S
            log.warning("%s: %s; restarting", self.command.name, self._problem)
            self.restarts += 1
            self._notify()
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def _run_once(self) -> None:
        command = self.command
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: _Streams(LINE_BYTES, loop),
            *command.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=None if command.shares_stdout else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if command.shares_stdout else asyncio.subprocess.STDOUT,
            env={**os.environ, **command.environment},
            cwd=command.folder,
            start_new_session=True,
        )
        child = _Child(transport, protocol, loop)
        self._child = child
        self._notify()
        reader = asyncio.create_task(self._read(child))
        try:
            code = await child.wait()
            self._problem = _ending(code)
        finally:
            await self._end(child)
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await reader
            transport.close()
            self._child = None

    def _notify(self) -> None:
        self._changes.set()
        self._on_change()

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        stream = child.stderr if self.command.shares_stdout else child.stdout
        if stream is None:
            return
        is_cut = False
        while True:
            try:
                line = await stream.readuntil(b"\n")
            except asyncio.LimitOverrunError as overrun:
                line = await stream.read(overrun.consumed or LINE_BYTES)
                if not is_cut:
                    self.output.add(line[:LINE_BYTES].decode(errors="replace"))
                is_cut = True
                continue
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    self.output.add(end.partial.decode(errors="replace"))
                return
            if not is_cut:
                self.output.add(line.decode(errors="replace").rstrip("\n"))
            is_cut = False

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        """SIGTERM, time to drain, then SIGKILL for what is left of its session."""
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.command.grace_s):
                    await asyncio.shield(child.wait())
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if child.returncode is None:
            async with asyncio.timeout(KILL_TIMEOUT_S):
                await child.wait()


def _ending(code: int) -> str:
    if code < 0:
        try:
            return f"ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"ended by signal {-code}"
    return f"ended with code {code}"


def own_command(name: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """The command line of one of our own commands, bound to the life of this process."""
    return (sys.executable, "-m", "pointsman", name, *arguments, "--exit-with-parent")
