"""The conformance suite of the Gateway API against Pointsman: `python -m tests.kubernetes.suite`.

`conformance/go.mod` names its release. The cluster has that release's definitions, a node, and
Pointsman as `deploy/pointsman.yaml` installs it; the suite makes everything else itself, and tests
what the status of the GatewayClass promises. Its report goes to the output, the words of tests that
fail before it. More arguments are the suite's own: `-test.v` tells all of its steps,
`--run-test=HTTPRouteWeight --supported-features=Gateway,HTTPRoute` runs one test.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pointsman import __version__
from tests.go_programs import BuildError
from tests.kubernetes.binaries import CONFORMANCE, CONFORMANCE_PROGRAMS, PROGRAMS
from tests.kubernetes.cluster import READY_FILE, Cluster, ClusterError, node_is_missing
from tests.kubernetes.installation import NAMESPACE, install

CLASS = "pointsman"
PROFILES = ("GATEWAY-HTTP", "GATEWAY-GRPC")
API = "sigs.k8s.io/gateway-api"
CHANNELS = ("experimental", "standard")
DOWNLOAD_S = 300
SUITE_S = 1800
USABLE_HOST = 250
"""Of the network of load balancers; Services that ask for none get addresses of its other end."""
UNUSABLE = "192.0.2.1"
"""An address of the range for documentation, which nobody has."""
OUR_NAME = ("organization", "project", "url", "contact")
"""A report does not do without; who publishes one gives better ones."""


def definitions(channel: str) -> Path:
    """The folder with the definitions of the suite's release."""
    command = ("go", "mod", "download", "-json", API)
    done = subprocess.run(
        command,
        cwd=CONFORMANCE_PROGRAMS.module,
        stdout=subprocess.PIPE,
        timeout=DOWNLOAD_S,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} ended with code {done.returncode}")
    return Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" / channel


def run(channel: str, arguments: Sequence[str]) -> int:
    """The suite's exit code; what it says goes to this process's output."""
    PROGRAMS.build()
    program = CONFORMANCE_PROGRAMS.build() / CONFORMANCE
    with Cluster() as cluster:
        cluster.start_node()
        cluster.install_crds(definitions(channel))
        install(cluster)
        cluster.kubectl("wait", f"gatewayclass/{CLASS}", "--for=condition=Accepted")
        report = cluster.folder / "report.yaml"
        balancers = json.loads((cluster.folder / READY_FILE).read_text())["balancers"]
        command = (
            str(program),
            "-test.run=^TestConformance$",
            f"-test.timeout={SUITE_S}s",
            f"--gateway-class={CLASS}",
            f"--conformance-profiles={','.join(PROFILES)}",
            f"--usable-address={balancers}.{USABLE_HOST}",
            f"--unusable-address={UNUSABLE}",
            f"--report-output={report}",
            *(f"--{name}=pointsman" for name in OUR_NAME),
            f"--version={__version__}",
            *arguments,
        )
        code = subprocess.run(command, env=cluster.environment(), check=False).returncode
        if report.exists():
            sys.stdout.write(report.read_text())
        broken = [
            f"{item['metadata']['name']} has ended {status['restartCount']} times"
            for item in cluster.find("pod", NAMESPACE)
            for status in item["status"]["containerStatuses"]
            if status["restartCount"]
        ]
        if broken:
            # A suite that asks again and again may not notice.
            raise ClusterError("\n".join((*broken, cluster.story(NAMESPACE))))
    return code


def main() -> int:
    """Runs it for a command line; the exit code is not 0 where a test fails."""
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__, allow_abbrev=False)
    parser.add_argument("--channel", choices=CHANNELS, default=CHANNELS[0], help="of definitions")
    known, others = parser.parse_known_args()
    if missing := node_is_missing():
        sys.stderr.write(f"conformance: {missing}\n")
        return 1
    try:
        return run(known.channel, others)
    except (BuildError, ClusterError) as error:
        sys.stderr.write(f"conformance: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
