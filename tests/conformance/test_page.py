"""The page on conformance tells the truth of tests and features."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pointsman.gateway import features

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "conformance.md").read_text()
NAMED = sorted(set(re.findall(r"`([a-z0-9_/]+\.py)::(\w+)`", PAGE)))
IN_CLUSTERS = "in clusters: "
CORE, EXTENDED = 37, 57
"""How many tests the profile GATEWAY-HTTP had in the published reports of 1.6."""


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its first two lines."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_every_test_that_the_page_names_is_there(path: str, name: str) -> None:
    tree = ast.parse((TESTS / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in tree.body if isinstance(node, functions)}


def test_every_test_of_the_suite_has_one_of_ours() -> None:
    core, extended = rows("GATEWAY-HTTP: core"), rows("GATEWAY-HTTP: extended")
    assert len(core) == CORE
    assert len(extended) >= EXTENDED
    for cells in (*core, *extended, *rows("GATEWAY-GRPC")):
        assert "::" in cells[-1], cells
    names = [cells[0] for cells in (*core, *extended)]
    assert len(set(names)) == len(names)


def test_the_features_of_the_page_are_those_that_classes_tell() -> None:
    extended = rows("GATEWAY-HTTP: extended")
    intro, in_clusters = re.split(r"and\s+every|In a cluster", PAGE.split("## Features\n")[1])[:3:2]
    listed = {cells[1] for cells in extended if not cells[-1].startswith(IN_CLUSTERS)}
    assert sorted(listed | named(intro)) == list(features.SUPPORTED)
    listed |= {cells[1] for cells in extended} | named(in_clusters.split("\n\n")[0])
    assert sorted(listed | named(intro)) == list(features.SUPPORTED_IN_CLUSTERS)


def named(text: str) -> set[str]:
    return set(re.findall(r"`([A-Z]\w+)`", text))
