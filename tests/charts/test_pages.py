"""What the pages tell users to type exists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from pointsman.cli.main import Commands, cli
from tests.charts.manifests import CHARTS, ROOT
from tests.charts.objects import leaves

PAGES = [ROOT / "docs" / name for name in ("kubernetes.md", "migration.md")]


def values_of(chart: str) -> set[str]:
    return set(leaves(yaml.safe_load((CHARTS / chart / "values.yaml").read_text())))


KNOWN = values_of("pointsman") | values_of("inferencepool")
"""Values that are set to something; a mapping of labels has names of its own below it."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()

    for name in re.findall(r"\b(?:deploy/[\w-]+\.yaml|charts/[\w./-]+\w)", text):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_section_that_is_linked_is_there(page: Path) -> None:
    for target, section in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text()):
        other = page.parent / target if target else page
        headings = re.findall(r"(?m)^#+ (.+)$", other.read_text())
        known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert section in known, f"{target}#{section}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_value_that_is_set_is_one_of_a_chart(page: Path) -> None:
    for word in re.findall(r"--set(?:-json)? '?([A-Za-z][\w.,\[\]]*?)=", page.read_text()):
        name = re.sub(r"\[\d+\].*", "", word)
        assert name in KNOWN or name.rpartition(".")[0] in KNOWN, word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one(page: Path) -> None:
    assert isinstance(cli, Commands)
    known = cli.list_commands(click.Context(cli))
    for name in re.findall(r"(?m)^ {4}(?:.*\| )?pointsman ([a-z-]+)", page.read_text()):
        assert name in known, name
