"""A plugin of one's own, from a wheel through the installer into a running picker."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import sys
import zipfile
from pathlib import Path

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.picker.plugins_page import EXAMPLE
from pointsman.picker.scheduling.plugins import ENTRY_POINTS
from tests.picker.conftest import PROCESS, Feed, command, pod, pool, serving
from tests.picker.test_command import get, healthy
from tests.picker.test_process import headers, mutations

pytestmark = pytest.mark.e2e

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: nearest-scorer, parameters: {zone: far}}]
"""


def wheel(folder: Path) -> Path:
    """A package of one module, as a build tool would leave it (PEP 427)."""
    info = "pointsman_nearest-1.0.dist-info"
    files = {
        "pointsman_nearest.py": EXAMPLE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: pointsman-nearest\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{ENTRY_POINTS}]\nnearest-scorer=pointsman_nearest:nearest\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{name},sha256={digest.decode()},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = folder / "pointsman_nearest-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


async def install(package: Path, target: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"),
        *("--disable-pip-version-check", "--target", str(target), str(package)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


async def test_an_installed_plugin_decides(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await install(wheel(tmp_path), tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path / "site"), *sys.path)))
    labels = {"app": "pool", "zone": "far"}
    pods = [pod(f"p{n}", f"127.0.0.{n}") for n in (1, 2, 3)]
    pods.append(pod("far", "127.0.0.9", labels=labels))
    sockets = {name: folder / f"{name}.sock" for name in ("feed", "p", "a")}
    async with (
        serving(Feed([pool(), *pods]), sockets["feed"]),
        command(
            *("--listen", f"unix:{sockets['p']}", "--feed", f"unix:{sockets['feed']}"),
            *("--admin-socket", str(sockets["a"]), "--config-text", CONFIG),
        ),
        grpc.aio.insecure_channel(f"unix:{sockets['p']}") as channel,
    ):
        await healthy(channel, "")
        process = channel.stream_stream(
            PROCESS,
            request_serializer=pb.ProcessingRequest.SerializeToString,
            response_deserializer=pb.ProcessingResponse.FromString,
        )
        for _ in range(5):
            stream = process(metadata=(("x-pointsman-pool", "default/pool"),), timeout=10)
            await stream.write(headers(path="/health", end=True))
            picked = mutations((await stream.read()).request_headers.response)
            assert picked["x-gateway-destination-endpoint"] == "127.0.0.9:8000"
            stream.cancel()
        (decision, *_) = await get(sockets["a"], "/decisions")
        assert decision["scores"]["127.0.0.9:8000"] == {"nearest-scorer": 1}
        assert decision["scores"]["127.0.0.1:8000"] == {"nearest-scorer": 0}
