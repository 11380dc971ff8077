"""A picker in this process or its own, its objects, and model servers that only have metrics."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.picker.process import Picker
from pointsman.picker.settings.options import Options
from pointsman.resources.base import Resource
from pointsman.resources.parse import parse_object
from pointsman.store import Store
from tests.ports import free_port

PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"


def resource(**data: Any) -> Resource:
    parsed = parse_object(data)
    assert parsed.resource is not None, parsed.problems
    return parsed.resource


def pool(name: str = "pool", port: int = 8000) -> Resource:
    return resource(
        apiVersion="inference.networking.k8s.io/v1",
        kind="InferencePool",
        metadata={"name": name, "namespace": "default"},
        spec={
            "selector": {"matchLabels": {"app": name}},
            "targetPorts": [{"number": port}],
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        },
    )


def pod(name: str, ip: str, app: str = "pool", *, ready: bool = True, **metadata: Any) -> Resource:
    return resource(
        apiVersion="v1",
        kind="Pod",
        metadata={"name": name, "namespace": "default", "labels": {"app": app}, **metadata},
        spec={"containers": [{"name": "server", "image": "vllm"}]},
        status={
            "podIP": ip,
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    )


def model(
    name: str, criticality: str | None = None, targets: Sequence[tuple[str, int | None]] = ()
) -> Resource:
    spec: dict[str, Any] = {"modelName": name, "poolRef": {"name": "pool"}}
    if criticality:
        spec["criticality"] = criticality
    if targets:
        spec["targetModels"] = [
            {"name": target} | ({} if weight is None else {"weight": weight})
            for target, weight in targets
        ]
    return resource(
        apiVersion="inference.networking.x-k8s.io/v1alpha2",
        kind="InferenceModel",
        metadata={"name": name.replace("_", "-"), "namespace": "default"},
        spec=spec,
    )


class Objects:
    """A source whose objects the test puts in by hand."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def start(self) -> None:
        return None

    async def follow(self) -> None:
        await asyncio.Event().wait()


class Running:
    """A live picker and a real gRPC client of it."""

    def __init__(self, picker: Picker, store: Store, channel: grpc.aio.Channel) -> None:
        self.picker = picker
        self.store = store
        self.channel = channel

    def stream(self, pool_key: str | None = "default/pool") -> Any:
        metadata = (("x-pointsman-pool", pool_key),) if pool_key else ()
        process = self.channel.stream_stream(
            PROCESS,
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        return process(metadata=metadata, timeout=10)


async def until(is_true: Callable[[], Any], timeout_s: float = 5.0) -> None:
    """Wait until a condition holds; fails the test when it does not come to hold."""
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.005)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: Unix sockets allow about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="pm-") as name:
        yield Path(name)


@pytest.fixture
async def running(folder: Path) -> AsyncIterator[Running]:
    """A picker on a Unix socket, with one pool of three pods."""
    store = Store()
    store.apply([pool(), *(pod(f"p{i}", f"127.0.0.{i + 1}") for i in range(3))])
    options = Options(listen=(f"unix:{folder}/p.sock",), admin_socket=folder / "a.sock")
    picker = Picker(options, store, Objects(store))
    async with picker.running():
        await until(picker.is_serving)
        async with grpc.aio.insecure_channel(
            f"unix:{folder}/p.sock",
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        ) as channel:
            yield Running(picker, store, channel)


@asynccontextmanager
async def model_server(metrics: Callable[[], str]) -> AsyncIterator[int]:
    """A server with nothing but /metrics; yields its port."""

    async def show(_request: web.Request) -> web.Response:
        return web.Response(text=metrics())

    app = web.Application()
    app.router.add_get("/metrics", show)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


RUN = "from pointsman.cli.picker import picker; picker()"


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


class Feed:
    """The other process's side of the feed."""

    def __init__(self, objects: Sequence[Resource]) -> None:
        self.objects = list(objects)
        self.kinds = ""
        self.changes: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.kinds = request.query["kinds"]
        response = web.StreamResponse()
        await response.prepare(request)
        for item in self.objects:
            await self._line(response, {"type": "ADDED", "object": item.to_dict()})
        await self._line(response, {"type": "SYNCED"})
        while (change := await self.changes.get()) is not None:
            await self._line(response, change)
        return response

    async def _line(self, response: web.StreamResponse, line: dict[str, Any]) -> None:
        await response.write(json.dumps(line).encode() + b"\n")


@asynccontextmanager
async def serving(feed: Feed, path: Path) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_get("/api/watch", feed.watch)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def command(
    *arguments: str, stdin: int | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN,
        *arguments,
        stdin=stdin if stdin is not None else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "USE_STREAMING": "true"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
