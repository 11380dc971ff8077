"""Programs of others that tests need, built with Go from a module that pins every part of them.

They are kept outside the checkout, in a folder of the user's cache whose name is made from what
they are built of, so another version is another folder. A first build takes minutes; who finds the
folder complete builds nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BUILD_TIMEOUT_S = 3600.0


class BuildError(Exception):
    """A program cannot be built here; the message says which command failed."""


@dataclass(frozen=True)
class GoPrograms:
    """The programs of one module."""

    name: str
    """Of the folder in the cache."""
    module: Path
    """The folder with `go.mod` and `go.sum`."""
    packages: Mapping[str, str]
    """Program to the package that it is built of, the quick ones first."""
    flags: Callable[[str], tuple[str, ...]]
    """How a program is built."""
    tests: frozenset[str] = frozenset()
    """Those that run the tests of their package."""

    @property
    def folder(self) -> Path | None:
        """Where the programs are or would be; None where there is no Go to tell."""
        version = _go_version(self.module)
        if version is None:
            return None
        recipe = hashlib.sha256()
        parts = (version, *self.flags("any"), *self.packages.values(), *sorted(self.tests))
        for part in parts:
            recipe.update(part.encode() + b"\0")
        for name in ("go.mod", "go.sum"):
            recipe.update((self.module / name).read_bytes())
        cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache_home) / "pointsman" / self.name / recipe.hexdigest()[:16]

    def missing(self, command: str) -> str:
        """One line that says what is not there and which command builds it; "" for nothing."""
        place = self.folder
        if place is None:
            return f"no Go; with Go 1.26 or newer `{command}` builds {', '.join(self.packages)}"
        absent = [name for name in self.packages if not (place / name).is_file()]
        return f"no {', '.join(absent)} in {place}; `{command}` builds them" if absent else ""

    def build(self) -> Path:
        """The folder with all programs; those that are not there are built, one build at a time.

        Raises:
            BuildError: there is no Go, or it cannot build one of them.
        """
        place = self.folder
        if place is None:
            raise BuildError("there is no Go on the PATH; 1.26 or newer is needed")
        place.mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("w") as lock:
            # Held by the open file, so it ends with this process however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, package in self.packages.items():
                if not (place / name).is_file():
                    self._build(name, package, place)
        return place

    def _build(self, name: str, package: str, place: Path) -> None:
        begun = time.monotonic()
        verb = ("test", "-c") if name in self.tests else ("build",)
        with tempfile.TemporaryDirectory(dir=place, prefix=".build-") as made:
            program = Path(made) / name
            self._run(("go", *verb, *self.flags(name), "-o", str(program), package))
            program.replace(place / name)
        sys.stderr.write(f"built {name} in {time.monotonic() - begun:.0f} s\n")

    def _run(self, command: tuple[str, ...]) -> None:
        try:
            done = subprocess.run(
                command,
                cwd=self.module,
                env={**os.environ, "CGO_ENABLED": "0"},
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                timeout=BUILD_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"{shlex.join(command)}: {error}") from error
        if done.returncode != 0:
            words = f"{shlex.join(command)} in {self.module} ended with code {done.returncode}"
            raise BuildError(words)

    def main(self) -> int:
        """Builds for a command line; the exit code is 1 where the programs cannot be had."""
        try:
            place = self.build()
        except BuildError as error:
            sys.stderr.write(f"{self.name}: {error}\n")
            return 1
        sys.stdout.write(f"{place}\n")
        return 0


@cache
def _go_version(module: Path) -> str | None:
    program = shutil.which("go")
    if program is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            (program, "env", "GOVERSION", "GOOS", "GOARCH"),
            cwd=module,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return " ".join(done.stdout.split())
    return None
