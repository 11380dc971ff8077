from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Run = Callable[..., Result]

GUIDE = Path(__file__).parents[3] / "shared" / "guide"
GOOD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def test_what_is_good_is_said_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)

    result = run("validate", str(tmp_path))

    assert result.stdout == "1 object in 1 file: all good\n"
    assert result.exit_code == 0
    assert run("validate", "-q", str(tmp_path)).stdout == ""


def test_all_errors_are_told_at_once_with_their_places(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD + "dta: {}\n---\nkind: [\n")
    (tmp_path / "b.yaml").write_text(GOOD.replace("name: a", "name: B"))
    (tmp_path / "c.yaml").write_text(GOOD.replace("ConfigMap", "Unheard"))

    result = run("validate", str(tmp_path))

    assert result.exit_code == 1
    lines = [line.removeprefix(f"{tmp_path}/") for line in result.stdout.splitlines()]
    assert lines[0] == "a.yaml:4: dta: unknown field, did you mean 'data'?"
    assert lines[1].startswith("a.yaml:")
    assert "is not YAML" in lines[1]
    assert lines[2].startswith("b.yaml:3: metadata.name: must be a name of lower-case")
    assert lines[3].startswith("c.yaml:2: warning: kind: unknown kind 'Unheard'")
    assert lines[4] == "0 objects in 3 files: 3 errors, 1 warning"


def test_a_warning_alone_is_no_failure(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(GOOD.replace("ConfigMap", "Unheard"))

    assert run("validate", str(tmp_path)).exit_code == 0


def test_the_same_object_in_two_files_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD)

    result = run("validate", "-q", str(tmp_path))

    assert result.exit_code == 1
    assert f"{tmp_path}/b.yaml:1: ConfigMap default/a: " in result.stdout
    assert f"stands in {tmp_path}/a.yaml:1 already" in result.stdout


def test_standard_input_is_read(run: Run) -> None:
    assert run("validate", "-", stdin=GOOD).exit_code == 0
    result = run("validate", "-q", "-", stdin="a: 1")
    assert result.stdout.startswith("<stdin>:1: apiVersion: is required")


def test_a_configuration_inside_a_config_map_is_read_too(run: Run) -> None:
    text = GOOD + "data:\n  envoy-gateway.yaml: |\n    kind: EnvoyGateway\n"

    result = run("validate", "-q", "-", stdin=text)

    assert "apiVersion: is required (in ConfigMap default/a envoy-gateway.yaml:1)" in result.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "no such file or folder"), ("", "no file with a name ending in .yaml")],
)
def test_where_nothing_is_there_is_an_error(
    run: Run, tmp_path: Path, name: str, message: str
) -> None:
    result = run("validate", str(tmp_path / name))

    assert result.exit_code == 1
    assert message in result.stdout


@pytest.mark.skipif(not GUIDE.is_dir(), reason="the guide's files are not on this machine")
@pytest.mark.parametrize("variant", ["eg", "kgateway", "fakellm"])
def test_the_guide_is_all_good(run: Run, variant: str) -> None:
    result = run("validate", str(GUIDE / variant))

    assert "all good" in result.stdout
    assert result.exit_code == 0
