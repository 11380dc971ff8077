"""The discovery service and the real Envoy: coming, going, and coming back."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from pointsman.gateway.names import SHARED_FLEET
from pointsman.gateway.snapshot import Snapshot
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.translate import translate
from pointsman.xds.binary import envoy_path
from pointsman.xds.bootstrap import bootstrap
from pointsman.xds.server import DiscoveryServer
from tests.gateway.test_golden import OPTIONS, loaded
from tests.ports import free_port

pytestmark = pytest.mark.e2e

MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: front}}
spec:
  gatewayClassName: any
  listeners: [{{name: all, protocol: HTTP, port: 80}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: away}}
spec:
  parentRefs: [{{name: front}}]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: {target}}}}}]}}]
"""
LIMIT_S = 20.0


@pytest.fixture
def port() -> int:
    return free_port()


def made(target: str, port: int) -> Snapshot:
    options = replace(OPTIONS, port_map={80: port})
    return translate(loaded(MANIFESTS.format(target=target)), options).snapshot


@asynccontextmanager
async def envoy(folder: Path, name: str = "envoy") -> AsyncIterator[None]:
    path = folder / f"{name}.json"
    admin = folder / ("admin.sock" if name == "envoy" else f"{name}.sock")
    path.write_text(json.dumps(bootstrap("test", folder / "xds.sock", admin)))
    flags = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "critical")
    process = await asyncio.create_subprocess_exec(str(envoy_path()), "-c", str(path), *flags)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not check():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def redirected_to(port: int) -> str | None:
    def ask() -> str | None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        client.request("GET", "/")
        return urlsplit(client.getresponse().headers.get("location", "")).hostname

    return await asyncio.to_thread(ask)


async def updates(folder: Path) -> dict[str, int]:
    """How often Envoy took another listener or other routes."""
    connector = aiohttp.UnixConnector(str(folder / "admin.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        url = "http://envoy/stats?format=json&filter=(lds|rds).*update_success"
        answer = await (await session.get(url)).json(content_type=None)
    return {item["name"]: item["value"] for item in answer["stats"]}


def test_a_control_plane_that_restarts_does_not_disturb_envoy(tmp_path: Path, port: int) -> None:
    async def scene() -> None:
        first, second = (DiscoveryServer(lambda _: None) for _ in range(2))
        async with envoy(tmp_path):
            first.serve({SHARED_FLEET: made("one.example", port)})
            async with first.listening(tmp_path / "xds.sock"):
                await until(lambda: first.is_settled)
                before = await updates(tmp_path)
            assert await redirected_to(port) == "one.example"
            second.serve({SHARED_FLEET: made("one.example", port)})
            async with second.listening(tmp_path / "xds.sock"):
                await until(lambda: second.is_settled)
                assert await redirected_to(port) == "one.example"
                assert await updates(tmp_path) == before
                second.serve({SHARED_FLEET: made("two.example", port)})
                await until(lambda: second.is_settled)
                assert await redirected_to(port) == "two.example"

    asyncio.run(scene())


def test_an_envoy_that_comes_takes_back_nothing_that_was_said(tmp_path: Path, port: int) -> None:
    async def scene() -> None:
        heard: list[EnvoyFacts] = []
        server = DiscoveryServer(heard.append)
        server.serve({SHARED_FLEET: made("one.example", port)})
        async with server.listening(tmp_path / "xds.sock"), envoy(tmp_path):
            await until(lambda: bool(server.facts.listeners))
            heard.clear()
            async with envoy(tmp_path, "another"):
                await until(lambda: server.facts.connected_of == {SHARED_FLEET: 2})
            assert all(facts.listeners for facts in heard)

    asyncio.run(scene())


def test_an_envoy_that_restarts_gets_everything_at_once(tmp_path: Path, port: int) -> None:
    async def scene() -> None:
        server = DiscoveryServer(lambda _: None)
        server.serve({SHARED_FLEET: made("one.example", port)})
        async with server.listening(tmp_path / "xds.sock"):
            for _ in range(2):
                async with envoy(tmp_path):
                    await until(lambda: server.is_settled)
                    assert await redirected_to(port) == "one.example"
                await until(lambda: not server.is_settled)

    asyncio.run(scene())
