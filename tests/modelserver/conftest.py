"""Servers for the tests: in this process, on ports of the system's choosing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from pointsman.modelserver.engine import Capacity, StepTiming
from pointsman.modelserver.options import ServerOptions
from pointsman.modelserver.replica import Replica
from pointsman.modelserver.served import Adapter
from pointsman.modelserver.server import Address, Listener, running

QUICK = StepTiming(
    base_s=0.001,
    per_sequence_s=0.0,
    per_context_token_s=0.0,
    prefill_tokens_per_s=1e6,
)
ADAPTERS = (Adapter("lora-a", "/a"), Adapter("lora-b", "/b", "tiny-base"))


@dataclass
class Served:
    """A running server and a client for it."""

    listener: Listener
    url: str
    client: aiohttp.ClientSession

    @property
    def replica(self) -> Replica:
        return self.listener.replica

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(self.url + path, headers=given, **data) as response:
            if "json" in response.content_type:
                return response.status, await response.json()
            return response.status, await response.text()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.client.get(self.url + path) as response:
            if "json" in response.content_type:
                return response.status, await response.json()
            return response.status, await response.text()


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits for a condition, looking every millisecond."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.001)


Serving = Callable[..., AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def serving_with(**changes: Any) -> AsyncIterator[Served]:
    capacity_changes = changes.pop("capacity", {})
    capacity = dataclasses.replace(
        Capacity(kv_blocks=1024, max_model_len=2048, max_loras=2), **capacity_changes
    )
    options = dataclasses.replace(
        ServerOptions(
            model="tiny",
            adapters=ADAPTERS,
            has_lora=True,
            timing=QUICK,
            capacity=capacity,
            answer_median_tokens=12,
        ),
        **changes,
    )
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        running(options, [Address("127.0.0.1", 0)]) as listeners,
        aiohttp.ClientSession(timeout=timeout) as client,
    ):
        yield Served(listeners[0], f"http://{listeners[0].address}", client)


@pytest.fixture
def serving() -> Serving:
    """Makes a server: `async with serving(...) as served`."""
    return serving_with


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """A server with the model `tiny` and two adapters."""
    async with serving_with() as one:
        yield one
