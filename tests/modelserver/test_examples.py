"""The examples in the docstrings."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from pointsman.modelserver import engine, events, histogram, tokens


@pytest.mark.parametrize("module", [engine, events, histogram, tokens])
def test_the_examples_are_true(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0
