"""h2load as a judge of the wire: a client that shares no code with gRPC or Envoy."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pointsman.picker.process import Picker
from pointsman.picker.settings.options import Options
from pointsman.store import Store
from pointsman.wire.grpc import framed
from tests.picker.conftest import PROCESS, Objects, free_ports, pod, pool, until
from tests.picker.test_process import Mode, body, chat, headers

H2LOAD = shutil.which("h2load")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(H2LOAD is None, reason="h2load is not here (Debian: nghttp2-client)"),
]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What a gateway says of one request, as h2load posts it."""
    folder = tmp_path_factory.mktemp("said")
    said = {
        "buffered": [headers(), body(chat())],
        "full duplex": [
            headers(mode=Mode.FULL_DUPLEX_STREAMED),
            body(chat()[:20], end=False),
            body(chat()[20:]),
        ],
        "large": [headers(), body(chat("x" * 200).replace(b"hello", b"x" * 200_000))],
        "nonsense": [headers(), headers()],
    }
    paths = {}
    for name, parts in said.items():
        paths[name] = folder / name.replace(" ", "-")
        paths[name].write_bytes(b"".join(framed(part.SerializeToString()) for part in parts))
    return paths


@pytest.fixture
async def picker() -> AsyncIterator[tuple[Picker, int]]:
    store = Store()
    store.apply([pool(), *(pod(f"p{i}", f"127.0.0.{i + 1}") for i in range(3))])
    (port,) = free_ports(1)
    picker = Picker(Options(listen=(f"127.0.0.1:{port}",)), store, Objects(store))
    async with picker.running():
        await until(picker.is_serving)
        yield picker, port


async def load(port: int, data: Path, *arguments: str) -> dict[str, int]:
    """What h2load says of so many posts: how many were what."""
    command = (H2LOAD or "", *arguments, "-d", str(data), "-H", "content-type: application/grpc")
    more = ("-H", "te: trailers", "-H", "x-pointsman-pool: default/pool")
    process = await asyncio.create_subprocess_exec(
        *(*command, *more, f"http://127.0.0.1:{port}{PROCESS}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    text = output.decode()
    line = next((line for line in text.splitlines() if line.startswith("requests:")), text)
    return {name: int(count) for count, name in re.findall(r"(\d+) (\w+)", line)}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("buffered", ("-n", "3000", "-c", "4", "-m", "32")),
        ("full duplex", ("-n", "1000", "-c", "2", "-m", "16")),
        # Windows of 1,023 and 2,047 bytes: every answer waits for the client's permission.
        ("full duplex", ("-n", "300", "-c", "2", "-m", "4", "-w", "10", "-W", "11")),
        ("large", ("-n", "200", "-c", "4", "-m", "8")),
        ("nonsense", ("-n", "300", "-c", "2", "-m", "8")),
    ],
)
async def test_every_post_is_answered_and_every_load_let_go(
    picker: tuple[Picker, int], messages: dict[str, Path], name: str, arguments: tuple[str, ...]
) -> None:
    running, port = picker
    told = await load(port, messages[name], *arguments)
    count = int(arguments[1])
    # A call that breaks the protocol is a 200 with a status of gRPC's own in its trailers.
    assert (told["succeeded"], told["failed"], told["errored"]) == (count, 0, 0)
    await until(lambda: running.ext_proc.open_streams == 0)
    picked = 0 if name == "nonsense" else count
    assert sum(running.report.attempts.values.values()) == picked
    assert [running.ext_proc.held_bytes, *(e.tokens for e in running.table)] == [0] * 4
