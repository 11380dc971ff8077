from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent

import pytest

from pointsman.resources.parse import parse_text


@pytest.fixture
def problems_of() -> Callable[[str], list[str]]:
    """The problems of a text, without its name: `14: spec.x: must be ...`."""

    def find(text: str) -> list[str]:
        parsed = parse_text(dedent(text).lstrip("\n"), "f")
        return [str(problem).removeprefix("f:") for item in parsed for problem in item.problems]

    return find
