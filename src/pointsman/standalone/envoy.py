"""An Envoy as a process: started from the wheel, asked over its admin socket, then drained."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from pointsman.gateway.bootstraps import BootstrapError, customized
from pointsman.resources.envoy_proxy import ProxyBootstrap
from pointsman.standalone.processes import Command, Output, Process
from pointsman.xds.binary import envoy_path
from pointsman.xds.dry_run import DryRunError, check_bootstrap

ADMIN_TIMEOUT_S = 2.0
DRAIN_POLL_S = 0.05
LOG_FLUSH_MS = 200
"""How long a line of an access log may wait for others."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - Envoy's choice, not ours
BASE_ID_FACTOR = 10
"""Envoy multiplies the base id by the number of restart epochs it allows, for file names."""


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """How Envoy is run."""

    folder: Path
    """Where its admin socket is, and what it writes."""
    bootstrap: Path
    """The file that it starts with; it names `admin_socket`."""
    admin_socket: Path
    node_id: str | None = None
    """Who it is, where the bootstrap does not say."""
    concurrency: int | None = None
    """Worker threads; None means one for each core."""
    log_level: str = "warning"
    component_levels: Mapping[str, str] = field(default_factory=dict)
    """The levels of single components of Envoy's."""
    min_drain_s: float = 0.0
    """How long it still takes requests at its end, while everybody learns that it goes."""
    drain_timeout_s: float = 10.0
    """How long answers that stream may go on after the listeners have closed."""
    logs_to_stdout: bool = False
    """Its listeners have access logs on standard output, which is ours then."""

    @property
    def base_id_file(self) -> Path:
        """Where Envoy writes the number that tells it from other Envoys of this machine."""
        return self.folder / "envoy-base-id"


async def write_bootstrap(
    path: Path,
    own: Mapping[str, Any],
    wanted: ProxyBootstrap | None,
    on_problem: Callable[[str], None],
) -> None:
    """Write a bootstrap as a user wants it, or ours where Envoy would not start with that.

    `on_problem` is told why a user's is not used.
    """
    result: Mapping[str, Any] = own
    if wanted is not None:
        try:
            changed = customized(own, wanted)
            await check_bootstrap(changed)
        except (BootstrapError, DryRunError) as error:
            on_problem(str(error))
        else:
            result = changed
    await asyncio.to_thread(path.write_text, json.dumps(result, indent=2))


class Envoy:
    """One Envoy that is kept running."""

    def __init__(self, settings: EnvoySettings, output: Output) -> None:
        self._settings = settings
        self.process = Process(_command(settings), output, self._clean_up)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Envoy]:
        """Envoy runs inside this context; at its end it drains first."""
        try:
            async with self.process.running():
                try:
                    yield self
                finally:
                    await self._say_goodbye()
                    await self._drain()
        finally:
            self._clean_up()

    async def _say_goodbye(self) -> None:
        """Tell clients and whoever asks for its health that it goes, and serve for a while yet.

        A connection is closed by its next answer then, and no request meets a closed one.
        """
        if self._settings.min_drain_s > 0 and self.process.is_running:
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._ask("POST", "/healthcheck/fail")
            await asyncio.sleep(self._settings.min_drain_s)

    def _clean_up(self) -> None:
        if not self.process.is_running:
            remove_shared_memory(self._settings.base_id_file)

    async def sees_healthy(self, cluster: str) -> bool:
        """Whether Envoy's own health checks find a server in that cluster."""
        try:
            status = json.loads(await self._ask("GET", "/clusters?format=json"))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return False
        return any(
            host.get("health_status", {}).get("eds_health_status") == "HEALTHY"
            and not host["health_status"].get("failed_active_health_check", False)
            for item in status.get("cluster_statuses", ())
            if item.get("name") == cluster
            for host in item.get("host_statuses", ())
        )

    async def _drain(self) -> None:
        """Take no new connections, and wait for the requests that are under way."""
        if not self.process.is_running:
            return
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout_s):
                await self._ask("POST", "/drain_listeners?inboundonly=false")
                # Envoy tells nobody when it is idle, so it is asked.
                while await self._active_requests() > 0:  # noqa: ASYNC110
                    await asyncio.sleep(DRAIN_POLL_S)

    async def _active_requests(self) -> int:
        text = await self._ask("GET", "/stats?format=json&filter=downstream_rq_active")
        stats: list[dict[str, Any]] = json.loads(text).get("stats", [])
        return sum(
            int(item["value"])
            for item in stats
            if item.get("name", "").startswith("http.")
            and not item["name"].startswith("http.admin")
        )

    async def _ask(self, method: str, path: str) -> str:
        connector = aiohttp.UnixConnector(str(self._settings.admin_socket))
        timeout = aiohttp.ClientTimeout(ADMIN_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://envoy{path}") as answer,
        ):
            return await answer.text()


def _command(settings: EnvoySettings) -> Command:
    concurrency = settings.concurrency or os.cpu_count() or 1
    components = ",".join(f"{name}:{level}" for name, level in settings.component_levels.items())
    argv = (
        str(envoy_path()),
        *("-c", str(settings.bootstrap)),
        *(("--service-node", settings.node_id) if settings.node_id is not None else ()),
        # Not --disable-hot-restart: with it goes the signal that ends Envoy with its parent.
        "--use-dynamic-base-id",
        *("--base-id-path", str(settings.base_id_file)),
        *("--concurrency", str(concurrency)),
        *("--log-level", settings.log_level),
        *(("--component-log-level", components) if components else ()),
        *("--log-format", "%Y-%m-%d %T.%e %l envoy %n: %v"),
        "--reject-unknown-dynamic-fields",
        "--skip-deprecated-logs",
        *("--file-flush-interval-msec", str(LOG_FLUSH_MS)),
    )
    return Command("envoy", argv, grace_s=5.0, shares_stdout=settings.logs_to_stdout)


def remove_shared_memory(base_id_file: Path) -> None:
    """Envoy leaves the shared memory of its hot restart behind; this takes it away."""
    try:
        base_id = int(base_id_file.read_text())
    except (OSError, ValueError):
        return
    name = f"envoy_shared_memory_{base_id * BASE_ID_FACTOR}"
    (SHARED_MEMORY / name).unlink(missing_ok=True)
