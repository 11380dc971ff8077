"""One Pointsman on one machine: everything that `pointsman run` brings up, and takes down again.

What is started later depends on what is started earlier, and ends before it:

    addresses, folder ▶ store ▶ admin socket ▶ control plane ▶ pods ▶ picker ▶ Envoy

So at the end Envoy drains first, while pickers and model servers still answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointsman import __version__
from pointsman.admin import server as admin_server
from pointsman.admin.control_plane import listener_rows, problem_row, xds_rows
from pointsman.admin.instances import SOCKET_NAME, instance_folder
from pointsman.admin.providers import EndpointRow, Providers
from pointsman.background import Background
from pointsman.certificates import system_authorities
from pointsman.gateway import configuration, names
from pointsman.gateway.conditions import with_times
from pointsman.gateway.listeners.access_logs import STDOUT, AccessLog
from pointsman.gateway.listeners.classes import served_gateways
from pointsman.gateway.options import Options
from pointsman.gateway.proxies import (
    ProcessSettings,
    Proxies,
    access_logs_of,
    process_settings,
    proxies,
)
from pointsman.resources.base import Ref
from pointsman.resources.envoy_proxy import EnvoyProxy
from pointsman.resources.problems import Problem
from pointsman.sources import apply_status
from pointsman.sources.clock import now_text
from pointsman.sources.files import FileSource
from pointsman.standalone import pickers
from pointsman.standalone.addresses import claimed_addresses
from pointsman.standalone.envoy import Envoy, EnvoySettings, write_bootstrap
from pointsman.standalone.external import External, ExternalServers
from pointsman.standalone.launchers import Launcher
from pointsman.standalone.outputs import Outputs
from pointsman.standalone.provided import ProvidedServices
from pointsman.standalone.workloads import Workloads
from pointsman.store import Store
from pointsman.xds.binary import envoy_version
from pointsman.xds.bootstrap import bootstrap
from pointsman.xds.controller import Controller
from pointsman.xds.publisher import Publisher

READY_POLL_S = 0.02
DEFAULT_LOG_LEVEL = "warning"
DEFAULT_DRAIN_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """How an instance is run."""

    paths: tuple[str, ...]
    """Files, folders, or `-`."""
    servers: tuple[External, ...] = ()
    """Model servers that already run."""
    servers_port: int = 8080
    """The listener in front of `servers`."""
    name: str | None = None
    address: str = "127.0.0.1"
    """Where listeners bind."""
    port_map: Mapping[int, int] = field(default_factory=dict)
    concurrency: int | None = None
    """Envoy's worker threads."""
    shared_addresses: bool | None = None
    """All pods on 127.0.0.1; None decides by what the machine has."""
    runs_real_commands: bool = False
    """Containers run their own command where it is installed."""
    envoy_log_level: str | None = None
    """None for what an EnvoyProxy says, or little."""
    echoes_output: bool = False
    """What processes print goes to our own log too."""
    drain_timeout_s: float | None = None
    """None for what an EnvoyProxy says, or a little."""
    access_log: AccessLog | None = None
    """What is written of each request; None for nothing."""


class Instance:
    """A running instance."""

    def __init__(self, settings: InstanceSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.store = Store()
        self.outputs = Outputs(_echo if settings.echoes_output else None)
        self.source = FileSource(
            self.store, settings.paths, on_change=log.info, on_problem=_log_problem
        )
        self.options = Options(
            bind_address=settings.address,
            advertised_address=settings.address,
            port_map=dict(settings.port_map),
            exclusive_ports=True,
            own_picker_socket=str(folder / "picker.sock"),
            access_logs=(settings.access_log,) if settings.access_log is not None else (),
            authorities_path=system_authorities(),
            is_alone=True,
        )
        publisher = Publisher(self.store, self.source.write_status)
        self.controller = Controller(self.store, self.options, publisher.publish)
        self.external = ExternalServers(self.store, settings.servers, settings.servers_port)
        self.workloads: Workloads | None = None
        self.picker = pickers.ProvidedPicker(
            folder, self.admin_socket, self.outputs, lambda: self.controller.translation
        )
        self.envoy: Envoy | None = None
        self._background: Background | None = None
        self._was_ready = False
        self._problems: list[Problem] = []
        """What was found out beside the files."""

    @property
    def admin_socket(self) -> Path:
        """Where the commands reach this instance."""
        return self.folder / SOCKET_NAME

    async def waiting_for(self) -> list[str]:
        """What is not up yet, in words; nothing when a request would be answered."""
        found = list(self.workloads.waiting) if self.workloads is not None else ["the pods"]
        if not self.external.is_settled:
            found.append("none of the servers answers")
        if not self.controller.is_current or not self.controller.discovery.is_settled:
            found.append("Envoy has not taken everything")
        if not await self.picker.is_ready():
            found.append("the picker is not ready")
        elif self.picker.is_wanted and (
            self.envoy is None or not await self.envoy.sees_healthy(names.OWN_PICKER_CLUSTER)
        ):
            found.append("Envoy has not reached the picker")
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Instance]:
        """The instance lives inside this context; nothing of it is left afterwards."""
        background = self._background = Background()
        async with AsyncExitStack() as stack:
            addresses = stack.enter_context(
                claimed_addresses(shared=self.settings.shared_addresses)
            )
            await self.source.start()
            await self.external.start()
            await stack.enter_async_context(
                admin_server.serve(self.store, self._providers(), self.admin_socket)
            )
            xds_socket = self.folder / "xds.sock"
            await stack.enter_async_context(self.controller.discovery.listening(xds_socket))
            await background.keep(stack, self.source.follow(), "files")
            await background.keep(stack, self.external.run(), "external servers")
            await background.keep(stack, self.controller.run(), "control plane")
            await background.keep(stack, ProvidedServices(self.store).run(), "provided pickers")
            self.workloads = Workloads(
                self.store,
                addresses,
                self.folder / "pods",
                self.admin_socket,
                self.outputs.of,
                self._set_status,
                Launcher(prefers_real=self.settings.runs_real_commands),
            )
            await background.keep(stack, self.workloads.run(), "workloads")
            await background.keep(stack, self.picker.run(self.store), "picker")
            wanted = self._process_settings()
            envoy = self._envoy_settings(wanted)
            own = bootstrap(f"pointsman~{os.getpid()}", xds_socket, envoy.admin_socket)
            await write_bootstrap(envoy.bootstrap, own, wanted.bootstrap, self._on_bootstrap)
            self.envoy = Envoy(envoy, self.outputs.of("envoy"))
            await stack.enter_async_context(self.envoy.running())
            yield self

    async def ready(self, timeout_s: float) -> bool:
        """Wait until everything is up; False when it is not within that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Several processes have to be up, and none tells of the others.
                while await self.waiting_for():  # noqa: ASYNC110
                    await asyncio.sleep(READY_POLL_S)
        self._was_ready = not await self.waiting_for()
        return self._was_ready

    async def failed(self) -> None:
        """Returns never, unless a part of the instance breaks: then raises why."""
        if self._background is not None:
            await self._background.failed()

    def _proxies(self) -> Proxies:
        config = configuration.read(self.store).gateway
        return proxies(self.store, served_gateways(self.store, config, self.options))

    def _process_settings(self) -> ProcessSettings:
        """What the leading EnvoyProxy says of Envoy."""
        return process_settings(self._proxies().leading)

    def _envoy_settings(self, wanted: ProcessSettings) -> EnvoySettings:
        """What the command line says of Envoy, and for what it leaves `wanted`."""
        given = self.settings
        drain_s = wanted.drain_timeout_s if given.drain_timeout_s is None else given.drain_timeout_s
        logs = [log for item in self._proxies().all for log in access_logs_of(item.spec, ())]
        return EnvoySettings(
            self.folder,
            bootstrap=self.folder / "envoy.json",
            admin_socket=self.folder / "envoy-admin.sock",
            concurrency=given.concurrency or wanted.concurrency,
            log_level=given.envoy_log_level or wanted.log_level or DEFAULT_LOG_LEVEL,
            component_levels=wanted.component_levels,
            drain_timeout_s=DEFAULT_DRAIN_S if drain_s is None else drain_s,
            logs_to_stdout=any(log.path == STDOUT for log in (*self.options.access_logs, *logs)),
        )

    def _on_bootstrap(self, message: str) -> None:
        translation = self.controller.translation
        proxy = translation.scene.proxies.leading if translation is not None else None
        subject = str(proxy.ref) if proxy is not None else EnvoyProxy.KIND.kind
        text = f"{message}; Envoy runs with the bootstrap of Pointsman"
        self._problems.append(Problem("error", subject, 0, "spec.bootstrap", text, subject))
        log.error("%s: %s", subject, text)

    def _set_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Statuses of what runs here; the store is their only home."""
        item = self.store.find(ref)
        if item is None:
            return
        apply_status(self.store, ref, with_times(status, item.status, now_text()))

    def _providers(self) -> Providers:
        return Providers(
            is_ready=lambda: self._was_ready,
            version=lambda: {"pointsman": __version__, "envoy": envoy_version()},
            listeners=lambda: listener_rows(self.controller, self.options),
            xds=lambda: xds_rows(self.controller),
            endpoints=self._endpoint_rows,
            problems=lambda: [
                problem_row(item) for item in (*self.source.problems, *self._problems)
            ],
            logs=self.outputs,
            decisions=self._decision_rows,
        )

    async def _endpoint_rows(self) -> Sequence[EndpointRow]:
        return await pickers.endpoint_rows(self._picker_sockets())

    async def _decision_rows(self, limit: int, only: Mapping[str, str]) -> list[dict[str, Any]]:
        return await pickers.decision_rows(self._picker_sockets(), limit, only)

    def _picker_sockets(self) -> list[Path]:
        own = [self.picker.admin_socket] if self.picker.is_wanted else []
        return own + (self.workloads.picker_sockets if self.workloads is not None else [])


@asynccontextmanager
async def start(settings: InstanceSettings) -> AsyncIterator[Instance]:
    """An instance in a folder of its own.

    Raises:
        InstanceError: the name is taken, or no folder can be had.
        EnvoyNotFoundError: the wheel with Envoy is not installed.
    """
    with instance_folder(settings.name) as folder:
        async with Instance(settings, folder).running() as instance:
            yield instance


def _echo(name: str, line: str) -> None:
    log.info("[%s] %s", name, line)


def _log_problem(problem: Problem) -> None:
    level = logging.ERROR if problem.is_error else logging.WARNING
    log.log(level, "%s", problem)
