"""What a container runs as: our stand-in, or its own command where that was asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pointsman.resources.core import Container
from pointsman.standalone.addresses import Place
from pointsman.standalone.images import Surroundings
from pointsman.standalone.launchers import Launcher

AROUND = Surroundings(Place("127.9.9.2"), Path("/p"), Path("/a.sock"), {"/data": Path("/v/data")})
REAL = Launcher(prefers_real=True)


def container(image: str, *command: str, args: tuple[str, ...] = ()) -> Container:
    return Container(name="c", image=image, command=command, args=args)


def test_a_stand_in_runs_unless_the_real_command_was_asked_for() -> None:
    item = container("vllm/vllm-openai", sys.executable, "-c", "pass")
    found = Launcher().launch(item, AROUND)
    assert found is not None
    assert found.argv[1:4] == ("-m", "pointsman", "modelserver")
    assert not Launcher().knows(container("acme/thing", sys.executable))


def test_a_real_command_runs_bound_to_its_parent_with_its_paths_made_local() -> None:
    item = container("acme/thing", sys.executable, "/data/run.py", args=("--x", "/data"))
    assert REAL.knows(item)
    found = REAL.launch(item, AROUND)
    assert found is not None
    assert found.argv[1:3] == ("-m", "pointsman.standalone.bound")
    assert found.argv[3:] == (sys.executable, "/v/data/run.py", "--x", "/v/data")


@pytest.mark.parametrize(
    "command", [("/nowhere/program",), (), (sys.executable, "-m", "no_such_module_here")]
)
def test_what_is_not_installed_is_left_to_the_stand_in(command: tuple[str, ...]) -> None:
    found = REAL.launch(container("vllm/vllm-openai", *command), AROUND)
    assert found is not None
    assert "modelserver" in found.argv
    assert REAL.launch(container("acme/thing", *command), AROUND) is None


def test_a_real_vllm_listens_on_its_pods_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman.standalone.commands._has_module", lambda *_: True)
    item = container("vllm/vllm-openai:v1", args=("--model", "m", "--port", "7000"))
    found = REAL.launch(item, AROUND)
    assert found is not None
    assert found.argv[4:8] == ("-m", "vllm.entrypoints.openai.api_server", "--model", "m")
    assert found.argv[-4:] == ("--host", "127.9.9.2", "--port", "7000")
    assert found.readiness is not None
