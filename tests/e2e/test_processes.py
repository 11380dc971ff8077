"""`pointsman run --workloads process`: a container's own command, where it is installed."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pointsman.cli.run import example_path
from tests.e2e.instances import eventually, processes_with, running

pytestmark = pytest.mark.e2e


def test_the_manifests_own_command_serves_and_goes_with_the_parent(tmp_path: Path) -> None:
    shutil.copytree(example_path(), tmp_path / "m")
    path = tmp_path / "m" / "model-servers.yaml"
    command = f"command: [{sys.executable}, -m, pointsman, modelserver, --host, $(POD_IP)]"
    environment = "env: [{name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]"
    text = path.read_text().replace("image: vllm/vllm-openai:latest", "image: acme/own:1")
    text = text.replace(
        "          args:", f"          {command}\n          {environment}\n          args:"
    )
    path.write_text(text)
    with running(tmp_path / "m", ports=(8080,), arguments=("--workloads", "process")) as instance:
        assert instance.complete(8080, "support").status == 200
        commands = instance.pids("pointsman modelserver").values()
        assert len(commands) == 3
        assert not any("--exit-with-parent" in command for command in commands)
        instance.process.kill()
        instance.process.wait(5)
        eventually(lambda: not processes_with(str(instance.runtime)), 15)
