"""The page names what there is."""

from __future__ import annotations

import re
from pathlib import Path

from pointsman.picker.flags import usage
from pointsman.picker.scheduling.plugins import PARAMETERS

PAGE = (Path(__file__).parents[2] / "docs" / "picker.md").read_text()


def test_every_plugin_type_is_on_the_page() -> None:
    assert [name for name in PARAMETERS if f"`{name}`" not in PAGE] == []


def test_every_flag_is_on_the_page() -> None:
    flags = re.findall(r"--?([a-zA-Z][\w-]*)", usage())
    assert [flag for flag in flags if f"-{flag}`" not in PAGE and flag[0].islower()] == []
