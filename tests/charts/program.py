"""The real helm, built with Go: `python -m tests.charts.program`.

`helm/go.mod` names it and pins every module below it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.go_programs import GoPrograms

RUN_TIMEOUT_S = 60.0
REQUIRED_VARIABLE = "POINTSMAN_HELM"
"""With the value `required` a test fails where it would be skipped."""

PROGRAMS = GoPrograms(
    "helm",
    Path(__file__).parent / "helm",
    {"helm": "helm.sh/helm/v4/cmd/helm"},
    lambda _: ("-trimpath", "-ldflags=-s -w"),
)


class HelmError(Exception):
    """helm refused; the message is what it said."""


def missing() -> str:
    """One line that says why there is no helm; empty where there is one."""
    return PROGRAMS.missing("make test-charts")


def is_required(environ: Mapping[str, str]) -> bool:
    """Whether a test must not be skipped because there is no helm."""
    return environ.get(REQUIRED_VARIABLE) == "required"


def helm(*arguments: str, values: str = "") -> str:
    """What helm prints; `values` are given as a file of their own. It asks no cluster.

    Raises:
        HelmError: it ended with another code than 0.
    """
    folder = PROGRAMS.folder
    if folder is None or missing():
        raise HelmError(missing())
    with tempfile.TemporaryDirectory(prefix="pm-helm-") as home:
        more: tuple[str, ...] = ()
        if values:
            (Path(home) / "values.yaml").write_text(values)
            more = ("--values", f"{home}/values.yaml")
        done = subprocess.run(
            (str(folder / "helm"), *arguments, *more),
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


if __name__ == "__main__":
    sys.exit(PROGRAMS.main())
