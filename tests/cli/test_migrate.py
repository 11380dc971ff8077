from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from click.testing import Result

from pointsman.cli.migrate import migrate_command
from pointsman.cli.translate import TYPES, shown
from pointsman.gateway.options import Options
from pointsman.gateway.translate import translate
from pointsman.resources.parse import parse_text
from pointsman.store import Store

Run = Callable[..., Result]

HERE = Path(__file__)
GUIDE = HERE.parents[3] / "shared" / "guide"
GOLDEN = HERE.parents[1] / "golden"
EXAMPLES = HERE.parents[2] / "src" / "pointsman" / "examples"

POOL = """\
# The pool.
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: llama}
spec: {targetPortNumber: 8000, selector: {app: llama}, extensionRef: {name: chooser}}
"""
CONFIG = """\
# Kept with its comment.
apiVersion: v1
kind: ConfigMap
metadata: {name: a}   # and this one
data:
  text: |+
    line

"""


def test_what_needs_no_change_is_printed_as_it_is_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG + "---\n" + CONFIG.replace("name: a", "name: b"))

    result = run("migrate", str(tmp_path))

    assert result.stdout == "---\n" + (tmp_path / "a.yaml").read_text()
    assert result.stderr == "nothing here is of an older generation\n"
    assert result.exit_code == 0


def test_files_keep_their_order_and_an_end_without_a_line_break_does_no_harm(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(CONFIG.rstrip("\n"))
    (tmp_path / "b.yaml").write_text(POOL)
    (tmp_path / "c.yaml").write_text("kind: ConfigMap\napiVersion: v1\nmetadata: {name: c}")

    result = run("migrate", str(tmp_path))

    found = list(yaml.safe_load_all(result.stdout))
    assert [item["kind"] for item in found] == ["ConfigMap", "InferencePool", "ConfigMap"]
    assert found[0] == yaml.safe_load(CONFIG.rstrip("\n"))
    assert result.stderr == (
        f"{tmp_path}/b.yaml:1: comments of objects that are written anew are left out\n"
    )


def test_output_as_json_is_one_list(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        CONFIG + "---\napiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Secret}]\n"
        "---\n" + POOL
    )

    result = run("migrate", str(tmp_path), "-o", "json")

    found = json.loads(result.stdout)
    assert found["kind"] == "List"
    assert [item["kind"] for item in found["items"]] == ["ConfigMap", "Secret", "InferencePool"]


def test_a_list_that_changes_stays_a_list(run: Run) -> None:
    text = """
    apiVersion: inference.networking.x-k8s.io/v1alpha2
    kind: InferencePoolList
    metadata: {resourceVersion: ""}
    items:
    - metadata: {name: llama}
      spec: {targetPortNumber: 8000, selector: {app: llama}, extensionRef: {name: chooser}}
    """

    result = run("migrate", "-", stdin=dedent(text))

    found = yaml.safe_load(result.stdout)
    assert (found["apiVersion"], found["kind"]) == ("v1", "List")
    assert found["items"][0]["apiVersion"] == "inference.networking.k8s.io/v1"


def test_json_that_is_no_yaml_passes(run: Run) -> None:
    text = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "\\ud83d\\ude00"}}'

    result = run("migrate", "-", stdin=text)

    assert yaml.safe_load(result.stdout)["metadata"]["name"] == "😀"


def test_what_cannot_be_read_is_told_and_the_rest_is_migrated(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: [\n---\n" + POOL)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")

    result = run("migrate", str(tmp_path), str(tmp_path / "nowhere"))

    assert result.exit_code == 1
    assert yaml.safe_load(result.stdout)["apiVersion"] == "inference.networking.k8s.io/v1"
    assert "a.yaml:2: is not YAML" in result.stderr
    assert "b.yaml: is not UTF-8 text" in result.stderr
    assert "nowhere: no such file or folder" in result.stderr


def test_an_empty_folder_is_an_error(run: Run, tmp_path: Path) -> None:
    result = run("migrate", str(tmp_path))

    assert result.exit_code == 1
    assert "no file with a name ending in .yaml" in result.stderr


def test_an_older_object_that_is_wrong_makes_the_exit_code_1(run: Run) -> None:
    result = run("migrate", "-", stdin=POOL.replace("8000", "0"))

    assert result.exit_code == 1
    assert result.stdout == "---\n" + POOL.replace("8000", "0")
    assert "<stdin>:5: spec.targetPortNumber: must be at least 1, is 0" in result.stderr


CASES = [
    *(GUIDE / variant for variant in ("eg", "kgateway", "fakellm")),
    *sorted(path / "in.yaml" for path in GOLDEN.iterdir() if path.is_dir()),
    *sorted(path for path in EXAMPLES.iterdir() if path.is_dir()),
]


def resources(text: str) -> dict[str, list[Any]]:
    store = Store()
    parsed = parse_text(text, "in.yaml")
    store.apply(item.resource for item in parsed if item.resource is not None)
    options = Options(bind_address="127.0.0.1", own_picker_socket="/run/picker.sock", is_alone=True)
    return shown(translate(store, options).snapshot, tuple(TYPES))


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_migrated_files_are_good_and_become_the_same_envoy(
    run: Run, tmp_path: Path, path: Path
) -> None:
    if not path.exists():
        pytest.skip("the guide's files are not on this machine")
    files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
    before = "\n---\n".join(file.read_text() for file in files)

    result = run("migrate", str(path))
    (tmp_path / "migrated.yaml").write_text(result.stdout)
    again = run("migrate", str(tmp_path / "migrated.yaml"))

    assert result.exit_code == 0
    assert "inference.networking.x-k8s.io/v1alpha2" not in result.stdout
    assert run("validate", str(tmp_path)).exit_code == run("validate", str(path)).exit_code
    assert again.stdout == result.stdout
    assert again.stderr == "nothing here is of an older generation\n"
    old, new = (json.dumps(resources(text)) for text in (before, result.stdout))
    assert _sorted(json.loads(old.replace("xinferencepool/", "inferencepool/"))) == _sorted(
        json.loads(new)
    )


def _sorted(found: dict[str, list[Any]]) -> dict[str, list[str]]:
    return {title: sorted(json.dumps(item) for item in items) for title, items in found.items()}


def test_the_command_says_what_it_does() -> None:
    assert migrate_command.help is not None
    assert "v1alpha2" in migrate_command.help
