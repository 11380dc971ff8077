"""Children that are kept running and never outlive their owner."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pointsman.standalone.processes import LINE_BYTES, Command, Output, Process

BOUND_S = 10.0


def python(code: str, *, grace_s: float = 5.0) -> Command:
    return Command("child", (sys.executable, "-c", code), grace_s=grace_s)


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(BOUND_S):
        # A child tells of itself only by what it prints.
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_child_runs_inside_the_context_and_is_gone_after_it() -> None:
    output = Output()
    process = Process(python("import time; print('up', flush=True); time.sleep(60)"), output)
    async with process.running():
        await until(lambda: output.lines)
        pid = process.pid
        assert pid is not None
        assert process.is_running
    assert not is_alive(pid)
    assert output.lines == ("up",)


async def test_a_child_that_ends_is_started_again() -> None:
    changes: list[int] = []
    process = Process(python("raise SystemExit(3)"), Output(), lambda: changes.append(1))
    async with process.running():
        await until(lambda: process.restarts >= 2)
        assert process.problem == "ended with code 3"
    assert changes


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('up', flush=True); time.sleep(60)"
    )
    output = Output()
    process = Process(python(code, grace_s=0.1), output)
    async with process.running():
        await until(lambda: output.lines)
        pid = process.pid
        assert pid is not None
    assert not is_alive(pid)


async def test_grandchildren_go_with_the_child() -> None:
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)']); print(p.pid, flush=True); time.sleep(60)"
    )
    output = Output()
    process = Process(python(code), output)
    async with process.running():
        await until(lambda: output.lines)
        grandchild = int(output.lines[0])
        assert is_alive(grandchild)
    await until(lambda: not is_alive(grandchild) or _is_zombie(grandchild))


async def test_a_child_whose_own_child_holds_its_pipes_is_started_again_when_it_dies() -> None:
    code = (
        "import os, signal, subprocess, sys; subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(60)']); os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = Process(python(code), Output())
    async with process.running():
        await until(lambda: process.restarts)
        assert process.problem == "ended by SIGKILL"


async def test_a_command_that_is_not_there_says_so() -> None:
    process = Process(Command("child", ("/nowhere/at/all",)), Output())
    async with process.running():
        await until(lambda: process.restarts)
        assert "cannot start /nowhere/at/all" in process.problem


async def test_a_line_without_end_is_cut_and_the_next_is_read() -> None:
    code = f"print('x' * {LINE_BYTES * 3}); print('after', flush=True); import time; time.sleep(60)"
    output = Output()
    process = Process(python(code), output)
    async with process.running():
        await until(lambda: output.lines and output.lines[-1] == "after")
    assert max(map(len, output.lines)) <= LINE_BYTES + 1


async def test_a_follower_gets_the_lines_that_come() -> None:
    output = Output()
    output.add("before")
    lines = output.follow()
    output.add("after")
    async with asyncio.timeout(BOUND_S):
        assert await anext(lines) == "after"


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
