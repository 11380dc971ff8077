"""KV cache events over ZMQ, as vLLM publishes them, with replay.

A message is `[topic, sequence number as 8 bytes big-endian, msgpack]`; the payload is
`[unix time, events, rank]`. Events are maps with a `type` (vLLM 0.32), or arrays that begin with
it (older ones). A client that missed some asks the replay socket (`['', first number]`) and gets
`['', number, payload]` for each batch still kept, then `['', -1, '']`.

As in vLLM, an endpoint with `*` or `::`, `ipc:` or `inproc:` is bound, any other is connected to.
Each replica adds its number to the port.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types
import zmq
import zmq.asyncio

from pointsman.modelserver.engine import BlockEvent, Cleared, Removed, Stored
from pointsman.modelserver.engine.hashing import BlockHash
from pointsman.modelserver.options import EventOptions

_log = logging.getLogger(__name__)

_MEDIUM = "GPU"
_END = (-1).to_bytes(8, "big", signed=True)
_REPLAY_SEND_S = 5.0
_NUMBER_BYTES = 8


class EventPublisher:
    """Publishes the cache events of one engine.

    Bounded: the replay keeps `buffer_steps` batches, the socket queues `high_water_mark` for a slow
    subscriber and then drops, as ZMQ's PUB does.

    Raises:
        OSError: if an endpoint cannot be bound or connected to.
    """

    def __init__(self, options: EventOptions, rank: int = 0) -> None:
        self._options = options
        self._rank = rank
        self._numbers = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=options.buffer_steps)
        self._context = zmq.asyncio.Context()
        self._socket: zmq.Socket[bytes] = zmq.Context.shadow(self._context).socket(zmq.PUB)
        self._socket.set_hwm(options.high_water_mark)
        self._socket.setsockopt(zmq.LINGER, 0)
        self.endpoint = _attach(self._socket, with_offset(options.endpoint, rank))
        self.replay_endpoint: str | None = None
        self._replay: zmq.asyncio.Socket | None = None
        self._task: asyncio.Task[None] | None = None
        if options.replay_endpoint:
            self._replay = self._context.socket(zmq.ROUTER)
            self._replay.setsockopt(zmq.LINGER, 0)
            self.replay_endpoint = _bound(self._replay, with_offset(options.replay_endpoint, rank))
            self._task = asyncio.create_task(self._serve_replay(self._replay))

    def publish(self, events: list[BlockEvent]) -> None:
        """Publishes some events as one batch."""
        encoded = [self._encoded(event) for event in events]
        payload = msgpack.packb([time.time(), encoded, self._rank])
        number = self._numbers
        self._numbers += 1
        self._kept.append((number, payload))
        frames = [self._options.topic.encode(), number.to_bytes(_NUMBER_BYTES, "big"), payload]
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            _log.warning("event batch %d was dropped: no subscriber keeps up", number)

    async def close(self) -> None:
        """Ends the replay and closes the sockets."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._replay is not None:
            self._replay.close(linger=0)
        self._socket.close(linger=0)
        self._context.term()

    async def _serve_replay(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            frames = await socket.recv_multipart()
            if len(frames) != 3 or len(frames[2]) != _NUMBER_BYTES:
                _log.warning("a replay request has 3 frames and a number, not %r", frames[1:])
                continue
            client, empty, first = frames
            try:
                async with asyncio.timeout(_REPLAY_SEND_S):
                    await self._replay_from(socket, client, int.from_bytes(first, "big"))
                    await socket.send_multipart((client, empty, _END, b""))
            except TimeoutError:
                _log.warning("a replay was given up: its client does not read")

    async def _replay_from(self, socket: zmq.asyncio.Socket, client: bytes, first: int) -> None:
        # A copy, since new batches may come while this waits for the client.
        for number, payload in list(self._kept):
            if number >= first:
                name = number.to_bytes(_NUMBER_BYTES, "big")
                await socket.send_multipart((client, b"", name, payload))

    def _encoded(self, event: BlockEvent) -> Any:
        fields = self._fields(event)
        if self._options.as_arrays:
            return list(fields.values())
        return fields

    def _fields(self, event: BlockEvent) -> dict[str, Any]:
        if isinstance(event, Stored):
            fields: dict[str, Any] = {
                "type": "BlockStored",
                "block_hashes": [self._name(name) for name in event.hashes],
                "parent_block_hash": None if event.parent is None else self._name(event.parent),
                "token_ids": event.tokens,
                "block_size": event.block_size,
                "lora_id": None if event.adapter is None else 1,
                "medium": _MEDIUM,
                "lora_name": event.adapter,
            }
            if not self._options.as_arrays:
                extra = None if event.adapter is None else [event.adapter]
                fields["extra_keys"] = [extra for _ in event.hashes]
                fields["group_idx"] = 0
            return fields
        if isinstance(event, Removed):
            names = [self._name(name) for name in event.hashes]
            fields = {"type": "BlockRemoved", "block_hashes": names, "medium": _MEDIUM}
            if not self._options.as_arrays:
                fields["group_idx"] = 0
            return fields
        if isinstance(event, Cleared):
            return {"type": "AllBlocksCleared"}
        raise TypeError(f"no such event: {event!r}")

    def _name(self, name: BlockHash) -> int | bytes:
        if self._options.uses_int_hashes:
            return int.from_bytes(name[-8:], "big")
        return name


def _attach(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Binds or connects, by vLLM's rule, and returns the endpoint in use."""
    if "*" in endpoint or "::" in endpoint or endpoint.startswith(("ipc://", "inproc://")):
        return _bound(socket, endpoint)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise OSError(error.errno, f"{endpoint}: {error}") from None
    return endpoint


def _bound(socket: zmq.Socket[Any], endpoint: str) -> str:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise OSError(error.errno, f"{endpoint}: {error}") from None
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def with_offset(endpoint: str, rank: int) -> str:
    """The endpoint of a replica: the port plus its number, or a suffix where there is no port.

    >>> with_offset("tcp://*:5557", 2)
    'tcp://*:5559'
    """
    if rank == 0:
        return endpoint
    head, colon, port = endpoint.rpartition(":")
    if endpoint.startswith("tcp://") and colon and port.isdigit():
        return endpoint if port == "0" else f"{head}:{int(port) + rank}"
    return f"{endpoint}_{rank}"
