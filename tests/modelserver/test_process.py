"""The commands as processes: quick to start, gone when told, and with their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

WAIT_S = 10


@asynccontextmanager
async def command(*args: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from pointsman.cli.main import main; main()",
        *args,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """The first line on stderr that has this text."""
    assert process.stderr is not None
    async with asyncio.timeout(WAIT_S):
        while line := (await process.stderr.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"no line with {text!r}")


def address_in(line: str) -> str:
    return next(word for word in line.split() if word.startswith("http://"))


async def test_a_server_starts_within_a_second_and_answers() -> None:
    started = time.monotonic()
    async with command("modelserver", "--port", "0", "--model", "m") as process:
        url = address_in(await line_with(process, "ready on"))
        # A second on a machine of its own; this one may be shared.
        assert time.monotonic() - started < 3
        async with aiohttp.ClientSession() as client, client.get(url + "/health") as response:
            assert response.status == 200


async def test_the_end_of_its_input_ends_a_server_that_follows_its_parent() -> None:
    async with command("modelserver", "--port", "0", "--exit-with-parent") as process:
        await line_with(process, "ready on")
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), WAIT_S) == 0


async def test_a_signal_ends_a_server_and_its_streams_say_so() -> None:
    async with command("modelserver", "--port", "0", "--step-base-ms", "5") as process:
        url = address_in(await line_with(process, "ready on"))
        body = {"prompt": "Hi", "max_tokens": 5000, "ignore_eos": True, "stream": True}
        async with (
            aiohttp.ClientSession() as client,
            client.post(url + "/v1/completions", json=body) as response,
        ):
            await response.content.readany()
            process.send_signal(signal.SIGTERM)
            text = await asyncio.wait_for(response.text(), WAIT_S)
        assert '"finish_reason":"abort"' in text
        assert await asyncio.wait_for(process.wait(), WAIT_S) == 0


async def test_a_taken_port_is_one_line_on_stderr() -> None:
    async with command("modelserver", "--port", "0") as first:
        port = address_in(await line_with(first, "ready on")).rpartition(":")[2]
        async with command("modelserver", "--port", port) as second:
            assert "cannot start" in await line_with(second, "Error")
            assert await asyncio.wait_for(second.wait(), WAIT_S) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.7.x and /proc")
async def test_many_replicas_share_a_process_and_cost_little_when_idle() -> None:
    with socket.create_server(("127.0.7.1", 0)) as free:
        port = str(free.getsockname()[1])
    async with command(
        "modelserver", "--host", "127.0.7.1", "--port", port, "--replicas", "100",
        "--spread", "host",
    ) as process:  # fmt: skip
        line = await line_with(process, "ready on")
        assert f"127.0.7.100:{port} (100 replicas)" in line
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.7.77:{port}/v1/models") as response,
        ):
            assert response.status == 200
        stat = Path(f"/proc/{process.pid}/stat")
        before = cpu_ticks(stat)
        await asyncio.sleep(0.5)  # idling is what is measured
        assert cpu_ticks(stat) - before <= 2


def cpu_ticks(stat: Path) -> int:
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.skipif(sys.platform != "linux", reason="needs 127.0.7.x")
async def test_the_sidecar_keeps_a_server_as_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    allowed = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true"}
    async with command(
        "modelserver", "--host", "127.0.7.9", "--port", "0", "--enable-lora", **allowed
    ) as server:
        url = address_in(await line_with(server, "ready on"))
        port = url.rpartition(":")[2]
        path.write_text(
            f"vLLMLoRAConfig: {{port: {port}, ensureExist: {{models: [{{id: a, source: x}}]}}}}"
        )
        async with command(
            "lora-syncer", "--host", "127.0.7.9", "--metrics-port", "0", "--exit-with-parent",
            DYNAMIC_LORA_ROLLOUT_CONFIG=str(path),
        ) as sidecar:  # fmt: skip
            await line_with(sidecar, "loaded a")
            async with (
                aiohttp.ClientSession() as client,
                client.get(url + "/v1/models") as response,
            ):
                assert [card["id"] for card in (await response.json())["data"]][1:] == ["a"]
            assert sidecar.stdin is not None
            sidecar.stdin.close()
            assert await asyncio.wait_for(sidecar.wait(), WAIT_S) == 0
