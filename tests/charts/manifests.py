"""The plain manifests of `deploy/`, from the charts: `python -m tests.charts.manifests`."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.charts.program import PROGRAMS, helm
from tests.go_programs import BuildError

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
DEPLOY = ROOT / "deploy"

SYSTEM_NAMESPACE = """\
apiVersion: v1
kind: Namespace
metadata:
  name: pointsman-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A file, and the installation that it is."""

    about: str
    chart: str
    release: str
    namespace: str
    values: str = ""
    begins_with: str = ""

    def text(self) -> str:
        """The file as it should be."""
        rendered = helm(
            "template",
            self.release,
            str(CHARTS / self.chart),
            "--namespace",
            self.namespace,
            values=self.values,
        )
        # Nobody manages what is applied as a plain file, and where it came from stands at its top.
        plain = re.sub(
            r"(?m)^(# Source: .*| +app\.kubernetes\.io/managed-by: Helm)\n", "", rendered
        )
        documents = [part.strip("\n") for part in re.split(r"(?m)^---\n", plain) if part.strip()]
        if self.begins_with:
            documents.insert(0, self.begins_with.strip("\n"))
        head = f"# {self.about}\n# Rendered from charts/{self.chart} by `make manifests`.\n"
        return head + "".join(f"---\n{document}\n" for document in documents)


RENDERINGS = {
    "pointsman.yaml": Rendering(
        "The controller of Pointsman, with its class.",
        "pointsman",
        "pointsman",
        "pointsman-system",
        begins_with=SYSTEM_NAMESPACE,
    ),
    "pointsman-with-envoy-gateway-classes.yaml": Rendering(
        "The controller of Pointsman, serving the classes of Envoy Gateway too.",
        "pointsman",
        "pointsman",
        "pointsman-system",
        "takeOverEnvoyGateway: true\n",
        SYSTEM_NAMESPACE,
    ),
    "inferencepool.yaml": Rendering(
        "An example: a pool of the pods with the label app: llama, its picker, and two priorities.",
        "inferencepool",
        "llama",
        "default",
        "pool: {matchLabels: {app: llama}}\n"
        "objectives: [{name: interactive, priority: 10}, {name: batch, priority: -1}]\n",
    ),
    "envoy-gateway-guide-picker.yaml": Rendering(
        "The picker of the guide on Envoy Gateway, for its pool vllm-llama2-7b.",
        "inferencepool",
        "vllm-llama2-7b",
        "default",
        "pool: {create: false}\npicker: {name: vllm-llama2-7b-epp}\n",
    ),
    "kgateway-guide-picker.yaml": Rendering(
        "The picker of the guide on kgateway, for its pool qwen-pool.",
        "inferencepool",
        "qwen-pool",
        "default",
        "pool: {create: false}\npicker: {name: qwen-pool-endpoint-picker}\n",
    ),
}
"""By the name of the file."""


def main() -> int:
    """Write every file; the exit code is 1 where there is no helm."""
    try:
        PROGRAMS.build()
    except BuildError as error:
        sys.stderr.write(f"manifests: {error}\n")
        return 1
    DEPLOY.mkdir(exist_ok=True)
    for name, rendering in RENDERINGS.items():
        (DEPLOY / name).write_text(rendering.text())
        sys.stdout.write(f"{DEPLOY / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
