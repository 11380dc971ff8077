"""Charts rendered by the real helm, or one line that says why there is none on this machine."""

from __future__ import annotations

import os
from functools import cache

import pytest
import yaml

from tests.charts import program
from tests.charts.manifests import CHARTS
from tests.charts.objects import Objects

TEST_S = 180
"""Of one test; a chart is rendered some dozens of times in some."""


@pytest.fixture(scope="session")
def helm() -> None:
    """Skip what needs helm where there is none, or fail it where nothing may be skipped."""
    reason = program.missing()
    if reason and program.is_required(os.environ):
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


@cache
def _once(*arguments: str, values: str) -> str:
    return program.helm(*arguments, values=values)


class Chart:
    """One of the charts."""

    def __init__(self, name: str, release: str, namespace: str) -> None:
        self.path = CHARTS / name
        self._release = release
        self._namespace = namespace

    def render(self, values: dict[str, object] | None = None) -> Objects:
        """The objects that it makes with these values."""
        return Objects.of(self.text(values))

    def text(self, values: dict[str, object] | None = None) -> str:
        """The same as text; `HelmError` where the values are refused."""
        arguments = ("template", self._release, str(self.path), "-n", self._namespace)
        return _once(*arguments, values=yaml.safe_dump(values or {}))

    def notes(self, values: dict[str, object] | None = None) -> str:
        """What a user is told after an installation."""
        arguments = ("install", self._release, str(self.path), "-n", self._namespace)
        rendered = program.helm(*arguments, "--dry-run=client", values=yaml.safe_dump(values or {}))
        return rendered.partition("NOTES:\n")[2]

    def lint(self, values: dict[str, object] | None = None) -> str:
        """What helm has to say; `HelmError` where that is bad."""
        return program.helm("lint", "--strict", str(self.path), values=yaml.safe_dump(values or {}))


@pytest.fixture
def pointsman(helm: None) -> Chart:
    """The chart of the controller."""
    return Chart("pointsman", "pointsman", "pointsman-system")


@pytest.fixture
def inferencepool(helm: None) -> Chart:
    """The chart of a pool and its picker."""
    return Chart("inferencepool", "llama", "models")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "charts" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_S))
