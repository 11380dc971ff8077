"""Real gRPC clients against the server."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from pointsman.certificates import Rotation, self_signed, server_context
from pointsman.wire.grpc import Call, Responder, Status
from pointsman.wire.health import Health
from pointsman.wire.http2 import Limits
from pointsman.wire.server import GrpcServer


class Echo(Call):
    """Sends back what comes; counts the calls that are open."""

    is_open = 0

    def __init__(self, responder: Responder) -> None:
        self.responder = responder
        Echo.is_open += 1

    def received(self, message: bytes) -> None:
        if message == b"boom":
            raise RuntimeError("this call breaks")
        self.responder.send(message)

    def half_closed(self) -> None:
        self.responder.finish()

    def gone(self) -> None:
        Echo.is_open -= 1


class Late(Echo):
    """Ends a while after the client did."""

    def half_closed(self) -> None:
        asyncio.get_running_loop().call_later(0.01, self.responder.finish, Status.OK)


class World:
    """A server, its health and a client."""

    def __init__(self, channel: grpc.aio.Channel, server: GrpcServer, health: Health) -> None:
        self.channel = channel
        self.server = server
        self.health = health
        self.is_serving = True

    async def echo(self, *messages: bytes, path: str = "/t.T/Echo") -> list[bytes]:
        async def said() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        call = self.channel.stream_stream(path)(said(), timeout=20)
        return [message async for message in call]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pm-") as name:
        yield Path(name)


@pytest.fixture
async def world(folder: Path) -> AsyncIterator[World]:
    state: list[World] = []
    health = Health(lambda: state[0].is_serving, frozenset({"", "ready"}), frozenset({"alive"}))
    methods = {**health.methods(), b"/t.T/Echo": Echo, b"/t.T/Late": Late}
    async with GrpcServer(methods) as server:
        await server.listen_unix(folder / "s")
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with grpc.aio.insecure_channel(f"unix:{folder}/s", options=options) as channel:
            state.append(World(channel, server, health))
            yield state[0]


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_384, 65_536, 5_000_000])
async def test_messages_of_any_size_come_back(world: World, size: int) -> None:
    message = b"x" * size
    assert await world.echo(message, b"and", message) == [message, b"and", message]
    assert Echo.is_open == 0


async def test_many_calls_at_once_are_kept_apart(world: World) -> None:
    async def one(number: int) -> None:
        message = number.to_bytes(4, "big") * 10_000
        assert await world.echo(message, message) == [message, message]

    await asyncio.gather(*(one(number) for number in range(100)))
    assert Echo.is_open == 0


async def test_a_call_that_ends_after_its_client_is_gone_once(world: World) -> None:
    assert await world.echo(b"a", path="/t.T/Late") == [b"a"]
    assert Echo.is_open == 0
    assert world.server.open_calls == 0


async def test_a_call_that_breaks_hurts_no_other(world: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as broken:
        await world.echo(b"boom")
    assert broken.value.code() is grpc.StatusCode.INTERNAL
    assert await world.echo(b"fine") == [b"fine"]


async def test_an_unknown_method_and_compression_are_unimplemented(world: World) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await world.channel.unary_unary("/t.T/None")(b"", timeout=10)
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    call = world.channel.unary_unary("/t.T/Echo")
    with pytest.raises(grpc.aio.AioRpcError) as compressed:
        await call(b"x" * 10_000, compression=grpc.Compression.Gzip, timeout=10)
    assert compressed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_is_checked_and_watched(world: World) -> None:
    check = world.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert await check(b"\x0a\x05ready", timeout=10) == b"\x08\x01"
    watch = world.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=10)
    assert await watch.read() == b"\x08\x01"
    world.is_serving = False
    world.health.changed()
    assert await watch.read() == b"\x08\x02"
    assert await check(b"", timeout=10) == b"\x08\x02"
    assert await check(b"\x0a\x05alive", timeout=10) == b"\x08\x01"
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await check(b"\x0a\x01x", timeout=10)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    watch.cancel()


async def test_a_drained_server_lets_open_calls_end(world: World) -> None:
    call = world.channel.stream_stream("/t.T/Echo")(timeout=10)
    await call.write(b"one")
    assert await call.read() == b"one"
    world.server.drain()
    await call.write(b"two")
    assert await call.read() == b"two"
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_unfinished_messages_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointsman.wire import grpc as channel

    monkeypatch.setattr(channel, "MAX_PARTIAL_BYTES", 100_000)
    with pytest.raises(grpc.aio.AioRpcError) as exhausted:
        await world.channel.unary_unary("/t.T/Echo")(b"x" * 1_000_000, timeout=10)
    assert exhausted.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await world.echo(b"x" * 50_000) == [b"x" * 50_000]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_received_message_bytes=1_000), "a message is too large"),
        (Limits(max_sent_message_bytes=1_000), "an answer is larger than may be sent"),
    ],
)
async def test_messages_may_be_limited_either_way(
    folder: Path, limits: Limits, message: str
) -> None:
    async with GrpcServer({b"/t.T/Echo": Echo}, limits) as server:
        await server.listen_unix(folder / "s")
        async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
            echo = channel.unary_unary("/t.T/Echo")
            assert await echo(b"x" * 1_000, timeout=10) == b"x" * 1_000
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await echo(b"x" * 1_001, timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == message


def certificate(folder: Path, name: str) -> None:
    made, key = self_signed(name, ("localhost",))
    (folder / "tls.crt").write_bytes(made)
    (folder / "tls.key").write_bytes(key)


async def test_a_new_certificate_is_served_and_a_broken_one_is_not(folder: Path) -> None:
    certificate(folder, "first")
    context = server_context(folder, "unused")
    rotation = Rotation(context, folder)
    async with GrpcServer({}) as server:
        port = await server.listen_tcp("127.0.0.1", 0, context)

        async def served() -> str:
            text = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
            found = x509.load_pem_x509_certificate(text.encode())
            return found.subject.rfc4514_string()

        assert await served() == "CN=first,O=Pointsman"
        assert not rotation.refresh()
        certificate(folder, "second")
        assert rotation.refresh()
        assert await served() == "CN=second,O=Pointsman"
        (folder / "tls.key").write_bytes(self_signed("other")[1])
        with pytest.raises(ssl.SSLError):
            rotation.refresh()
        assert await served() == "CN=second,O=Pointsman"
