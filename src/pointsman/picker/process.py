"""The picker as a process: builds its parts, listens, drains, ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from pointsman import __version__
from pointsman.picker.config import PickerConfig
from pointsman.picker.config_source import ConfigSource
from pointsman.picker.director import Director, Trust
from pointsman.picker.endpoints.scrape import Scraper
from pointsman.picker.endpoints.table import Endpoint, Table
from pointsman.picker.ends.access_log import AccessLog
from pointsman.picker.extproc.service import ExtProc
from pointsman.picker.interests import KINDS, interests, scope
from pointsman.picker.pools import Pools
from pointsman.picker.prefix.index import PrefixIndex
from pointsman.picker.report import Report
from pointsman.picker.serving.admin import admin_app, metrics_app
from pointsman.picker.serving.draining import SETTLE_S, TAKE_OVER_S, Drain
from pointsman.picker.serving.listening import Certificates, http_site, limits, listen
from pointsman.picker.serving.metrics_guard import MetricsGuard
from pointsman.picker.settings import environment
from pointsman.picker.settings.options import Options
from pointsman.resources.core import Pod
from pointsman.sources import Source
from pointsman.sources.feed import FeedSource
from pointsman.sources.kubernetes.access import access
from pointsman.sources.kubernetes.api import Api
from pointsman.sources.kubernetes.lease import Lease
from pointsman.sources.kubernetes.source import KubernetesSource
from pointsman.store import Store
from pointsman.wire.health import Health
from pointsman.wire.server import GrpcServer

log = logging.getLogger(__name__)

HEALTH_SERVICES = frozenset(
    {"", "inference-extension", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"}
)
ALWAYS_SERVING = frozenset({"liveness"})

DRAIN_TIMEOUT_S = 1.0
"""How long gateways may take to acknowledge the ends of their streams."""
READY_INTERVAL_S = 1.0
"""Between two looks at what makes us ready and tells nobody that it has changed."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
GC_THRESHOLD = 50_000
"""New containers between two looks of the garbage collector."""


class Picker:
    """The parts of one picker; `running` makes them live."""

    def __init__(
        self,
        options: Options,
        store: Store,
        source: Source,
        *,
        api: Api | None = None,
        variables: environment.Environment = os.environ,
    ) -> None:
        self.options = options
        self.source = source
        self.report = Report()
        self.table = Table()
        self.is_synced = False
        self.is_draining = False
        self.is_active = not options.elects_leader
        """Of several replicas the one that is to be asked."""
        self._api = api
        self._variables = variables
        self._scope = scope(options, variables)
        self._told: str | None = None
        """The hindrance that the log has last told of."""
        self._lease: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._service: GrpcServer | None = None
        self._certificates = Certificates(options)
        self.scraper = Scraper(
            time.monotonic,
            max(options.refresh_metrics_interval_s, 0.05),
            lambda endpoint: self.report.scrape_errors.add((endpoint.address,)),
            lambda: self.director.config.extraction,
            options.metrics_staleness_s,
        )
        self.prefixes = PrefixIndex()
        self.pools = Pools(
            store, self.table, self._endpoints_changed, self._scope, self._tell_health
        )
        self.config_source = ConfigSource(options, variables)
        self.director = Director(
            self.pools,
            random.Random(),
            config=self.config_source.read(),
            prefixes=self.prefixes,
            ignores_subset=options.ignores_subset,
            access_log=AccessLog(self.report.answered, self.report.first_byte),
        )
        self.ext_proc = ExtProc(
            self.director,
            self.report,
            default_pool=self.default_pool,
            foreign_trust=Trust(options.trust_objective_header, options.trust_debug_header),
            mode_without_config=environment.mode_without_config(variables),
            later=lambda seconds, action: asyncio.get_running_loop().call_later(seconds, action),
        )
        self.health = Health(self.is_serving, HEALTH_SERVICES, ALWAYS_SERVING)

    @property
    def default_pool(self) -> str | None:
        """The pool for gateways that name none."""
        options = self.options
        if self._scope.made is not None:
            return self._scope.made.key
        return f"{options.pool_namespace}/{options.pool_name}" if options.pool_name else None

    def _endpoints_changed(self, came: list[Endpoint], went: list[Endpoint]) -> None:
        self.scraper.change(came, went)
        for endpoint in went:
            self.prefixes.remove(endpoint.address)

    def is_serving(self) -> bool:
        """Whether requests should come here: everything is known, and we are not leaving.

        A pool without one ready server is served too: the picker is well, and says 503 at once,
        which tells more than a gateway does that has no picker; and a picker that were not ready
        then could not be rolled out while its servers are scaled to zero.
        """
        return not self._hindrance()

    def _hindrance(self) -> str:
        """Why no requests should come here; "" for none."""
        if self.is_draining:
            return "it is leaving"
        if not self.is_synced:
            return "not everything is known yet"
        if isinstance(self.source, KubernetesSource) and Pod in self.source.unheard:
            return "the API server does not let it see the pods"
        if self.default_pool is not None and self.pools.get(self.default_pool) is None:
            return f"there is no InferencePool {self.default_pool}"
        return "" if self.is_active else "another replica is the active one"

    def _tell_health(self) -> None:
        """Tell those who watch, and the log, when requests should come and when not."""
        hindrance = self._hindrance()
        if hindrance != self._told:
            self._told = hindrance
            views = self.pools.all()
            count = sum(len(view.endpoints) for view in views)
            if hindrance:
                log.info("Not ready: %s", hindrance)
            else:
                log.info("Picking for %d pools with %d endpoints", len(views), count)
        self.health.changed()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen and follow the objects until the end of the block, then drain."""
        options = self.options
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.scraper)
            methods = {
                **self.ext_proc.methods(),
                **self.director.access_log.methods(),
                **self.health.methods(),
            }
            service = await stack.enter_async_context(GrpcServer(methods, limits(options)))
            health = await stack.enter_async_context(GrpcServer(self.health.methods()))
            self._service = service
            await listen(service, health, options, self._certificates)
            await self._serve_http(stack)
            self._begin()
            try:
                yield
            finally:
                self.is_draining = True
                self._tell_health()
                self.ext_proc.drain()
                service.drain()
                health.drain()
                # A socket that is closed before the gateway has read its streams' ends loses them.
                await _until(lambda: not self.ext_proc.unended_streams, DRAIN_TIMEOUT_S)
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve_http(self, stack: AsyncExitStack) -> None:
        options = self.options
        if options.admin_socket is not None:
            app = admin_app(self.director, self.report, self.is_serving, time.monotonic)
            await stack.enter_async_context(http_site(app, unix=options.admin_socket))
        if options.has_own_pool:
            is_guarded = options.guards_metrics and self._api is not None
            guard = MetricsGuard(self._api) if is_guarded and self._api is not None else None
            app = metrics_app(self.report, self.director, guard)
            address, tls = (options.bind, options.metrics_port), self._certificates.of_metrics()
            await stack.enter_async_context(http_site(app, tcp=address, tls=tls))

    def _begin(self) -> None:
        parts = [
            self._follow_source(),
            self.pools.follow(),
            self.config_source.follow(self._use),
            self._certificates.follow(),
            self._follow_readiness(),
        ]
        self._tasks = [asyncio.create_task(part) for part in parts]
        if self.options.elects_leader and self._api is not None:
            own = environment.own_namespace(self._variables)
            name = f"{(self.default_pool or '').partition('/')[2]}-picker"
            lease = Lease(self._api, own, name, environment.identity(self._variables))
            self._lease = asyncio.create_task(lease.run(self._activate))
            self._tasks.append(self._lease)

    async def broken(self) -> None:
        """Returns never; raises what ends one of the parts, which nothing should."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    def _use(self, config: PickerConfig) -> None:
        self.director.config = config

    def _activate(self, is_held: bool) -> None:
        self.is_active = is_held
        self._tell_health()

    async def leave(self, hurry: asyncio.Event) -> None:
        """Let gateways of a cluster go elsewhere, and end what they have begun; see `draining`.

        Leave the block of `running` afterwards. With `hurry` nothing is waited for any more.
        """
        if self._service is None:
            raise RuntimeError("a picker leaves while it is running")
        options = self.options
        settle_s = TAKE_OVER_S if options.elects_leader else SETTLE_S
        drain = Drain(self.ext_proc, self._service, options.drain_timeout_s, settle_s=settle_s)
        hurrying = asyncio.create_task(_after(hurry, drain.hurry))
        log.info("Leaving, within %g s", options.drain_timeout_s)
        try:
            if self._lease is not None:
                # Until another one is ready a Service falls back on those that are not, and of
                # these on whom its probe calls well.
                self._lease.cancel()
                await drain.settle()
            self.is_draining = True
            self._tell_health()
            if self._lease is None:
                await drain.settle()
            await drain.finish()
        finally:
            hurrying.cancel()

    async def _follow_source(self) -> None:
        await self.source.start()
        _keep_memory()
        # What was made until now lives as long as the process, and requests make no cycles: the
        # collector has little to find and must not look through everything in their midst.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 100)
        self.is_synced = True
        self.pools.refresh()
        await self.source.follow()

    async def _follow_readiness(self) -> None:
        while True:
            await asyncio.sleep(READY_INTERVAL_S)
            self._tell_health()


async def serve(options: Options, variables: environment.Environment = os.environ) -> None:
    """Run a picker until a signal (or the end of stdin, if so asked) comes; a second one hurries.

    Raises:
        AccessError: there is no way to an API server, and one is needed.
        ConfigError: the configuration is wrong.
        OSError: a file cannot be read, or an address cannot be listened on.
        ValueError: the environment or a certificate is wrong.
    """
    store = Store()
    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: hurry.set() if stop.is_set() else stop.set())
    async with AsyncExitStack() as stack:
        api: Api | None = None
        source: Source
        if options.feed is not None:
            source = FeedSource(store, options.feed, KINDS)
        else:
            way = access(options.kubeconfig, options.context)
            api = await stack.enter_async_context(Api(way, f"pointsman-picker/{__version__}"))
            source = KubernetesSource(store, api, interests(options))
        picker = Picker(options, store, source, api=api, variables=variables)
        await stack.enter_async_context(picker.running())
        if options.exit_with_parent:
            await _on_end_of_stdin(stop.set)
        for name in options.idle:
            log.info("The flag --%s changes nothing here", name)
        stopping = asyncio.create_task(stop.wait())
        broken = asyncio.create_task(picker.broken())
        await asyncio.wait({stopping, broken}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if broken.done():
            broken.result()
        broken.cancel()
        if options.is_in_cluster:
            await picker.leave(hurry)


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


async def _after(event: asyncio.Event, action: Callable[[], None]) -> None:
    await event.wait()
    action()


async def _until(is_true: Callable[[], bool], timeout_s: float) -> None:
    """Wait for something of our own to become true, or until it has taken too long."""
    for _ in range(int(timeout_s * 100)):
        if is_true():
            return
        await asyncio.sleep(0.01)
