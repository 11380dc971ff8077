"""The pages name what there is, and what they show works."""

from __future__ import annotations

import random
import re
import textwrap
from pathlib import Path

import pytest

from pointsman.picker.config import read_config
from pointsman.picker.endpoints.table import Seen
from pointsman.picker.plugins_page import page
from pointsman.picker.scheduling.plugins import ENTRY_POINTS, PARAMETERS
from pointsman.picker.scheduling.profile import choose
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.settings.flags import usage

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "picker.md").read_text()
PLUGINS = (DOCS / "plugins.md").read_text()


def test_every_plugin_type_is_on_the_page() -> None:
    assert [name for name in PARAMETERS if f"`{name}`" not in PAGE] == []


def test_every_flag_is_on_the_page() -> None:
    flags = re.findall(r"--?([a-zA-Z][\w-]*)", usage())
    assert [flag for flag in flags if f"-{flag}`" not in PAGE and flag[0].islower()] == []


def test_the_page_of_plugins_is_what_the_code_says() -> None:
    message = "write it anew: python -m pointsman.picker.plugins_page > docs/plugins.md"
    assert page() == PLUGINS, message


def shown(begin: str, end: str) -> str:
    """An indented part of the page of plugins, from one line to before another."""
    text = PLUGINS[PLUGINS.index(begin) : PLUGINS.index(end)]
    return textwrap.dedent(text)


def test_the_plugin_that_the_page_shows_can_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = shown("    from pointsman.picker", "In the package's")
    (tmp_path / "pointsman_test_shown.py").write_text(code)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    info = tmp_path / "pointsman_test_shown-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pointsman-test-shown\nVersion: 1.0\n"
    )
    table = shown('    [project.entry-points."', "In the configuration:")
    name, _, value = table.splitlines()[1].partition(" = ")
    assert f'"{ENTRY_POINTS}"' in table
    function = value.strip('"').rpartition(":")[2]
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINTS}]\n{name} = pointsman_test_shown:{function}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    config = shown("    plugins:\n", "| field of")
    head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    profile = read_config(head + config).profiles["default"]

    servers = [Seen(zone, None, 0, 0, {"zone": zone}) for zone in "bac"]
    assert choose(profile, servers, Wanted(), random.Random(1))[0].address == "a"


def test_every_test_that_the_page_names_is_there() -> None:
    tests = Path(__file__).parents[1]
    for name in re.findall(r"`((?:picker|e2e|cli|kubernetes)/[\w./]+(?:::\w+)?)`", PAGE):
        path, _, function = name.partition("::")
        text = (tests / path).read_text()
        assert not function or f"def {function}(" in text, name
