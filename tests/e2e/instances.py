"""Whole instances for tests: `pointsman run` as a process, with a runtime folder of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.ports import free_port

POLL_S = 0.02
READY_S = 40.0
STOP_S = 20.0

T = TypeVar("T")


def eventually(check: Callable[[], T | None], timeout_s: float = 15.0) -> T:
    """The first true result of `check`; its last result is shown when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {result!r}"
        threading.Event().wait(POLL_S)


@dataclass(frozen=True)
class Answer:
    """An answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Instance:
    """One `pointsman run`."""

    process: subprocess.Popen[str]
    runtime: Path
    ports: dict[int, int]
    lines: list[str] = field(default_factory=list)

    def request(
        self,
        port: int,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 15.0,
    ) -> Answer:
        """A request to a listener, by the port that the manifest gives it."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", **(headers or {})}
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports.get(port, port), timeout=timeout_s
        )
        try:
            connection.request(method, path, content if body is not None else None, given)
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def complete(self, port: int, model: str, **more: Any) -> Answer:
        """A completion of a few tokens."""
        body = {"model": model, "prompt": "Say something.", "max_tokens": 4, **more}
        return self.request(port, "POST", "/v1/completions", body)

    def cli(self, *arguments: str, fails: bool = False) -> str:
        """What a command prints that talks to this instance."""
        done = subprocess.run(
            [sys.executable, "-m", "pointsman", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode != 0) == fails, (done.stdout, done.stderr)
        return done.stdout + (done.stderr if fails else "")

    def object(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """An object as `get -o json` shows it."""
        found: dict[str, Any] = json.loads(
            self.cli("get", kind, name, "-n", namespace, "-o", "json")
        )
        return found

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime)}

    @property
    def folder(self) -> Path:
        """The instance's own folder."""
        return next(path for path in (self.runtime / f"pointsman-{os.getuid()}").iterdir())

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def pids(self, pattern: str = "") -> dict[int, str]:
        """Processes of this instance whose command line has `pattern`, the parent left out."""
        return {
            pid: command
            for pid, command in processes_with(str(self.runtime)).items()
            if pid != self.process.pid and re.search(pattern, command)
        }

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(STOP_S)


def processes_with(text: str) -> dict[int, str]:
    """Processes whose environment has `text`, by pid, with their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if text.encode() in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found[int(entry.name)] = command
        except OSError:
            continue
    return found


def unix_json(path: Path, query: str) -> Any:
    """What an HTTP server on a Unix socket answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(f"GET {query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        return json.loads(answer.read())


@contextmanager
def running(
    *paths: str | Path,
    ports: Sequence[int] = (),
    arguments: Sequence[str] = (),
    stdin: str | None = None,
    is_awaited: bool = True,
    access_log: str = "off",
    stdout: IO[str] | None = None,
) -> Iterator[Instance]:
    """`pointsman run PATHS` with each of `ports` mapped to a free one, ready for requests."""
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        runtime = Path(folder)
        mapped = {port: free_port() for port in ports}
        maps = [f"--port-map={port}={real}" for port, real in mapped.items()]
        more = [*maps, f"--access-log={access_log}", *arguments]
        process = subprocess.Popen(
            [sys.executable, "-m", "pointsman", "run", *map(str, paths), *more],
            env={**os.environ, "XDG_RUNTIME_DIR": folder},
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        instance = Instance(process, runtime, mapped)
        reader = threading.Thread(target=_read, args=(instance,), daemon=True)
        reader.start()
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
        try:
            if is_awaited:
                eventually(
                    lambda: instance.said("pointsman: ready") or process.poll() is not None,
                    READY_S,
                )
                assert process.poll() is None, "\n".join(instance.lines)
                assert instance.said("pointsman: ready"), "\n".join(instance.lines)
            yield instance
        finally:
            if process.poll() is None:
                instance.stop()
            reader.join(STOP_S)
            if process.stderr is not None:
                process.stderr.close()


def _read(instance: Instance) -> None:
    stream = instance.process.stderr
    if stream is not None:
        for line in stream:
            instance.lines.append(line.rstrip("\n"))
