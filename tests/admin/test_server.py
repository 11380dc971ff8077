from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pointsman.admin import server, watch
from pointsman.admin.client import AdminClient, AdminError
from pointsman.admin.providers import EndpointRow, Providers
from pointsman.resources.base import Resource
from pointsman.store import Store

Served = Callable[..., AbstractAsyncContextManager[AdminClient]]
Make = Callable[..., Resource]
MAPS = [("", "ConfigMap")]


@pytest.fixture
def store(make: Make) -> Store:
    store = Store()
    store.apply(
        [
            make("ConfigMap", "a", data={"x": "1"}),
            make("ConfigMap", "b", namespace="other"),
            make(
                "Gateway",
                "web",
                "gateway.networking.k8s.io/v1",
                spec={
                    "gatewayClassName": "c",
                    "listeners": [{"name": "l", "port": 80, "protocol": "HTTP"}],
                },
                status={
                    "conditions": [{"type": "Programmed", "status": "True"}],
                    "listeners": [{"name": "l", "conditions": [{"type": "Accepted"}]}],
                },
            ),
        ]
    )
    return store


async def get(path: Path, url: str) -> tuple[int, str]:
    connector = aiohttp.UnixConnector(str(path))
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get(f"http://localhost{url}") as response,
    ):
        return response.status, await response.text()


async def test_only_this_user_may_open_the_socket(
    store: Store, served: Served, short_folder: Path
) -> None:
    path = short_folder / "admin.sock"
    async with served(store):
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert mode & 0o777 == 0o600
    assert not path.exists()


async def test_health_and_readiness(store: Store, served: Served, short_folder: Path) -> None:
    path = short_folder / "admin.sock"
    is_ready = False
    async with served(store, Providers(is_ready=lambda: is_ready)):
        assert await get(path, "/healthz") == (200, "ok\n")
        assert (await get(path, "/readyz"))[0] == 503
        is_ready = True
        assert (await get(path, "/readyz"))[0] == 200


async def test_objects_by_kind_namespace_and_name(store: Store, served: Served) -> None:
    async with served(store) as client:
        assert len(await client.objects()) == 3
        assert [item["metadata"]["name"] for item in await client.objects("cm")] == ["a", "b"]
        assert [i["metadata"]["name"] for i in await client.objects("cm", "other")] == ["b"]
        (web,) = await client.objects("gateways", None, "web")
        assert web["spec"]["listeners"][0]["port"] == 80
        assert await client.objects("pods") == []


async def test_an_unknown_kind_is_an_error_with_neighbours(store: Store, served: Served) -> None:
    async with served(store) as client:
        with pytest.raises(AdminError, match="unknown kind 'gatewys', did you mean Gateway"):
            await client.objects("gatewys")
        with pytest.raises(AdminError, match=r"write Kind\.group"):
            await anext(client.watch([("nowhere", "Thing")]))


async def test_the_kinds_that_are_known(store: Store, served: Served) -> None:
    async with served(store) as client:
        found = {row["kind"]: row for row in await client.kinds()}
        assert found["Gateway"]["shortNames"] == ["gtw"]
        assert found["ClusterRole"]["used"] is False


async def test_a_watch_says_what_is_there_and_then_what_changes(
    store: Store, served: Served, make: Make
) -> None:
    async with served(store) as client:
        events = client.watch(MAPS, namespace="default")
        assert (await anext(events))["object"]["metadata"]["name"] == "a"
        assert await anext(events) == {"type": "SYNCED"}

        store.apply([make("ConfigMap", "elsewhere", namespace="other"), make("Pod", "p")])
        store.apply([make("ConfigMap", "c")])
        event = await anext(events)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "c")

        store.apply([make("ConfigMap", "c", data={"x": "y"})])
        event = await anext(events)
        assert (event["type"], event["object"]["data"]) == ("MODIFIED", {"x": "y"})

        store.apply(deleted=[make("ConfigMap", "c").ref])
        assert (await anext(events))["type"] == "DELETED"


async def test_a_silent_watch_has_a_heartbeat(
    store: Store, served: Served, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.stream, "__defaults__", (0.01,))
    path = short_folder / "admin.sock"
    async with (
        served(store),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://localhost/api/watch?kinds=Pod.") as response,
    ):
        lines = [await asyncio.wait_for(response.content.readline(), 5) for _ in range(3)]
        assert lines == [b'{"type":"SYNCED"}\n', *[b'{"type":"HEARTBEAT"}\n'] * 2]


async def test_a_slow_reader_gets_the_latest_state_and_costs_no_memory(
    store: Store, served: Served, make: Make
) -> None:
    async with served(store) as client:
        events = client.watch(MAPS)
        while (await anext(events))["type"] != "SYNCED":
            pass
        big = "x" * 200_000
        for number in range(300):
            store.apply([make("ConfigMap", "a", data={"big": big, "number": str(number)})])
            if number % 10 == 0:
                await asyncio.sleep(0)
        seen = 0
        while (await asyncio.wait_for(anext(events), 10))["object"]["data"]["number"] != "299":
            seen += 1
        assert seen < 290


async def test_streams_are_bounded(
    store: Store, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_STREAMS", 1)
    async with served(store) as client:
        first = client.watch(MAPS)
        await anext(first)
        with pytest.raises(AdminError, match="1 streams are open already"):
            await anext(client.watch(MAPS))


async def test_a_server_that_ends_ends_its_watches(
    store: Store, short_folder: Path, make: Make
) -> None:
    path = short_folder / "admin.sock"
    async with AdminClient(path) as client:
        async with server.serve(store, Providers(), path):
            events = client.watch([("", "Pod")])
            assert (await anext(events))["type"] == "SYNCED"
        with pytest.raises(AdminError, match="ended the connection"):
            await asyncio.wait_for(anext(events), 5)
        with pytest.raises(AdminError, match="no instance answers"):
            await client.status()


async def endpoints() -> Sequence[EndpointRow]:
    return [{"pool": "default/p", "address": "10.0.0.1:8000", "waiting": 3, "kv_cache": 0.5}]


async def test_the_status_is_everything_on_one_page(store: Store, served: Served) -> None:
    providers = Providers(
        version=lambda: {"pointsman": "1"},
        endpoints=endpoints,
        xds=lambda: [{"type": "Listener", "state": "ACKED", "objects": ["Gateway default/web"]}],
        problems=lambda: [{"file": "a.yaml", "line": 3, "message": "x"}],
    )
    async with served(store, providers) as client:
        answer = await client.status()
        assert await client.version() == {"pointsman": "1"}

    gateway = next(item for item in answer["objects"] if item["kind"] == "Gateway")
    assert gateway["object"] == "Gateway default/web"
    assert [(c["of"], c["type"]) for c in gateway["conditions"]] == [
        ("", "Programmed"),
        ("listener l", "Accepted"),
    ]
    assert answer["endpoints"][0]["waiting"] == 3
    assert answer["xds"][0]["state"] == "ACKED"
    assert answer["problems"][0]["line"] == 3


async def never() -> list[Any]:
    await asyncio.Event().wait()
    return []


async def test_a_picker_that_is_silent_holds_up_no_status(
    store: Store, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PROVIDER_DEADLINE_S", 0.01)
    async with served(store, Providers(endpoints=never)) as client:
        answer = await client.status()

    assert answer["endpoints"] == []
    assert "gave no answer" in answer["endpointsError"]


class KeptLogs:
    def names(self) -> Sequence[str]:
        return ["envoy"]

    def tail(self, name: str, lines: int) -> Sequence[str] | None:
        return ["one", "two", "three"][-lines:] if name == "envoy" else None

    async def follow(self, name: str) -> AsyncIterator[str]:
        yield "four"


async def test_logs_by_name(store: Store, served: Served) -> None:
    async with served(store, Providers(logs=KeptLogs())) as client:
        assert [line async for line in client.logs("envoy")] == ["one", "two", "three"]
        assert [line async for line in client.logs("envoy", tail=1, follow=True)] == [
            "three",
            "four",
        ]
        with pytest.raises(AdminError, match=r"'x' has no logs \(those that have: envoy\)"):
            await anext(client.logs("x"))


async def test_decisions(store: Store, served: Served) -> None:
    async def decisions(limit: int, only: Mapping[str, str]) -> Sequence[dict[str, Any]]:
        return [{"limit": limit, **only}]

    async with served(store, Providers(decisions=decisions)) as client:
        only = {"request_id": "r", "model": "m", "endpoint": "e:1", "pool": "n/p"}
        assert await client.decisions(7, only) == [{"limit": 7, **only}]
        assert await client.decisions(10**6) == [{"limit": 1000}]


async def test_decisions_of_a_silent_picker_are_not_waited_for(
    store: Store, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def decisions(limit: int, only: Mapping[str, str]) -> Sequence[dict[str, Any]]:
        return await never()

    monkeypatch.setattr(server, "PROVIDER_DEADLINE_S", 0.01)
    async with served(store, Providers(decisions=decisions)) as client:
        with pytest.raises(AdminError, match="gave no answer"):
            await client.decisions(1)


async def test_without_a_record_there_are_no_decisions(store: Store, served: Served) -> None:
    async with served(store) as client:
        with pytest.raises(AdminError, match="keeps no record"):
            await client.decisions(1)


async def test_an_instance_that_is_not_there_is_said_so(short_folder: Path) -> None:
    async with AdminClient(short_folder / "none.sock") as client:
        with pytest.raises(AdminError, match="no instance answers at"):
            await client.kinds()
