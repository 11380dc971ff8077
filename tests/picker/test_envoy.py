"""The picker behind the real Envoy, in the modes of our own gateway and of foreign ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pointsman.picker import process
from pointsman.picker.config import read_config
from pointsman.picker.ends.rates import PrefillRate
from pointsman.picker.process import Picker
from pointsman.picker.settings.options import Options
from pointsman.resources.base import Resource
from pointsman.store import Store
from pointsman.wire.server import GrpcServer
from tests.picker.conftest import Feed, Objects, command, model, pod, pool, serving, until
from tests.picker.envoys import CLOSED, GUIDE, KEY, OWN, bootstrap, envoy_binary

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


@dataclass
class Servers:
    """Model servers that say what came to them."""

    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    release: asyncio.Event | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        for _ in range(2):
            app = web.Application(client_max_size=64 * 1024 * 1024)
            app.router.add_route("*", "/{path:.*}", self.answer)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.ports.append(runner.addresses[0][1])

    def objects(self) -> list[Resource]:
        """The pool, its pods, and a model that is renamed."""
        pods = [
            pod(f"p{i}", "127.0.0.1", annotations={"pointsman.dev/ports": f"8000={port}"})
            for i, port in enumerate(self.ports)
        ]
        return [pool(), *pods, model("m", "Critical", targets=[("m-lora", None)])]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(status=404)
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        if b'"stream":true' not in self.bodies[-1]:
            assert request.transport is not None
            port = request.transport.get_extra_info("sockname")[1]
            return web.json_response({"port": port})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if self.release is not None:
            await response.write(b"data: first\n\n")
            await self.release.wait()
        for number in range(50):
            await response.write(b"data: %d\n\n" % number)
        await response.write(b"data: [DONE]\n\n")
        return response


@dataclass
class World:
    """Envoy, the picker, the model servers."""

    picker: Picker
    store: Store
    servers: Servers
    urls: dict[str, str]
    http: aiohttp.ClientSession

    async def post(
        self, mode: str, data: bytes, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        async with self.http.post(
            f"{self.urls[mode]}/v1/chat/completions",
            data=data,
            headers={"content-type": "application/json", **headers},
        ) as response:
            return response.status, await response.read(), dict(response.headers)


@asynccontextmanager
async def envoy(folder: Path, settings: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
    """A running Envoy; yields the URL of each listener."""
    config = folder / "envoy.json"
    config.write_text(json.dumps(settings))
    names = {each["name"] for each in settings["static_resources"]["listeners"]}
    process = await asyncio.create_subprocess_exec(
        envoy_binary(),
        *("-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"),
    )
    try:
        async with asyncio.timeout(15):
            urls = await addresses(folder / "admin", names)
        yield urls
    finally:
        process.terminate()
        await process.wait()


async def addresses(admin: Path, names: set[str]) -> dict[str, str]:
    """Asks Envoy's admin until every listener has its port."""
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(admin))) as session,
                session.get("http://a/listeners?format=json") as response,
            ):
                found = (await response.json()).get("listener_statuses", [])
                sockets = {each["name"]: each["local_address"]["socket_address"] for each in found}
                if set(sockets) == names:
                    return {
                        name: f"http://127.0.0.1:{at['port_value']}" for name, at in sockets.items()
                    }
        await asyncio.sleep(0.02)


@pytest.fixture
async def world(folder: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        servers = Servers()
        await servers.start(stack)
        store = Store()
        store.apply(servers.objects())
        options = Options(
            listen=(f"unix:{folder}/p.sock",),
            pool_name="pool",
            grpc_port=0,
            grpc_health_port=0,
            metrics_port=0,
            bind="127.0.0.1",
        )
        picker = Picker(options, store, Objects(store))
        await stack.enter_async_context(picker.running())
        await until(picker.is_serving)
        urls = await stack.enter_async_context(envoy(folder, bootstrap(folder, servers.ports)))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield World(picker, store, servers, urls, http)


def chat(text: str, **more: Any) -> bytes:
    fields = {"seed": 2**63 - 1, "model": "m", "prompt": text, **more}
    return json.dumps(fields, separators=(",", ":")).encode()


@pytest.mark.e2e
async def test_requests_are_rewritten_routed_and_released(world: World) -> None:
    for mode in (OWN, GUIDE):
        for size in (10, 100_000, 2_000_000):
            data = chat("x" * size)
            status, answer, _ = await world.post(mode, data, **{KEY: "127.0.0.1:1"})
            assert (mode, size, status) == (mode, size, 200), answer
            assert world.servers.bodies[-1] == data.replace(b'"model":"m"', b'"model":"m-lora"')
            assert json.loads(answer)["port"] in world.servers.ports
        await until(lambda: world.picker.ext_proc.open_streams == 0)
    assert [endpoint.requests for endpoint in world.picker.table] == [0, 0]
    assert len(world.picker.director.ring) == 6


@pytest.mark.e2e
async def test_streamed_answers_pass_and_hold_their_load_to_the_end(world: World) -> None:
    for mode in (OWN, GUIDE):
        status, answer, _ = await world.post(mode, chat("hi", stream=True))
        assert status == 200
        assert answer.endswith(b"data: 49\n\ndata: [DONE]\n\n")
        await until(lambda: sum(endpoint.requests for endpoint in world.picker.table) == 0)


@pytest.mark.e2e
async def test_the_speed_of_servers_is_learnt_from_log_or_stream(world: World) -> None:
    log = world.picker.director.access_log
    for mode in (OWN, GUIDE):
        for endpoint in world.picker.table:
            endpoint.prefill = PrefillRate()
        for number in range(40):
            status, _, _ = await world.post(mode, chat(f"{mode} {number} " * 500))
            assert status == 200
        await until(lambda: any(each.prefill.is_learnt for each in world.picker.table))
        if mode == OWN:
            await until(lambda: log.matched == 40)


@pytest.mark.e2e
async def test_a_client_that_sends_its_token_back_comes_to_the_same_server(world: World) -> None:
    text = "plugins: [{type: session-affinity-filter}, {type: random-picker}]"
    world.picker.director.config = read_config(f"{HEAD}{text}")
    for mode in (OWN, GUIDE):
        _, answer, headers = await world.post(mode, chat("hi"))
        token = {"x-session-token": headers["x-session-token"]}
        for _ in range(6):
            _, again, headers = await world.post(mode, chat("hi"), **token)
            assert (again, headers["x-session-token"]) == (answer, token["x-session-token"])
    await until(lambda: world.picker.ext_proc.open_streams == 0)


@pytest.mark.e2e
async def test_requests_without_a_body_are_balanced(world: World) -> None:
    for mode in (OWN, GUIDE):
        async with world.http.get(f"{world.urls[mode]}/health") as response:
            assert response.status == 200


@pytest.mark.e2e
async def test_errors_reach_the_client_as_json(world: World) -> None:
    for mode in (OWN, GUIDE):
        for data, status, code in (
            (b"{", 400, "invalid_json"),
            (chat("x", model="other"), 404, "model_not_found"),
        ):
            got, answer, headers = await world.post(mode, data)
            assert (got, json.loads(answer)["error"]["code"]) == (status, code)
            assert headers["Content-Type"] == "application/json"


@pytest.mark.e2e
async def test_a_drained_picker_lets_running_answers_go_on(world: World) -> None:
    world.servers.release = asyncio.Event()
    async with world.http.post(
        f"{world.urls[OWN]}/v1/chat/completions", data=chat("hi", stream=True)
    ) as response:
        assert await response.content.readline() == b"data: first\n"
        assert world.picker.ext_proc.open_streams == 1
        world.picker.ext_proc.drain()
        world.servers.release.set()
        assert (await response.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.e2e
async def test_while_a_picker_leaves_a_cluster_no_request_fails_and_no_answer_is_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = asyncio.Event()

    def announce(server: GrpcServer) -> None:
        announce_end(server)
        announced.set()

    announce_end = GrpcServer.announce_end
    monkeypatch.setattr(process, "SETTLE_S", 0.3)
    monkeypatch.setattr(GrpcServer, "announce_end", announce)
    world.servers.release = asyncio.Event()
    url = f"{world.urls[GUIDE]}/v1/chat/completions"
    async with world.http.post(url, data=chat("hi", stream=True)) as running:
        assert await running.content.readline() == b"data: first\n"
        leaving = asyncio.create_task(world.picker.leave(asyncio.Event()))
        rounds_left = 20
        while rounds_left:
            for mode in (OWN, CLOSED, GUIDE):
                assert (await world.post(mode, chat("hi")))[0] == 200
            rounds_left -= announced.is_set()
        assert not world.picker.is_serving()
        assert not leaving.done()
        world.servers.release.set()
        assert (await running.read()).endswith(b"data: [DONE]\n\n")
    await leaving


@asynccontextmanager
async def separate_picker(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A picker that can be killed; there once it answers."""
    (folder / "p.sock").unlink(missing_ok=True)
    feed, admin = folder / "f.sock", folder / "a.sock"
    arguments = ("--listen", f"unix:{folder}/p.sock", "--feed", f"unix:{feed}")
    async with command(*arguments, "--admin-socket", str(admin)) as process:
        async with asyncio.timeout(15):
            await healthy(admin)
        yield process


async def healthy(admin: Path) -> None:
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(admin))) as session,
                session.get("http://a/healthz") as response,
            ):
                if response.status == 200:
                    return
        await asyncio.sleep(0.02)


@pytest.mark.e2e
async def test_a_picker_that_dies_hangs_or_comes_back(folder: Path) -> None:
    async with AsyncExitStack() as stack:
        servers = Servers()
        await servers.start(stack)
        await stack.enter_async_context(serving(Feed(servers.objects()), folder / "f.sock"))
        urls = await stack.enter_async_context(envoy(folder, bootstrap(folder, servers.ports)))
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def ask(name: str, size: int = 10) -> int:
            url = f"{urls[name]}/v1/chat/completions"
            async with asyncio.timeout(ANSWERED_S), http.post(url, data=chat("x" * size)) as got:
                await got.read()
                return got.status

        async def is_picked(name: str) -> bool:
            """Whether the picker, and not a fallback, chose where the request went."""
            return await ask(name) == 200 and b"m-lora" in servers.bodies[-1]

        async with separate_picker(folder) as process:
            await until_true(lambda: is_picked(OWN))
            await until_true(lambda: is_picked(CLOSED))
            servers.release = asyncio.Event()
            data = chat("hi", stream=True)
            async with http.post(f"{urls[CLOSED]}/v1/chat/completions", data=data) as response:
                assert await response.content.readline() == b"data: first\n"
                process.kill()
                await process.wait()
                for size in (10, 200_000):
                    assert (await ask(OWN, size), await ask(CLOSED, size)) == (200, 503)
                servers.release.set()
                assert (await response.read()).endswith(b"data: [DONE]\n\n")
        async with separate_picker(folder) as process:
            await until_true(lambda: is_picked(CLOSED))
            process.send_signal(signal.SIGSTOP)
            answers = await asyncio.gather(ask(OWN), ask(CLOSED))
            assert list(answers) == [200, 503]
            process.send_signal(signal.SIGCONT)
            await until_true(lambda: is_picked(CLOSED))


ANSWERED_S = 20.0
"""A request that has no answer by then hangs; far above all that Envoy waits for."""


async def until_true(ask: Callable[[], Awaitable[bool]]) -> None:
    """Asks until the answer is yes."""
    async with asyncio.timeout(ANSWERED_S):
        while True:
            if await ask():
                return
            await asyncio.sleep(0.02)
