"""The real programs of a cluster, built with Go: `python -m tests.kubernetes.binaries`.

`apiserver/go.mod` names them and pins every module below them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.go_programs import GoPrograms

KUBERNETES = "1.37.2"
REQUIRED_VARIABLE = "POINTSMAN_KUBERNETES"
"""With the value `required` a test fails where it would be skipped."""


def _flags(name: str) -> tuple[str, ...]:
    linked = ["-s", "-w"]
    if name != "etcd":
        # Read by `kubectl version` and by who asks the API server which version it is.
        major, minor, _ = KUBERNETES.split(".")
        facts = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
        linked += [f"-X k8s.io/component-base/version.{key}={facts[key]}" for key in facts]
    return ("-trimpath", "-ldflags", " ".join(linked))


PROGRAMS = GoPrograms(
    "kubernetes",
    Path(__file__).parent / "apiserver",
    {
        "etcd": "go.etcd.io/etcd/server/v3",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    _flags,
)

ECHO = "echo-basic"
CONFORMANCE = "conformance"
CONFORMANCE_PROGRAMS = GoPrograms(
    CONFORMANCE,
    Path(__file__).parent / CONFORMANCE,
    {
        ECHO: "sigs.k8s.io/gateway-api/conformance/echo-basic",
        CONFORMANCE: "sigs.k8s.io/gateway-api/conformance",
    },
    lambda _: ("-trimpath", "-ldflags", "-s -w"),
    frozenset({CONFORMANCE}),
)
"""The suite of the Gateway API, and the backend that it deploys."""


def folder() -> Path | None:
    """Where the programs are or would be; None where there is no Go to tell."""
    return PROGRAMS.folder


def missing() -> str:
    """One line that says what a cluster lacks on this machine; empty where it lacks nothing."""
    if sys.platform != "linux":
        return "a cluster for tests needs Linux"
    if shutil.which("setpriv") is None:
        return "no setpriv; a cluster for tests needs util-linux"
    return PROGRAMS.missing("make test-kubernetes")


def is_required(environ: Mapping[str, str]) -> bool:
    """Whether a test must not be skipped because something is missing."""
    return environ.get(REQUIRED_VARIABLE) == "required"


if __name__ == "__main__":
    sys.exit(PROGRAMS.main())
