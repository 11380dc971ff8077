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
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse

from pointsman.gateway.backends import clusters
from pointsman.gateway.backends.references import Address
from pointsman.gateway.names import SHARED_FLEET
from pointsman.gateway.snapshot import ENDPOINTS, Snapshot
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.translate import translate
from pointsman.xds import server
from pointsman.xds.binary import envoy_path
from pointsman.xds.bootstrap import KEEPALIVE_S, XDS_CLUSTER, bootstrap
from pointsman.xds.server import LEAST_PING_S, DiscoveryServer
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
async def envoy(folder: Path, name: str = "envoy", pings_s: float = 0) -> AsyncIterator[None]:
    path = folder / f"{name}.json"
    admin = folder / ("admin.sock" if name == "envoy" else f"{name}.sock")
    content = bootstrap("test", folder / "xds.sock", admin)
    if pings_s:
        (options,) = content["static_resources"]["clusters"][0][
            "typed_extension_protocol_options"
        ].values()
        keepalive = {"interval": f"{pings_s}s", "timeout": "5s"}
        options["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"] = (
            keepalive
        )
    path.write_text(json.dumps(content))
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


async def stats(folder: Path, pattern: str) -> dict[str, int]:
    connector = aiohttp.UnixConnector(str(folder / "admin.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        url = f"http://envoy/stats?format=json&filter={pattern}"
        answer = await (await session.get(url)).json(content_type=None)
    return {item["name"]: item["value"] for item in answer["stats"]}


async def updates(folder: Path) -> dict[str, int]:
    """How often Envoy took another listener or other routes."""
    return await stats(folder, "(lds|rds).*update_success")


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
        discovery = DiscoveryServer(heard.append)
        discovery.serve({SHARED_FLEET: made("one.example", port)})
        async with discovery.listening(tmp_path / "xds.sock"), envoy(tmp_path):
            await until(lambda: bool(discovery.facts.listeners))
            heard.clear()
            async with envoy(tmp_path, "another"):
                await until(lambda: discovery.facts.connected_of == {SHARED_FLEET: 2})
            assert all(facts.listeners for facts in heard)

    asyncio.run(scene())


def test_an_envoy_that_restarts_gets_everything_at_once(tmp_path: Path, port: int) -> None:
    async def scene() -> None:
        discovery = DiscoveryServer(lambda _: None)
        discovery.serve({SHARED_FLEET: made("one.example", port)})
        async with discovery.listening(tmp_path / "xds.sock"):
            for _ in range(2):
                async with envoy(tmp_path):
                    await until(lambda: discovery.is_settled)
                    assert await redirected_to(port) == "one.example"
                await until(lambda: not discovery.is_settled)

    asyncio.run(scene())


def pool(connect_s: int) -> Snapshot:
    """A cluster with one endpoint; `connect_s` makes it another cluster."""
    members = [clusters.Locality("pool", 1, (Address("127.0.0.1", 9),))]
    settings = clusters.ClusterSettings(connect_timeout_s=connect_s)
    return Snapshot.of(clusters.eds_cluster("pool", members, settings, ()))


def test_a_stream_that_ends_between_a_cluster_and_its_endpoints_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy itself would wait for 15 s, and take no other cluster before."""

    async def scene() -> None:
        first, second = (DiscoveryServer(lambda _: None) for _ in range(2))
        async with envoy(tmp_path):
            first.serve({SHARED_FLEET: pool(1)})
            async with first.listening(tmp_path / "xds.sock"):
                await until(lambda: first.is_settled)
                put = server._put

                def lose(outbox: server.Outbox, responses: list[DeltaDiscoveryResponse]) -> None:
                    put(outbox, [item for item in responses if item.type_url != ENDPOINTS])

                monkeypatch.setattr(server, "_put", lose)
                first.serve({SHARED_FLEET: pool(2)})
                warming = "cluster_manager.warming_clusters"
                async with asyncio.timeout(LIMIT_S):
                    while (await stats(tmp_path, warming))[warming] != 1:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                monkeypatch.undo()
            second.serve({SHARED_FLEET: pool(2)})
            async with second.listening(tmp_path / "xds.sock"):
                await until(lambda: second.is_settled)
                # Not by the end of its patience.
                timeouts = "cluster.pool.init_fetch_timeout"
                assert (await stats(tmp_path, timeouts))[timeouts] == 0

    asyncio.run(scene())


def test_an_envoy_that_often_asks_whether_we_are_there_keeps_its_stream(tmp_path: Path) -> None:
    """By the measure of gRPC's server it would be sent away at the fourth time."""
    assert KEEPALIVE_S > LEAST_PING_S
    pings_s = LEAST_PING_S + 0.1

    async def scene() -> None:
        discovery = DiscoveryServer(lambda _: None)
        discovery.serve({SHARED_FLEET: Snapshot()})
        async with discovery.listening(tmp_path / "xds.sock"), envoy(tmp_path, pings_s=pings_s):
            await until(lambda: discovery.is_settled)
            # Envoy draws up to 15 % more.
            await asyncio.sleep(6 * pings_s)
            connections = f"cluster.{XDS_CLUSTER}.upstream_cx_total"
            assert await stats(tmp_path, connections) == {connections: 1}

    asyncio.run(scene())
