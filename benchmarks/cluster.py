"""The controller of a cluster: how fast a change reaches Envoy, and what it costs.

    PYTHONPATH=. python benchmarks/cluster.py [--pods 1000] [--routes 200] [--seconds 30]

A real API server has the objects: 10 InferencePools, their pods, which nobody runs, and routes to
them through two Gateways. The controller runs with the rights of its ServiceAccount, and two real
Envoys with the bootstrap and the certificate that it makes for the Gateways' pods. The API server
counts the controller's requests (each group is a FlowSchema of its own); CPU stands beside that of
the API server in the same time, and a change beside a bare watch that hears of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import uvloop

from benchmarks.cluster_scene.apiserver import Counters, Load
from benchmarks.cluster_scene.objects import (
    FLOWS,
    GATEWAYS,
    NAMESPACE,
    POOLS,
    SYSTEM,
    flow,
    gateway,
    picker_service,
    pool,
    pool_route,
    redirect,
)
from benchmarks.cluster_scene.processes import (
    QUIET_S,
    Controller,
    Envoy,
    import_cost,
    reader_s,
    rss_mib,
    until,
)
from benchmarks.picker_envoy import cpu_s
from pointsman.sources.kubernetes.access import access
from pointsman.sources.kubernetes.api import Api, ApiError
from tests.kubernetes import binaries
from tests.kubernetes.cluster import CHECKOUT, Cluster
from tests.ports import free_port

RESTARTS = 3
CHANGES_PER_S = 20


class Bench:
    """One run."""

    def __init__(self, cluster: Cluster, options: argparse.Namespace) -> None:
        self.cluster = cluster
        self.options = options
        self.envoys: list[Envoy] = []
        self.apiserver = cluster.pid("kube-apiserver")

    async def run(self) -> None:
        """Everything, one after the other."""
        async with (
            Api(access(self.cluster.kubeconfig, None)) as api,
            aiohttp.ClientSession() as web,
        ):
            self.load = Load(api)
            ports = await self.fill(api)
            self.controller = Controller(self.cluster, web)
            try:
                await self.start(api, ports)
                await self.restart()
                await self.rest()
                await self.busy()
                await self.pod_changes()
                await self.route_changes()
                await self.replace()
            except (SystemExit, ApiError):
                print(self.controller.part.tail(), file=sys.stderr)
                raise
            finally:
                for envoy in self.envoys:
                    await envoy.__aexit__()
                self.controller.part.stop()

    async def fill(self, api: Api) -> Sequence[int]:
        """Everything but the controller; returns the ports of the Gateways."""
        self.cluster.apply(CHECKOUT / "deploy" / "pointsman.yaml", SYSTEM)
        self.cluster.kubectl("create", "namespace", NAMESPACE)
        ports = [free_port() for _ in GATEWAYS]
        items = [gateway(name, port) for name, port in zip(GATEWAYS, ports, strict=True)]
        items += [each(number) for each in (pool, picker_service) for number in range(POOLS)]
        items += [flow(position, name) for position, name in enumerate(FLOWS)]
        self.cluster.apply("\n---\n".join(map(json.dumps, items)), NAMESPACE)
        account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"

        async def is_open() -> bool:
            return bool(self.cluster.request("GET", account)[0] == 200)

        await until(is_open, 0.05)
        await self.load.each(self.load.add_pod, range(self.options.pods))
        await self.load.each(
            lambda number: self.load.add_route(pool_route(number)), range(self.options.routes)
        )
        return ports

    async def start(self, api: Api, ports: Sequence[int]) -> None:
        """The first start: everything is made and every status written; then the Envoys."""
        before = Counters(self.cluster)
        began = time.perf_counter()
        ready_s = await self.controller.start()
        await self.controller.settled()
        all_s = time.perf_counter() - began - QUIET_S
        flows, writes = Counters(self.cluster).since(before)
        print(f"first start: ready after {ready_s:.2f} s, all statuses written after {all_s:.2f} s")
        print(f"  requests: {_listed(flows)}")
        print(f"  statuses: {_listed(writes)}")
        await until(self.has_proxies, 0.05)
        start = f"/api/v1/namespaces/{NAMESPACE}"
        for name, port in zip(GATEWAYS, ports, strict=True):
            made = f"{name}-pointsman"
            configuration = (await api.get(f"{start}/configmaps/{made}"))["data"]
            secret = (await api.get(f"{start}/secrets/{made}"))["data"]
            envoy = Envoy(name, port, self.cluster.folder / "envoys" / name)
            envoy.start(configuration, secret, self.controller.xds_port)
            self.envoys.append(envoy)
        began = time.perf_counter()
        await self.all_have(self.options.pods // POOLS)
        print(f"  two Envoys have {self.options.pods} pods {time.perf_counter() - began:.2f} s on")

    async def has_proxies(self) -> bool:
        """Whether the pods of both Gateways are there, which are ready then."""
        return await self.load.ready_proxies() == len(GATEWAYS)

    async def all_have(self, count: int) -> None:
        """Until every Envoy has as many servers in each pool."""

        async def is_so() -> bool:
            found = [await each.members(number) for each in self.envoys for number in range(POOLS)]
            return set(found) == {count}

        await until(is_so, 0.01)

    async def restart(self) -> None:
        """Starts in which everything is there already."""
        controller = self.controller
        environment = self.cluster.environment()
        import_s, import_mib = import_cost()
        kubectl = shutil.which("kubectl", path=environment["PATH"]) or "kubectl"
        read = ("get", "pods,httproutes,services,secrets", "-A", "-o", "json")
        kubectl_s = reader_s((kubectl, *read), environment)
        times, cpus, connected, writes, sizes = [], [], [], 0.0, []
        for _ in range(RESTARTS):
            controller.part.stop(signal.SIGTERM)
            before = Counters(self.cluster)
            began = time.perf_counter()
            times.append(await controller.start())
            cpus.append(cpu_s(controller.pid))
            sizes.append(rss_mib(controller.pid))
            await until(self.is_connected, 0.01)
            connected.append(time.perf_counter() - began)
            await controller.settled()
            flows, _ = Counters(self.cluster).since(before)
            writes += flows.get("statuses", 0.0)
        used_s = statistics.median(cpus)
        print(
            f"start, median of {RESTARTS}: ready after {statistics.median(times):.2f} s with "
            f"{used_s:.2f} s of CPU, memory {statistics.median(sizes):.0f} MiB"
        )
        print(f"  of it to import the program: {import_s:.2f} s, {import_mib:.0f} MiB")
        print(
            f"  a kubectl that reads pods, routes, Services and Secrets: {kubectl_s:.2f} s; "
            f"ratio {used_s / kubectl_s:.1f}"
        )
        print(
            f"  Envoys are back after {statistics.median(connected):.2f} s; "
            f"statuses written: {writes:.0f}"
        )
        print(f"  requests of the last: {_listed(flows)}")

    async def is_connected(self) -> bool:
        """Whether all Envoys are."""
        return (await self.controller.samples())["envoys"] == len(self.envoys)

    @asynccontextmanager
    async def costing(self, what: str) -> AsyncIterator[None]:
        """Print what the block has cost."""
        before = Counters(self.cluster)
        pids = (self.controller.pid, self.apiserver)
        began, cpus = time.perf_counter(), [cpu_s(pid) for pid in pids]
        yield
        seconds = time.perf_counter() - began
        ours, theirs = (cpu_s(pid) - old for pid, old in zip(pids, cpus, strict=True))
        flows, writes = Counters(self.cluster).since(before)
        per_minute = {key: round(value / seconds * 60, 1) for key, value in flows.items()}
        print(
            f"{what}: {ours / seconds:.3f} cores, {ours / theirs:.2f} of the API server's "
            f"{theirs / seconds:.3f}; memory {rss_mib(self.controller.pid):.0f} MiB"
        )
        print(f"  requests a minute: {_listed(per_minute)}; statuses written: {_listed(writes)}")

    async def rest(self) -> None:
        """Nothing happens."""
        async with self.costing(f"at rest, {self.options.seconds:g} s"):
            await asyncio.sleep(self.options.seconds)

    async def busy(self) -> None:
        """Pods become ready and unready."""
        count = round(self.options.seconds / 2 * CHANGES_PER_S)
        async with self.costing(f"{CHANGES_PER_S} pods a second change their readiness"):
            began = time.perf_counter()
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / CHANGES_PER_S - time.perf_counter()))
                # One goes as another comes.
                chosen, is_ready = number // 2 % self.options.pods, number % 2 == 1
                await self.load.set_ready(chosen, is_ready=is_ready)
        await self.all_have(self.options.pods // POOLS)

    async def pod_changes(self) -> None:
        """From a pod's status to both Envoys."""
        whole = self.options.pods // POOLS
        at: dict[str, float] = {}
        watch = asyncio.create_task(self.load.heard(at))
        before = Counters(self.cluster)
        times, watched, patched = [], [], []
        for number in range(self.options.changes):
            chosen, is_ready = number // 2, number % 2 == 1
            await asyncio.sleep(random.uniform(0.05, 0.15))
            began = time.perf_counter()
            version = await self.load.set_ready(chosen, is_ready=is_ready)
            patched.append(time.perf_counter() - began)
            wanted = whole if is_ready else whole - 1
            for envoy in self.envoys:
                await until(partial(envoy.has_members, chosen % POOLS, wanted))
            times.append(time.perf_counter() - began)

            async def is_heard(version: str = version) -> bool:
                return version in at

            await until(is_heard)
            watched.append(at[version] - began)
        watch.cancel()
        flows, _ = Counters(self.cluster).since(before)
        middle = statistics.median(times) / statistics.median(watched)
        print(f"pod to Envoys, {len(times)} changes: {_spread(times)}")
        print(f"  a bare watch hears of it: {_spread(watched)}; ratio {middle:.1f}")
        print(f"  the write itself: {_spread(patched)}; requests meanwhile: {_listed(flows)}")

    async def route_changes(self) -> None:
        """From a new route to the answers of both Envoys."""
        before = Counters(self.cluster)
        times, posted, asked = [], [], []
        for number in range(self.options.changes):
            path = f"/redirects/{number}"
            await asyncio.sleep(random.uniform(0.05, 0.15))
            began = time.perf_counter()
            await self.load.add_route(redirect(number))
            posted.append(time.perf_counter() - began)
            for envoy in self.envoys:
                await until(partial(envoy.redirects, path))
            times.append(time.perf_counter() - began)
            began = time.perf_counter()
            await self.envoys[0].redirects(path)
            asked.append(time.perf_counter() - began)
        await self.controller.settled()
        _, writes = Counters(self.cluster).since(before)
        each = {kind: round(count / len(times), 2) for kind, count in writes.items()}
        middle = statistics.median(times) / statistics.median(posted)
        print(f"route to answers, {len(times)} routes: {_spread(times)}")
        print(f"  the write itself: {_spread(posted)}; ratio {middle:.1f}")
        print(f"  one request to Envoy: {_spread(asked)}")
        print(f"  statuses written for each route: {_listed(each)}")
        before = Counters(self.cluster)
        await self.load.each(self.load.remove_redirect, range(self.options.changes))
        await self.controller.settled()
        _, writes = Counters(self.cluster).since(before)
        print(f"  statuses written as all {len(times)} go at once: {_listed(writes)}")

    async def replace(self) -> None:
        """All pods give way to others."""
        count = self.options.pods
        sizes = [rss_mib(self.controller.pid)]
        for generation in range(1, self.options.replacements + 1):
            first = generation * count
            async with self.costing(f"{count} pods replaced, {generation}"):
                began = time.perf_counter()
                await self.load.each(self.load.remove_pod, range(first - count, first))
                await self.load.each(self.load.add_pod, range(first, first + count))
                written = time.perf_counter()
                await self.all_have(count // POOLS)
                done = time.perf_counter()
            print(
                f"  written in {written - began:.1f} s; Envoys have all {done - written:.2f} s on"
            )
            sizes.append(rss_mib(self.controller.pid))
        print(f"memory before and after each: {', '.join(f'{item:.0f}' for item in sizes)} MiB")


def _listed(found: Mapping[str, float]) -> str:
    return ", ".join(f"{value:g} {key}" for key, value in found.items()) or "none"


def _spread(times: Sequence[float]) -> str:
    ranked = sorted(times)
    at = ranked[min(len(ranked) - 1, round(0.99 * len(ranked)))]
    return f"p50 {statistics.median(ranked) * 1e3:.1f} ms, p99 {at * 1e3:.1f} ms"


def main() -> None:
    """Run everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--routes", type=int, default=200)
    parser.add_argument("--changes", type=int, default=100, help="that are timed, of each kind")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rest")
    parser.add_argument("--replacements", type=int, default=2)
    options = parser.parse_args()
    if missing := binaries.missing():
        print(missing)
        return
    began = time.perf_counter()
    with Cluster() as cluster:
        cluster.install_crds()
        uvloop.run(Bench(cluster, options).run())
    load = ", ".join(f"{item:.1f}" for item in os.getloadavg())
    print(f"{time.perf_counter() - began:.0f} s in all; load of the machine {load}")


if __name__ == "__main__":
    main()
