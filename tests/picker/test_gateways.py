"""The settings of all known gateways: message by message, and through the real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.picker.extproc import service
from pointsman.picker.extproc.answers import Forward
from pointsman.picker.extproc.machine import Assumptions, Decide, Machine
from pointsman.picker.process import Picker
from pointsman.picker.settings.options import Options
from pointsman.store import Store
from tests.picker.conftest import Objects, until
from tests.picker.envoys import bootstrap
from tests.picker.gateways import BODY, GATEWAYS, HEAD, MODES, TRAILERS, Gateway
from tests.picker.test_envoy import Servers, chat, envoy

READING = [name for name, each in GATEWAYS.items() if each.reads_bodies]


def message(kind: str, gateway: Gateway, *, is_last: bool) -> pb.ProcessingRequest:
    made = pb.ProcessingRequest()
    part = getattr(made, kind)
    part.SetInParent()
    if kind == HEAD:
        made.protocol_config.request_body_mode = MODES[gateway.request]
        made.protocol_config.response_body_mode = MODES[gateway.response]
        made.protocol_config.send_body_without_waiting_for_header_response = gateway.no_wait
    elif kind.endswith("body"):
        part.body = b"{}"
        part.end_of_stream = is_last
    return made


def once(kinds: Iterable[str]) -> tuple[str, ...]:
    return tuple(kind for kind, _ in groupby(kinds))


CONVERSATIONS = [(name, False) for name in GATEWAYS]
CONVERSATIONS += [(name, True) for name, each in GATEWAYS.items() if each.trailers == "SEND"]


@pytest.mark.parametrize(("name", "with_trailers"), CONVERSATIONS)
def test_every_gateway_is_answered_as_it_expects(name: str, with_trailers: bool) -> None:
    gateway = GATEWAYS[name]
    says = list(gateway.says)
    if with_trailers:
        says.insert(says.index(BODY) + 1, TRAILERS)
    machine = Machine(Assumptions())
    heard: list[pb.ProcessingResponse] = []
    for place, kind in enumerate(says):
        is_last = kind != BODY or says[place + 1 : place + 2] != [TRAILERS]
        event = machine.receive(message(kind, gateway, is_last=is_last))
        if isinstance(event, Decide):
            machine.answer(Forward(("10.0.0.1:8000",)))
        heard += [pb.ProcessingResponse.FromString(data) for data in machine.out]
        machine.out.clear()
    assert once(each.WhichOneof("response") for each in heard) == tuple(says)
    assert [each.WhichOneof("response") for each in heard if each.HasField("dynamic_metadata")] == [
        gateway.picks_at
    ]


@dataclass
class Heard:
    """What Envoy said and heard, stream by stream."""

    streams: dict[int, list[str]] = field(default_factory=dict)

    def last(self) -> tuple[str, ...]:
        return once(list(self.streams.values())[-1])


@dataclass
class Stage:
    """One Envoy with a listener for each gateway, the picker, and model servers."""

    picker: Picker
    servers: Servers
    urls: dict[str, str]
    heard: Heard
    http: aiohttp.ClientSession

    async def post(self, name: str, data: bytes) -> tuple[int, bytes]:
        url = f"{self.urls[name]}/v1/chat/completions"
        async with self.http.post(url, data=data) as response:
            return response.status, await response.read()

    async def let_go(self) -> None:
        """Every stream has ended and holds nothing."""
        await until(lambda: self.picker.ext_proc.open_streams == 0)
        await until(lambda: sum(endpoint.requests for endpoint in self.picker.table) == 0)


@pytest.fixture(name="stage")
async def make_stage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    heard = Heard()
    received = service.Stream.received

    def recorded(stream: service.Stream, data: bytes) -> None:
        kind = pb.ProcessingRequest.FromString(data).WhichOneof("request")
        heard.streams.setdefault(id(stream), []).append(str(kind))
        received(stream, data)

    monkeypatch.setattr(service.Stream, "received", recorded)
    monkeypatch.setattr(service, "LINGER_S", 0.05)
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
        config = bootstrap(folder, servers.ports)
        listeners = [gateway.listener(name) for name, gateway in GATEWAYS.items()]
        listeners.append(GATEWAYS["guide buffered"].listener("held", message_timeout="0.2s"))
        config["static_resources"]["listeners"] = listeners
        urls = await stack.enter_async_context(envoy(folder, config))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Stage(picker, servers, urls, heard, http)


@pytest.mark.e2e
async def test_every_gateway_says_what_the_table_says_and_is_served(stage: Stage) -> None:
    for name, gateway in GATEWAYS.items():
        for size in (10, 300_000):
            stage.heard.streams.clear()
            data = chat("x" * size)
            status, answer = await stage.post(name, data)
            assert (name, size, status) == (name, size, 200), answer
            renamed = data.replace(b'"model":"m"', b'"model":"m-lora"')
            sent = renamed if gateway.reads_bodies else data
            assert (name, stage.servers.bodies[-1]) == (name, sent)
            await stage.let_go()
            assert (name, stage.heard.last()) == (name, gateway.says)


@pytest.mark.e2e
async def test_every_gateway_is_served_without_bodies_with_trailers_and_in_streams(
    stage: Stage,
) -> None:
    for name, gateway in GATEWAYS.items():
        async with stage.http.get(f"{stage.urls[name]}/health") as response:
            assert (name, response.status) == (name, 200)
        status, answer = await stage.post(name, chat("hi", stream=True))
        assert (name, status, answer[-24:]) == (name, 200, b"data: 49\n\ndata: [DONE]\n\n")
        await stage.let_go()
        stage.heard.streams.clear()
        assert (name, await with_trailers(stage.urls[name])) == (name, b"HTTP/1.1 200 OK")
        await stage.let_go()
        assert (TRAILERS in stage.heard.last()) == (gateway.trailers == "SEND")


@pytest.mark.e2e
async def test_every_gateway_that_shows_bodies_passes_errors_on(stage: Stage) -> None:
    for name in READING:
        status, answer = await stage.post(name, chat("x", model="other"))
        assert (name, status) == (name, 404)
        assert json.loads(answer)["error"]["code"] == "model_not_found"
    await stage.let_go()


@pytest.mark.e2e
@pytest.mark.parametrize(("is_extended", "status"), [(True, 200), (False, 504)])
async def test_a_request_that_is_held_lives_as_long_as_its_deadline_is_extended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, is_extended: bool, status: int
) -> None:
    decided = service.Stream._on_event

    def held(stream: service.Stream, event: Any) -> None:
        if not isinstance(event, Decide):
            decided(stream, event)
            return
        if is_extended:
            stream._machine.hold(10)

        def go_on() -> None:
            decided(stream, event)
            out, stream._machine.out = stream._machine.out, []
            stream._responder.send(*out)

        asyncio.get_running_loop().call_later(0.5, go_on)

    monkeypatch.setattr(service.Stream, "_on_event", held)
    assert (await stage.post("held", chat("x")))[0] == status


async def with_trailers(url: str) -> bytes:
    """The status line of the answer to a request with trailers."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    data = chat("hi")
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\ntrailer: x-end\r\nconnection: close\r\n\r\n"
        b"%x\r\n%s\r\n0\r\nx-end: 1\r\n\r\n" % (len(data), data)
    )
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    return line.strip()
