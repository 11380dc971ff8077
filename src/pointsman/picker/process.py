"""The picker as a process: builds its parts, listens, drains, ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import random
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web

from pointsman.certificates import Rotation, server_context
from pointsman.picker.admin import admin_app, metrics_app
from pointsman.picker.config import ConfigError, PickerConfig, read_config
from pointsman.picker.director import Director, Trust
from pointsman.picker.endpoints.scrape import Scraper
from pointsman.picker.endpoints.table import Endpoint, Table
from pointsman.picker.ends.access_log import AccessLog
from pointsman.picker.extproc.machine import Mode
from pointsman.picker.extproc.service import ExtProc
from pointsman.picker.flags import Options
from pointsman.picker.pools import Pools
from pointsman.picker.prefix.index import PrefixIndex
from pointsman.picker.report import Report
from pointsman.resources.base import Resource
from pointsman.resources.core import Pod
from pointsman.resources.inference_extension import (
    InferenceModel,
    InferencePool,
    InferencePoolV1Alpha2,
)
from pointsman.resources.inference_models import (
    ExperimentalInferenceModelRewrite,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    InferenceObjective,
)
from pointsman.sources import Source
from pointsman.sources.feed import FeedSource
from pointsman.store import Store
from pointsman.wire.health import Health
from pointsman.wire.server import GrpcServer

log = logging.getLogger(__name__)

KINDS: tuple[type[Resource], ...] = (
    Pod,
    InferencePool,
    InferencePoolV1Alpha2,
    InferenceModel,
    InferenceObjective,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    ExperimentalInferenceModelRewrite,
)
"""What the picker needs to know of."""

HEALTH_SERVICES = frozenset(
    {"", "inference-extension", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"}
)
ALWAYS_SERVING = frozenset({"liveness"})

SHUTDOWN_TIMEOUT_S = 1.0
DRAIN_TIMEOUT_S = 1.0
"""How long gateways may take to acknowledge the ends of their streams."""
CERTIFICATE_INTERVAL_S = 1.0
CONFIG_INTERVAL_S = 0.5
"""Between two looks at the configuration file."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
GC_THRESHOLD = 50_000
"""New containers between two looks of the garbage collector."""


class Picker:
    """The parts of one picker; `running` makes them live."""

    def __init__(self, options: Options, store: Store, source: Source) -> None:
        self.options = options
        self.source = source
        self.report = Report()
        self.table = Table()
        self.is_synced = False
        self.is_draining = False
        self._rotation: Rotation | None = None
        self.config_errors = 0
        """How often the configuration file changed to something wrong."""
        self.scraper = Scraper(
            time.monotonic,
            max(options.refresh_metrics_interval_s, 0.05),
            lambda endpoint: self.report.scrape_errors.add((endpoint.address,)),
            lambda: self.director.config.extraction,
        )
        self.prefixes = PrefixIndex()
        self.pools = Pools(store, self.table, self._endpoints_changed)
        self.director = Director(
            self.pools,
            random.Random(),
            config=self._read_config(),
            prefixes=self.prefixes,
            ignores_subset=options.ignores_subset,
            access_log=AccessLog(self.report.answered, self.report.first_byte),
        )
        self.ext_proc = ExtProc(
            self.director,
            self.report,
            default_pool=self.default_pool,
            foreign_trust=Trust(options.trust_objective_header, options.trust_debug_header),
            mode_without_config=mode_without_config(os.environ.get("USE_STREAMING")),
            later=lambda seconds, action: asyncio.get_running_loop().call_later(seconds, action),
        )
        self.health = Health(self.is_serving, HEALTH_SERVICES, ALWAYS_SERVING)

    @property
    def default_pool(self) -> str | None:
        """The pool for gateways that name none."""
        options = self.options
        return f"{options.pool_namespace}/{options.pool_name}" if options.pool_name else None

    def _endpoints_changed(self, came: list[Endpoint], went: list[Endpoint]) -> None:
        self.scraper.change(came, went)
        for endpoint in went:
            self.prefixes.remove(endpoint.address)

    def is_serving(self) -> bool:
        """Whether requests should come here: everything is known, and we are not leaving."""
        if not self.is_synced or self.is_draining:
            return False
        return self.default_pool is None or self.pools.get(self.default_pool) is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and follow the objects until the end of the block, then drain."""
        options = self.options
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.scraper)
            service = await stack.enter_async_context(
                GrpcServer(
                    {
                        **self.ext_proc.methods(),
                        **self.director.access_log.methods(),
                        **self.health.methods(),
                    }
                )
            )
            health = await stack.enter_async_context(GrpcServer(self.health.methods()))
            await self._listen(service, health)
            if options.admin_socket is not None:
                app = admin_app(self.director, self.report, self.is_serving, time.monotonic)
                await stack.enter_async_context(_site(app, unix=options.admin_socket))
            if options.pool_name:
                app = metrics_app(self.report, self.director)
                address = (options.bind, options.metrics_port)
                await stack.enter_async_context(_site(app, tcp=address))
            tasks = [
                asyncio.create_task(self._follow_source()),
                asyncio.create_task(self.pools.follow()),
                asyncio.create_task(self._follow_config()),
                asyncio.create_task(self._follow_certificate()),
            ]
            try:
                yield
            finally:
                self.is_draining = True
                self.health.changed()
                self.ext_proc.drain()
                service.drain()
                health.drain()
                # A socket that is closed before the gateway has read its streams' ends loses them.
                await _until(lambda: not self.ext_proc.unended_streams, DRAIN_TIMEOUT_S)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, service: GrpcServer, health: GrpcServer) -> None:
        options = self.options
        for address in options.listen:
            if address.startswith("unix:"):
                await service.listen_unix(Path(address.removeprefix("unix:")))
            else:
                host, _, port = address.rpartition(":")
                await service.listen_tcp(host.strip("[]"), int(port))
        if options.pool_name:
            tls = server_context(options.cert_path, "pointsman-picker")
            await service.listen_tcp(
                options.bind, options.grpc_port, tls if options.secure_serving else None
            )
            if options.cert_path is not None:
                self._rotation = Rotation(tls, options.cert_path)
            await health.listen_tcp(options.bind, options.grpc_health_port)

    def _read_config(self) -> PickerConfig:
        path = self.options.config_file
        self._config_text = path.read_text() if path is not None else self.options.config_text
        return _noted(read_config(self._config_text)) if self._config_text else PickerConfig()

    async def _follow_config(self) -> None:
        """Take up the configuration file as it changes; a wrong one leaves the last good one."""
        path = self.options.config_file
        if path is None:
            return
        text = self._config_text
        while True:
            await asyncio.sleep(CONFIG_INTERVAL_S)
            try:
                now = await asyncio.to_thread(path.read_text)
                if now == text:
                    continue
                text = now
                self.director.config = _noted(read_config(now))
                log.info("The configuration %s has changed and is in use", path)
            except (OSError, UnicodeDecodeError, ConfigError) as error:
                self.config_errors += 1
                log.error("The configuration %s stays as it was: %s", path, error)

    async def _follow_certificate(self) -> None:
        """Take up a new certificate; a wrong one leaves the last good one."""
        while self._rotation is not None:
            await asyncio.sleep(CERTIFICATE_INTERVAL_S)
            try:
                if self._rotation.refresh():
                    log.info("A new certificate is in use")
            except (OSError, ssl.SSLError) as error:
                log.warning("The certificate stays as it was: %s", error)

    async def _follow_source(self) -> None:
        await self.source.start()
        _keep_memory()
        # What was made until now lives as long as the process, and requests make no cycles: the
        # collector has little to find and must not look through everything in their midst.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 100)
        self.pools.refresh()
        self.is_synced = True
        self.health.changed()
        pools = self.pools.all()
        log.info(
            "Picking for %d pools with %d endpoints",
            len(pools),
            sum(len(view.endpoints) for view in pools),
        )
        await self.source.follow()


def _noted(config: PickerConfig) -> PickerConfig:
    """Say what of a configuration changes nothing."""
    for note in config.notes:
        log.warning("The configuration's %s", note)
    return config


def mode_without_config(use_streaming: str | None) -> Mode:
    """The request mode of gateways too old to say theirs; newer ones do, and that counts.

    The guide's picker took it from `USE_STREAMING`, and so do we for those old ones.
    """
    if use_streaming is None:
        return Mode.FULL_DUPLEX_STREAMED
    is_streaming = use_streaming in ("1", "t", "T", "TRUE", "true", "True")
    return Mode.FULL_DUPLEX_STREAMED if is_streaming else Mode.BUFFERED


async def serve(options: Options) -> None:
    """Run a picker until a signal (or the end of stdin, if so asked) comes."""
    store = Store()
    if options.feed is None:
        raise ValueError("--feed unix:PATH is needed: it says where pools and pods are known")
    picker = Picker(options, store, FeedSource(store, options.feed, KINDS))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with picker.running():
        if options.exit_with_parent:
            await _on_end_of_stdin(stop.set)
        for name in options.ignored:
            log.info("The flag --%s changes nothing here", name)
        await stop.wait()


def _keep_memory() -> None:
    """Tell glibc to keep what bodies of some hundred KB need, not to give it back each time.

    By default it returns blocks above 128 KiB at once, and a fresh one costs a page fault for every
    4 KiB: for a body of 220 KB that is more than reading it. Elsewhere than on glibc, nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 16 * 1024 * 1024)
    mallopt(_M_TRIM_THRESHOLD, 64 * 1024 * 1024)


async def _on_end_of_stdin(action: Callable[[], None]) -> None:
    class Watch(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            action()

    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(Watch, sys.stdin)


async def _until(is_true: Callable[[], bool], timeout_s: float) -> None:
    """Wait for something of our own to become true, or until it has taken too long."""
    for _ in range(int(timeout_s * 100)):
        if is_true():
            return
        await asyncio.sleep(0.01)


@asynccontextmanager
async def _site(
    app: web.Application, *, unix: Path | None = None, tcp: tuple[str, int] | None = None
) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        if unix is not None:
            unix.unlink(missing_ok=True)  # noqa: ASYNC240  # one call, on a local file system
            await web.UnixSite(runner, str(unix)).start()
        if tcp is not None:
            await web.TCPSite(runner, *tcp).start()
        yield
    finally:
        await runner.cleanup()
