"""`pointsman translate`: what manifests become, and what the real Envoy says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pointsman.cli.run import example_path
from pointsman.cli.translate import translate_command
from tests.xds.test_culprits import BAD, COMMON, GOOD, POLICY, ROUTE


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "all.yaml"
    patches = POLICY.format(name="two") + GOOD + BAD
    path.write_text(COMMON + ROUTE.format(number=1, path="/a") + patches)
    return path


def test_only_the_types_that_are_asked_for_are_shown() -> None:
    result = CliRunner().invoke(
        translate_command, [str(example_path()), "--type", "route", "-o", "json"]
    )
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)) == ["routes"]


@pytest.mark.e2e
def test_the_check_names_the_patch_that_envoy_refuses(manifest: Path) -> None:
    result = CliRunner().invoke(translate_command, [str(manifest), "--check"])
    assert result.exit_code == 1
    assert "EnvoyPatchPolicy default/two: spec.jsonPatches[1]: Envoy refuses it" in result.stderr
    assert "jsonPatches[0]" not in result.stderr


@pytest.mark.e2e
def test_before_patches_envoy_takes_it(manifest: Path) -> None:
    result = CliRunner().invoke(translate_command, [str(manifest), "--check", "--before-patches"])
    assert "Envoy takes it" in result.stderr
    assert "stat_prefix: http-9080" in result.stdout
