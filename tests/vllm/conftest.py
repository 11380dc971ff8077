"""Skips this folder unless a Python with vLLM is named, and starts the servers once for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.servers import PYTHON_VARIABLE, START_S, Cluster, cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = f"{PYTHON_VARIABLE} names no Python with vLLM; `make test-vllm` makes one"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * START_S))
            if not os.environ.get(PYTHON_VARIABLE):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A gateway with two vLLM servers that serve the base and both adapters."""
    with cluster(tmp_path_factory.mktemp("vllm")) as made:
        yield made
