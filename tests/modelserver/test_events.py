"""KV cache events over ZMQ, read as a subscriber of vLLM would read them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
import zmq
import zmq.asyncio

from pointsman.modelserver.engine import Sequence, token_array
from pointsman.modelserver.engine.hashing import BlockHashes
from pointsman.modelserver.events import with_offset
from pointsman.modelserver.options import EventOptions
from tests.modelserver.conftest import Served, Serving

WAIT_S = 5


@asynccontextmanager
async def subscribed(endpoint: str, *, binds: bool = False) -> AsyncIterator[zmq.asyncio.Socket]:
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    if binds:
        socket.bind(endpoint)
    else:
        socket.connect(endpoint)
    try:
        yield socket
    finally:
        socket.close(linger=0)
        context.term()


async def first_batch(served: Served, socket: zmq.asyncio.Socket) -> tuple[int, list[Any]]:
    """Asks until a batch arrives, since a subscription takes a moment to be known."""
    for attempt in range(500):
        prompt = [attempt * 100 + place for place in range(33)]
        await served.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
        try:
            topic, number, payload = await asyncio.wait_for(socket.recv_multipart(), 0.05)
        except TimeoutError:
            continue
        assert topic == b"kv"
        return int.from_bytes(number, "big"), msgpack.unpackb(payload)
    raise AssertionError("no batch arrived")


def options_at(tmp_path: Path, **more: Any) -> EventOptions:
    return EventOptions(
        endpoint=f"ipc://{tmp_path}/events",
        replay_endpoint=f"ipc://{tmp_path}/replay",
        topic="kv",
        **more,
    )


async def test_a_prompt_stores_its_full_blocks(serving: Serving, tmp_path: Path) -> None:
    events = options_at(tmp_path)
    async with serving(events=events) as served, subscribed(events.endpoint) as socket:
        _, (at_s, batch, rank) = await first_batch(served, socket)
        assert at_s > 1.6e9
        assert rank == 0
        [event] = batch
        assert event["type"] == "BlockStored"
        assert event["block_size"] == 16
        assert len(event["token_ids"]) == 32
        assert len(event["block_hashes"]) == 2
        assert all(isinstance(name, int) for name in event["block_hashes"])
        assert event["parent_block_hash"] is None
        assert (event["medium"], event["lora_name"]) == ("GPU", None)


async def test_events_may_be_arrays_and_hashes_bytes(serving: Serving, tmp_path: Path) -> None:
    events = options_at(tmp_path, as_arrays=True, uses_int_hashes=False)
    async with serving(events=events) as served, subscribed(events.endpoint) as socket:
        _, (_, [event], _) = await first_batch(served, socket)
        kind, hashes, parent, tokens, size, adapter_id, medium, name = event
        assert (kind, parent, size, adapter_id, medium, name) == (
            "BlockStored", None, 16, None, "GPU", None,
        )  # fmt: skip
        assert [len(entry) for entry in hashes] == [32, 32]
        assert len(tokens) == 32


async def test_what_was_missed_can_be_replayed(serving: Serving, tmp_path: Path) -> None:
    events = options_at(tmp_path)
    async with serving(events=events) as served:
        for first in range(3):
            prompt = [first * 100 + place for place in range(20)]
            await served.post("/v1/completions", {"prompt": prompt, "max_tokens": 1})
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(events.replay_endpoint or "")
        await socket.send_multipart((b"", (1).to_bytes(8, "big")))
        numbers = []
        async with asyncio.timeout(WAIT_S):
            while True:
                _, number, payload = await socket.recv_multipart()
                if not payload:
                    assert int.from_bytes(number, "big", signed=True) == -1
                    break
                numbers.append(int.from_bytes(number, "big"))
                assert msgpack.unpackb(payload)[1][0]["type"] == "BlockStored"
        socket.close(linger=0)
        context.term()
        assert numbers == [1, 2]


async def test_a_bad_replay_request_is_passed_over(serving: Serving, tmp_path: Path) -> None:
    events = options_at(tmp_path)
    async with serving(events=events) as served:
        await served.post("/v1/completions", {"prompt": list(range(20)), "max_tokens": 1})
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(events.replay_endpoint or "")
        await socket.send_multipart((b"", b"what?"))
        await socket.send_multipart((b"", bytes(8)))
        frames = await asyncio.wait_for(socket.recv_multipart(), WAIT_S)
        assert frames[1] == bytes(8)
        socket.close(linger=0)
        context.term()


async def test_an_endpoint_without_wildcard_is_connected_to(serving: Serving) -> None:
    context = zmq.asyncio.Context()
    listening = context.socket(zmq.SUB)
    listening.setsockopt(zmq.SUBSCRIBE, b"")
    port = listening.bind_to_random_port("tcp://127.0.0.1")
    events = EventOptions(endpoint=f"tcp://127.0.0.1:{port}", topic="kv")
    async with serving(events=events) as served:
        _, (_, batch, _) = await first_batch(served, listening)
        assert batch[0]["type"] == "BlockStored"
    listening.close(linger=0)
    context.term()


async def test_an_endpoint_that_is_taken_is_an_os_error(serving: Serving, tmp_path: Path) -> None:
    events = EventOptions(endpoint=f"ipc://{tmp_path}/no/such/folder/events")
    with pytest.raises(OSError, match="events"):
        async with serving(events=events):
            pass


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp://*:5557", "tcp://*:5560"),
        ("tcp://*:0", "tcp://*:0"),
        ("ipc:///tmp/x", "ipc:///tmp/x_3"),
    ],
)
def test_each_replica_has_an_endpoint_of_its_own(endpoint: str, expected: str) -> None:
    assert with_offset(endpoint, 3) == expected


def test_cbor_hashes_can_be_recomputed_by_others() -> None:
    # [h'root', [1, 300, 70000], null] in canonical CBOR, written by hand.
    hashes = BlockHashes(3, "sha256_cbor", "0")
    root = hashlib.sha256(b"\x61\x30").digest()
    assert hashes.root == root
    ids = b"\x83\x01\x19\x01\x2c\x1a\x00\x01\x11\x70"
    expected = hashlib.sha256(b"\x83\x58\x20" + root + ids + b"\xf6").digest()
    sequence = Sequence("s", token_array([1, 300, 70_000]), token_array([]))
    assert hashes.of(sequence, 1) == [expected]


def test_cbor_hashes_know_adapter_and_salt() -> None:
    hashes = BlockHashes(1, "sha256_cbor", "0")
    sequence = Sequence("s", token_array([1, 2]), token_array([]), adapter="a", adapter_path="p")
    sequence.salt = "x"
    lora = b"\x83\x64lora\x61a\x61p"
    first = b"\x83\x58\x20" + hashes.root + b"\x81\x01" + b"\x82" + lora
    first += b"\x82\x6acache_salt\x61x"
    one = hashlib.sha256(first).digest()
    two = hashlib.sha256(b"\x83\x58\x20" + one + b"\x81\x02" + b"\x81" + lora).digest()
    assert hashes.of(sequence, 2) == [one, two]
