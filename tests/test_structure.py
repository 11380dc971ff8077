"""The house is as the design says: a room imports only from rooms that stand before it."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import pointsman

SOURCE = Path(pointsman.__file__).parent

ROOMS = (
    "resources",
    "inference",
    "store",
    "telemetry",
    "certificates",
    "background",
    "sockets",
    "sources",
    "gateway",
    "wire",
    "xds",
    "picker",
    "modelserver",
    "admin",
    "standalone",
    "cluster",
    "cli",
)
"""Ground floor first."""


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "pointsman" and len(parts) > 1 and parts[1] in ROOMS:
                found.add(parts[1])
    return found


FILES = sorted(path for path in SOURCE.rglob("*.py") if not room_of(path).startswith("__"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_from_rooms_before_it(path: Path) -> None:
    here = ROOMS.index(room_of(path))
    later = {room for room in imported_rooms(path) if ROOMS.index(room) > here}
    assert later == set()


def test_every_room_is_in_the_list() -> None:
    assert {room_of(path) for path in FILES} <= set(ROOMS)


def module_names() -> list[str]:
    return [
        found.name
        for found in pkgutil.walk_packages(pointsman.__path__, "pointsman.")
        if not found.name.endswith("__main__")
    ]


@pytest.mark.parametrize("name", module_names())
def test_the_examples_in_docstrings_hold(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_wait_swallows_a_cancellation(path: Path) -> None:
    # Before Python 3.12 `asyncio.wait_for` forgets a cancellation that comes in the moment in which
    # what it waits for is there, and its task then never ends. `asyncio.timeout` does not.
    assert "asyncio.wait_for" not in path.read_text()
