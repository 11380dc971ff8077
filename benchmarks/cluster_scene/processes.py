"""The processes of the benchmark of a cluster: the controller, the Envoys, and what they use."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import aiohttp

from benchmarks.cluster_scene.objects import ACCOUNT, CONTROL_PLANE, NAMESPACE, SYSTEM
from benchmarks.picker_envoy import cpu_s
from pointsman.cluster.envoys import ADMIN_SOCKET, CERTIFICATES_FOLDER, CONFIGURATION_FOLDER
from pointsman.xds.bootstrap import READY_PORT
from tests.kubernetes.cluster import Cluster, Part
from tests.ports import free_port

GIVE_UP_S = 60.0
LOOK_S = 0.001
"""Between two looks at something; a look at Envoy takes about as long again."""
QUIET_S = 1.0
"""Without a write for as long, everything is written."""


def rss_mib(pid: int) -> float:
    """What a process has in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has no memory")


def pid_of(part: Part) -> int:
    """The process of a part that runs."""
    if not part.is_running or part.process is None:
        raise SystemExit(f"{part.name} has ended; its log ends with\n{part.tail()}")
    return part.process.pid


class Controller:
    """`pointsman controller` on this machine."""

    def __init__(self, cluster: Cluster, web: aiohttp.ClientSession) -> None:
        self.xds_port = free_port()
        self._health_port, self._metrics_port = free_port(), free_port()
        self._web = web
        kubeconfig = cluster.kubeconfig_for(ACCOUNT, SYSTEM)
        self.part = Part(
            "controller",
            (
                *(program(), "controller", "--kubeconfig", str(kubeconfig)),
                *("--namespace", SYSTEM, "--bind", "127.0.0.1"),
                *("--xds-port", str(self.xds_port)),
                *("--health-port", str(self._health_port)),
                *("--metrics-port", str(self._metrics_port)),
            ),
            cluster.folder / "controller.log",
            {"PATH": os.environ["PATH"]},
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return pid_of(self.part)

    async def start(self) -> float:
        """Seconds until it is ready."""
        began = time.perf_counter()
        self.part.start()
        await until(self._is_ready)
        return time.perf_counter() - began

    async def samples(self) -> Mapping[str, float]:
        """Its metrics, by their last word(s)."""
        async with self._web.get(f"http://127.0.0.1:{self._metrics_port}/metrics") as answer:
            text = await answer.text()
        pairs = (line.split() for line in text.splitlines() if not line.startswith("#"))
        return {name.removeprefix("pointsman_controller_"): float(value) for name, value in pairs}

    async def settled(self) -> None:
        """Until nothing has been written for a while."""
        before, since = -1.0, time.perf_counter()
        while time.perf_counter() - since < QUIET_S:
            now = (await self.samples())["status_writes_total"]
            if now != before:
                before, since = now, time.perf_counter()
            await asyncio.sleep(0.05)

    async def _is_ready(self) -> bool:
        _ = self.pid
        with suppress(aiohttp.ClientError):
            async with self._web.get(f"http://127.0.0.1:{self._health_port}/readyz") as answer:
                return answer.status == 200
        return False


class Envoy:
    """The Envoy of a Gateway, with the files that its pods have."""

    def __init__(self, gateway_name: str, port: int, folder: Path) -> None:
        self._name = f"{gateway_name}-pointsman"
        self._folder = folder
        self._url = f"http://127.0.0.1:{port}"
        self._admin = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(folder / "run" / "admin.sock"))
        )
        self._clients = aiohttp.ClientSession()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()
        await self._clients.close()
        self.part.stop()

    def start(self, configuration: Mapping[str, str], secret: Mapping[str, str], port: int) -> None:
        """Run it against the controller at a port of this machine, which a pod finds by DNS."""
        places = {name: self._folder / name for name in ("configuration", "certificates", "run")}
        for place in places.values():
            place.mkdir(parents=True)
        for name, content in secret.items():
            (places["certificates"] / name).write_bytes(base64.b64decode(content))
        moved = {
            str(CONFIGURATION_FOLDER): str(places["configuration"]),
            str(CERTIFICATES_FOLDER): str(places["certificates"]),
            str(ADMIN_SOCKET): str(places["run"] / "admin.sock"),
            f'"address": "{CONTROL_PLANE}"': '"address": "127.0.0.1"',
            f'"port_value": {READY_PORT}': f'"port_value": {free_port()}',
        }
        for name, content in configuration.items():
            text = content
            for old, new in moved.items():
                text = text.replace(old, new)
            (places["configuration"] / name).write_text(text)
        self.part = Part(
            self._name,
            (
                *(program(), "proxy", "--node-id", self._name, "--concurrency", "1"),
                *("--bootstrap", str(places["configuration"] / "bootstrap.json")),
                *("--admin-socket", str(places["run"] / "admin.sock")),
                *("--component-log-level", "misc:error", "--min-drain", "0"),
            ),
            self._folder / "envoy.log",
            {"PATH": os.environ["PATH"]},
        )
        self.part.start()

    async def members(self, number: int) -> int:
        """How many servers of a pool it has; -1 while it does not know the pool."""
        name = f"cluster.inferencepool/{NAMESPACE}/pool-{number}.membership_total"
        with suppress(aiohttp.ClientError):
            async with self._admin.get(
                "http://admin/stats", params={"filter": f"^{name}$"}
            ) as answer:
                return int((await answer.text()).rpartition(":")[2] or -1)
        return -1

    async def has_members(self, number: int, wanted: int) -> bool:
        """Whether it has as many."""
        return await self.members(number) == wanted

    async def redirects(self, path: str) -> bool:
        """Whether the route of a path is there."""
        with suppress(aiohttp.ClientError):
            async with self._clients.get(f"{self._url}{path}", allow_redirects=False) as answer:
                return answer.status == 302
        return False


def program() -> str:
    """`pointsman` of this installation."""
    return str(Path(sys.executable).with_name("pointsman"))


async def until(check: Callable[[], Awaitable[object]], pause_s: float = LOOK_S) -> None:
    """Until something is so.

    Raises:
        SystemExit: it did not become so.
    """
    deadline = time.perf_counter() + GIVE_UP_S
    while not await check():
        if time.perf_counter() > deadline:
            raise SystemExit(f"not within {GIVE_UP_S:g} s")
        await asyncio.sleep(pause_s)


def import_cost() -> tuple[float, float]:
    """CPU in seconds, and MiB, of a process that has only imported the controller."""
    process = subprocess.Popen(
        (sys.executable, "-c", "import pointsman.cli.controller; print(); input()"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        if process.stdout is None or not process.stdout.readline():
            raise SystemExit("the controller cannot be imported")
        found = cpu_s(process.pid), rss_mib(process.pid)
        process.kill()
    return found


def reader_s(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """CPU of a process that ends by itself."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"{command[0]} ended with {status}")
    return used.ru_utime + used.ru_stime
