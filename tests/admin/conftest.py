from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pointsman.admin.client import AdminClient
from pointsman.admin.instances import SOCKET_NAME
from pointsman.admin.providers import Providers
from pointsman.admin.server import serve
from pointsman.resources.base import Resource
from pointsman.resources.parse import parse_object
from pointsman.store import Store

Served = Callable[..., AbstractAsyncContextManager[AdminClient]]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pm-") as folder:
        yield Path(folder)


@pytest.fixture
def served(short_folder: Path) -> Served:
    """A client of an admin server over a store."""

    @asynccontextmanager
    async def running(
        store: Store, providers: Providers | None = None
    ) -> AsyncIterator[AdminClient]:
        path = short_folder / SOCKET_NAME
        async with serve(store, providers or Providers(), path), AdminClient(path) as client:
            yield client

    return running


@pytest.fixture
def make() -> Callable[..., Resource]:
    def made(kind: str, name: str, api: str = "v1", **fields: Any) -> Resource:
        metadata = {"name": name, "namespace": fields.pop("namespace", "default")}
        data = {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}
        parsed = parse_object(data)
        assert parsed.resource is not None, parsed.problems
        return parsed.resource

    return made
