"""The real helm, built with Go: `python -m tests.charts.program`.

`helm/go.mod` names it and pins every module below it. It is kept outside the checkout, in a folder
of the user's cache whose name is made from what it is built of. The first build takes minutes.
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
from collections.abc import Mapping
from functools import cache
from pathlib import Path

MODULE = Path(__file__).parent / "helm"
PACKAGE = "helm.sh/helm/v4/cmd/helm"
FLAGS = ("-trimpath", "-ldflags=-s -w")
BUILD_TIMEOUT_S = 3600.0
RUN_TIMEOUT_S = 60.0
REQUIRED_VARIABLE = "POINTSMAN_HELM"
"""With the value `required` a test fails where it would be skipped."""


class BuildError(Exception):
    """helm cannot be built here; the message says which command failed."""


class HelmError(Exception):
    """helm refused; the message is what it said."""


def place() -> Path | None:
    """Where the program is or would be; None where there is no Go to tell."""
    version = _go_version()
    if version is None:
        return None
    recipe = hashlib.sha256()
    for part in (version, PACKAGE, *FLAGS):
        recipe.update(part.encode() + b"\0")
    for name in ("go.mod", "go.sum"):
        recipe.update((MODULE / name).read_bytes())
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "pointsman" / "helm" / recipe.hexdigest()[:16] / "helm"


def missing() -> str:
    """One line that says why there is no helm; empty where there is one."""
    program = place()
    if program is None:
        return "no Go; helm is built with it: install Go 1.26, `make test-charts`"
    return "" if program.is_file() else f"no {program}; `make test-charts` builds it"


def is_required(environ: Mapping[str, str]) -> bool:
    """Whether a test must not be skipped because there is no helm."""
    return environ.get(REQUIRED_VARIABLE) == "required"


def build() -> Path:
    """The program; it is built where it is not there, one build at a time.

    Raises:
        BuildError: there is no Go, or it cannot build it.
    """
    program = place()
    if program is None:
        raise BuildError("there is no Go on the PATH; 1.26 or newer is needed")
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        # Held by the open file, so it ends with this process however that ends.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.is_file():
            with tempfile.TemporaryDirectory(dir=program.parent, prefix=".build-") as made:
                fresh = Path(made) / "helm"
                _go("build", *FLAGS, "-o", str(fresh), PACKAGE)
                fresh.replace(program)
    return program


def helm(*arguments: str, values: str = "") -> str:
    """What helm prints; `values` are given as a file of their own. It asks no cluster.

    Raises:
        HelmError: it ended with another code than 0.
    """
    program = place()
    if program is None or not program.is_file():
        raise HelmError(missing())
    with tempfile.TemporaryDirectory(prefix="pm-helm-") as home:
        more: tuple[str, ...] = ()
        if values:
            (Path(home) / "values.yaml").write_text(values)
            more = ("--values", f"{home}/values.yaml")
        done = subprocess.run(
            (str(program), *arguments, *more),
            env={"HOME": home, "PATH": os.environ["PATH"], "KUBECONFIG": f"{home}/none"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
    if done.returncode != 0:
        raise HelmError(f"{done.stdout}{done.stderr}")
    return done.stdout


def _go(*arguments: str) -> None:
    command = ("go", *arguments)
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
    try:
        done = subprocess.run(
            (program, "env", "GOVERSION", "GOOS", "GOARCH"),
            cwd=MODULE,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return " ".join(done.stdout.split())


def main() -> int:
    """The exit code: 1 where helm cannot be had."""
    try:
        program = build()
    except BuildError as error:
        sys.stderr.write(f"helm: {error}\n")
        return 1
    sys.stdout.write(f"{program}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
