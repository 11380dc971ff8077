from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from pointsman.gateway.features import VERSIONS
from pointsman.resources import kinds
from pointsman.resources.releases import RELEASES

Run = Callable[..., Result]

GUIDE = Path(__file__).parents[3] / "shared" / "guide"
BUILT_IN = {"", "apps", "discovery.k8s.io"}
"""Groups that every cluster has."""


def test_what_every_cluster_needs_is_told_with_its_commands(run: Run) -> None:
    result = run("crds")

    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "FOR", "KINDS"]
    assert [line.split()[0] for line in lines[1:4]] == ["gateway-api", "inference", "llm-d"]
    assert lines[5].startswith(
        "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/"
    )
    assert result.exit_code == 0


def test_urls_names_and_commands_can_be_had_alone(run: Run) -> None:
    urls = run("crds", "-o", "url").stdout.splitlines()
    names = run("crds", "-o", "name").stdout.splitlines()
    commands = run("crds", "-o", "command").stdout.splitlines()

    assert commands == [f"kubectl apply --server-side -f {url}" for url in urls]
    assert "inferencepools.inference.networking.k8s.io" in names
    assert "inferenceobjectives.llm-d.ai" in names
    assert not any("envoyproxy" in name for name in names)


def test_the_experimental_channel_is_another_file(run: Run) -> None:
    plain = run("crds", "-o", "url").stdout.splitlines()
    experimental = run("crds", "-o", "url", "--experimental").stdout.splitlines()

    assert plain[0].endswith("/standard-install.yaml")
    assert experimental == [
        plain[0].replace("standard-install", "experimental-install"),
        *plain[1:],
    ]


def test_all_kinds_of_which_files_may_speak_have_one_release(run: Run) -> None:
    names = run("crds", "--all", "-o", "name").stdout.splitlines()

    wanted = {
        f"{cls.KIND.plural}.{cls.KIND.group}"
        for cls in kinds.USED
        if cls.KIND.group not in BUILT_IN
    }
    assert sorted(names) == sorted(wanted)


def test_the_gateway_api_is_of_a_version_that_is_served() -> None:
    assert RELEASES[0].version.startswith(VERSIONS)


def test_files_ask_for_what_they_use(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: Backend\nmetadata: {name: a}\n"
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
    )

    urls = run("crds", str(tmp_path), "-o", "url").stdout.splitlines()

    assert [url.split("/")[4] for url in urls] == ["gateway-api", "gateway"]


def test_a_list_on_standard_input_is_looked_into(run: Run) -> None:
    text = (
        "{apiVersion: v1, kind: List, items: [{apiVersion: llm-d.ai/v1alpha2, "
        "kind: InferenceObjective, metadata: {name: a}}]}"
    )

    assert "llm-d-router" in run("crds", "-", "-o", "url", stdin=text).stdout


@pytest.mark.skipif(not GUIDE.is_dir(), reason="the guide's files are not on this machine")
def test_the_guides_need_the_older_generation(run: Run) -> None:
    names = run("crds", str(GUIDE / "kgateway"), "-o", "name").stdout.splitlines()

    assert "inferencemodels.inference.networking.x-k8s.io" in names
    assert not any("envoyproxy" in name for name in names)
    assert "backends.gateway.envoyproxy.io" in run("crds", str(GUIDE / "eg"), "-o", "name").stdout


def test_a_path_that_is_not_there_is_an_error(run: Run, tmp_path: Path) -> None:
    result = run("crds", str(tmp_path / "nowhere"))

    assert result.exit_code == 1
    assert "no such file or folder" in result.stderr


def test_older_definitions_are_applied_before_newer_ones_of_one_project(run: Run) -> None:
    urls = run("crds", "--all", "-o", "url").stdout.splitlines()

    of_project = [url for url in urls if "inference-extension" in url]
    assert of_project == sorted(of_project)
