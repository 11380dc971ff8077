from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from pointsman import __version__

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, each on one line."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


ALL = instructions(TEXT)
LAST_STAGE = ALL[max(i for i, item in enumerate(ALL) if item.word == "FROM") :]


def of(word: str, among: list[Instruction] = ALL) -> list[str]:
    return [item.rest for item in among if item.word == word]


def test_every_base_has_a_version_and_the_last_is_small() -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    declared = of("ARG")[0].removeprefix("PYTHON_VERSION=")
    bases = [rest.split()[0] for rest in of("FROM")]

    assert bases == ["python:${PYTHON_VERSION}-bookworm", "python:${PYTHON_VERSION}-slim-bookworm"]
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["project"]["requires-python"] == f">={declared}"
    assert tuple(map(int, declared.split("."))) <= tuple(map(int, version.split(".")))


def test_nobody_in_particular_runs_it() -> None:
    assert of("USER", LAST_STAGE) == ["65532:65532"]
    assert LAST_STAGE[-1] == Instruction("ENTRYPOINT", '["pointsman"]')
    assert of("CMD") == []


def test_the_last_stage_fetches_and_runs_nothing() -> None:
    assert of("RUN", LAST_STAGE) == []
    assert of("ADD") == []
    assert of("COPY", LAST_STAGE) == ["--from=build /opt/pointsman /opt/pointsman"]
    for word in ("curl", "wget", "apt-get", "http:", "https:", "latest"):
        assert word not in TEXT


def test_only_wheels_with_known_hashes_are_installed() -> None:
    (install,) = (rest for rest in of("RUN") if "pip" in rest and "install" in rest)

    assert "--require-hashes" in install
    assert "--only-binary :all:" in install
    assert "-r requirements-runtime.lock" in install


def test_the_image_says_which_version_it_is() -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in of("LABEL")[0]


def test_what_is_copied_is_there_and_nothing_else_is_sent_to_the_build() -> None:
    copied = [rest.split()[0] for rest in of("COPY") if not rest.startswith("--from")]
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert rules[0] == "*"
    assert sorted(copied) == sorted(rule[1:] for rule in rules if rule.startswith("!"))
    for name in copied:
        assert (ROOT / name).exists()
    assert any(fnmatch.fnmatch("**/__pycache__", rule) for rule in rules)


Locked = dict[str, tuple[str, frozenset[str]]]


def locked(name: str) -> Locked:
    """Package to its version and hashes."""
    found: Locked = {}
    for block in re.split(r"(?m)^(?=[a-z0-9])", (ROOT / name).read_text()):
        if match := re.match(r"([a-z0-9.-]+)==(\S+)", block):
            hashes = frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block))
            found[match[1]] = (match[2], hashes)
    return found


def test_the_image_has_what_was_tested_and_no_tools_of_developers() -> None:
    everything, runtime = locked("requirements.lock"), locked("requirements-runtime.lock")

    assert runtime.items() <= everything.items()
    assert all(hashes for _, hashes in runtime.values())
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = {re.split(r"[<>=;\s]", line)[0] for line in pyproject["project"]["dependencies"]}
    assert names <= set(runtime)
    assert not {"pytest", "mypy", "ruff", "openai", "anthropic"} & set(runtime)


@pytest.mark.parametrize("command", ["controller", "picker", "proxy", "modelserver", "run"])
def test_the_entry_point_knows_every_command_that_is_run_from_the_image(command: str) -> None:
    entry = "from pointsman.cli.main import main; main()"
    assert "from pointsman.cli.main import main' 'main()'" in TEXT

    done = subprocess.run(
        (sys.executable, "-P", "-c", entry, command, "--help"), capture_output=True, check=False
    )

    assert done.returncode == 0
