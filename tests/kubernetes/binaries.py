"""The real programs of a cluster, built with Go: `python -m tests.kubernetes.binaries`.

`apiserver/go.mod` names them and pins every module below them. They are kept outside the checkout,
in a folder of the user's cache whose name is made from what they are built of, so another version
is another folder. The first build takes minutes; who finds the folder complete builds nothing.
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
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

MODULE = Path(__file__).parent / "apiserver"
KUBERNETES = "1.37.2"
BUILD_TIMEOUT_S = 3600.0
REQUIRED_VARIABLE = "POINTSMAN_KUBERNETES"
"""With the value `required` a test fails where it would be skipped."""

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}
"""Program to the package that it is built of, the quick ones first."""


class BuildError(Exception):
    """A program cannot be built here; the message says which command failed."""


def folder() -> Path | None:
    """Where the programs are or would be; None where there is no Go to tell."""
    version = _go_version()
    if version is None:
        return None
    recipe = hashlib.sha256()
    for part in (version, *_flags("any"), *PACKAGES.values()):
        recipe.update(part.encode() + b"\0")
    for name in ("go.mod", "go.sum"):
        recipe.update((MODULE / name).read_bytes())
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "pointsman" / "kubernetes" / recipe.hexdigest()[:16]


def missing() -> str:
    """One line that says what a cluster lacks on this machine; empty where it lacks nothing."""
    if sys.platform != "linux":
        return "a cluster for tests needs Linux"
    if shutil.which("setpriv") is None:
        return "no setpriv; a cluster for tests needs util-linux"
    place = folder()
    if place is None:
        return "no Go; with Go 1.26 or newer `make test-kubernetes` builds a cluster for tests"
    absent = [name for name in PACKAGES if not (place / name).is_file()]
    if absent:
        return f"no {', '.join(absent)} in {place}; `make test-kubernetes` builds them"
    return ""


def is_required(environ: Mapping[str, str]) -> bool:
    """Whether a test must not be skipped because something is missing."""
    return environ.get(REQUIRED_VARIABLE) == "required"


def build() -> Path:
    """The folder with all programs; those that are not there are built, one build at a time.

    Raises:
        BuildError: there is no Go, or it cannot build one of them.
    """
    place = folder()
    if place is None:
        raise BuildError("there is no Go on the PATH; 1.26 or newer is needed")
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        # Held by the open file, so it ends with this process however that ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, package in PACKAGES.items():
            if not (place / name).is_file():
                _build(name, package, place)
    return place


def _build(name: str, package: str, place: Path) -> None:
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place, prefix=".build-") as made:
        program = Path(made) / name
        _run(("go", "build", *_flags(name), "-o", str(program), package))
        program.replace(place / name)
    _say(f"built {name} in {time.monotonic() - begun:.0f} s")


def _flags(name: str) -> tuple[str, ...]:
    linked = ["-s", "-w"]
    if name != "etcd":
        # Read by `kubectl version` and by who asks the API server which version it is.
        major, minor, _ = KUBERNETES.split(".")
        facts = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
        linked += [f"-X k8s.io/component-base/version.{key}={facts[key]}" for key in facts]
    return ("-trimpath", "-ldflags", " ".join(linked))


def _run(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{shlex.join(command)}: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(command)} in {MODULE} ended with code {done.returncode}")


@cache
def _go_version() -> str | None:
    program = shutil.which("go")
    if program is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            (program, "env", "GOVERSION", "GOOS", "GOARCH"),
            cwd=MODULE,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return " ".join(done.stdout.split())
    return None


def _say(text: str) -> None:
    sys.stderr.write(f"test-kubernetes: {text}\n")


def main() -> int:
    """The exit code: 1 where the programs cannot be had."""
    try:
        place = build()
    except BuildError as error:
        _say(str(error))
        return 1
    sys.stdout.write(f"{place}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
