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
import base64
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiohttp
import uvloop

from benchmarks.picker_envoy import cpu_s
from pointsman.cluster.envoys import ADMIN_SOCKET, CERTIFICATES_FOLDER, CONFIGURATION_FOLDER
from pointsman.sources.kubernetes.access import access
from pointsman.sources.kubernetes.api import MERGE_PATCH, Api, ApiError
from pointsman.xds.bootstrap import READY_PORT
from tests.kubernetes.cluster import CHECKOUT, Cluster, Part
from tests.ports import free_port

SYSTEM = "pointsman-system"
ACCOUNT = "pointsman"
CONTROL_PLANE = f"{ACCOUNT}.{SYSTEM}.svc"
NAMESPACE = "bench"
GATEWAYS = ("front", "side")
POOLS = 10
AT_ONCE = 16
GIVE_UP_S = 60.0
LOOK_S = 0.001
"""Between two looks at Envoy; a look takes about as long again."""
QUIET_S = 1.0
"""Without a write for as long, everything is written."""
RESTARTS = 3
REPLACEMENTS = 2
CHANGES_PER_S = 20
MIB = 2**20

STATUSES = ("gatewayclasses", "gateways", "httproutes", "inferencepools")
FLOWS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "statuses": (["patch"], ["*"], [f"{kind}/status" for kind in STATUSES]),
    "lease": (["*"], ["coordination.k8s.io"], ["leases"]),
    "watches": (["watch"], ["*"], ["*"]),
    "lists": (["list"], ["*"], ["*"]),
    "other": (["*"], ["*"], ["*"]),
}
"""Groups of requests that are counted: verbs, API groups, resources; the first that fits counts."""

Object = dict[str, Any]


# --- The objects --------------------------------------------------------------------------------


def meta(name: str, **more: Any) -> Object:
    """Metadata in the namespace of the benchmark."""
    return {"name": name, "namespace": NAMESPACE, **more}


def gateway(name: str, port: int) -> Object:
    """A Gateway with one listener."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": meta(name),
        "spec": {
            "gatewayClassName": "pointsman",
            "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}],
        },
    }


def pool(number: int) -> Object:
    """A pool of model servers, with a picker of ours."""
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": meta(f"pool-{number}"),
        "spec": {
            "selector": {"matchLabels": {"app": f"pool-{number}"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": f"pool-{number}-picker", "port": {"number": 9002}},
        },
    }


def picker_service(number: int) -> Object:
    """The Service of a pool's picker, of which nothing runs here."""
    annotations = {"pointsman.dev/picker": "true"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(f"pool-{number}-picker", annotations=annotations),
        "spec": {"selector": {"app": f"pool-{number}-picker"}, "ports": [{"port": 9002}]},
    }


def route(name: str, path: str, rule: Object) -> Object:
    """A route through both Gateways."""
    matches = [{"path": {"type": "PathPrefix", "value": path}}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": meta(name),
        "spec": {
            "parentRefs": [{"name": name} for name in GATEWAYS],
            "rules": [{"matches": matches, **rule}],
        },
    }


def pool_route(number: int) -> Object:
    """A route to a pool."""
    group = "inference.networking.k8s.io"
    backend = {"group": group, "kind": "InferencePool", "name": f"pool-{number % POOLS}"}
    return route(f"route-{number}", f"/routes/{number}", {"backendRefs": [backend]})


def redirect(number: int) -> Object:
    """A route that Envoy answers by itself."""
    to = {"hostname": "elsewhere.example.com", "statusCode": 302}
    rule = {"filters": [{"type": "RequestRedirect", "requestRedirect": to}]}
    return route(f"redirect-{number}", f"/redirects/{number}", rule)


def pod(number: int) -> Object:
    """A model server as a chart writes it: most of its 4 KB mean nothing to a gateway."""
    environment = [{"name": f"VLLM_SETTING_{item}", "value": f"value-{item}"} for item in range(12)]
    probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5}
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("models", "cache", "shm")]
    server = {
        "name": "server",
        "image": "registry.example.com/vllm-openai:v0.11.0",
        "args": ["--model", "meta-llama/Llama-3.1-8B-Instruct", "--port", "8000"],
        "env": environment,
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "startupProbe": {**probe, "failureThreshold": 600},
        "resources": {"requests": {"cpu": "8", "memory": "64Gi"}},
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(f"server-{number}", labels={"app": f"pool-{number % POOLS}"}),
        "spec": {
            "containers": [server],
            "volumes": [{"name": name, "emptyDir": {}} for name in ("models", "cache", "shm")],
        },
    }


def pod_status(number: int, *, is_ready: bool) -> Object:
    """What a kubelet says of it."""
    address = f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"
    names = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    conditions = [
        {
            "type": name,
            "status": str(is_ready or name in names[:2]),
            "lastTransitionTime": now,
        }
        for name in names
    ]
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": conditions,
        }
    }


def flow(position: int, name: str) -> Object:
    """Has the API server count requests of the controller."""
    verbs, groups, resources = FLOWS[name]
    subject = {
        "kind": "ServiceAccount",
        "serviceAccount": {"name": ACCOUNT, "namespace": SYSTEM},
    }
    rule: Object = {"verbs": verbs, "apiGroups": groups, "resources": resources}
    paths = {"nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": f"bench-{name}"},
        "spec": {
            "matchingPrecedence": 500 + position,
            "priorityLevelConfiguration": {"name": "workload-high"},
            "rules": [
                {
                    "subjects": [subject],
                    "resourceRules": [{**rule, "clusterScope": True, "namespaces": ["*"]}],
                    **(paths if name == "other" else {}),
                }
            ],
        },
    }


# --- The API server, as its administrator -------------------------------------------------------


class Load:
    """Writes objects as fast as the API server takes them."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        self._routes = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes"

    async def each(self, work: Callable[[int], Awaitable[object]], numbers: Iterable[int]) -> None:
        """Do something for each number, several at a time."""
        left = iter(numbers)

        async def worker() -> None:
            for number in left:
                await work(number)

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))

    async def add_pod(self, number: int) -> None:
        """A pod that is ready."""
        await self._api.request("POST", self._pods, pod(number))
        await self.set_ready(number, is_ready=True)

    async def remove_pod(self, number: int) -> None:
        """It is gone at once, since it is on no node."""
        await self._api.request("DELETE", f"{self._pods}/server-{number}")

    async def set_ready(self, number: int, *, is_ready: bool) -> str:
        """Returns the version that has it."""
        done = await self._api.request(
            "PATCH",
            f"{self._pods}/server-{number}/status",
            pod_status(number, is_ready=is_ready),
            content_type=MERGE_PATCH,
        )
        return str(done["metadata"]["resourceVersion"])

    async def add_route(self, item: Object) -> None:
        """Of either kind."""
        await self._api.request("POST", self._routes, item)

    async def remove_redirect(self, number: int) -> None:
        """One that was added."""
        await self._api.request("DELETE", f"{self._routes}/redirect-{number}")

    async def heard(self, at: dict[str, float]) -> None:
        """Note when a bare watch hears of each version of a pod."""
        found = await self._api.get(self._pods, {"limit": "1"})
        params = {"resourceVersion": found["metadata"]["resourceVersion"]}
        while True:
            async for event in self._api.watch(self._pods, params):
                version = event.object["metadata"]["resourceVersion"]
                at[version] = time.perf_counter()
                params["resourceVersion"] = version


class Counters:
    """What the API server counts."""

    def __init__(self, cluster: Cluster) -> None:
        status, text = cluster.request("GET", "/metrics")
        if status != 200:
            raise SystemExit(f"the API server's metrics: {status}")
        self.flows = dict.fromkeys(FLOWS, 0.0)
        self.writes = dict.fromkeys(STATUSES, 0.0)
        for line in text.splitlines():
            labels, _, value = line.rpartition(" ")
            if labels.startswith("apiserver_flowcontrol_dispatched_requests_total"):
                for name in FLOWS:
                    if f'flow_schema="bench-{name}"' in labels:
                        self.flows[name] += float(value)
            elif labels.startswith("apiserver_request_total") and '"status"' in labels:
                for kind in STATUSES:
                    if f'resource="{kind}"' in labels and 'verb="PATCH"' in labels:
                        self.writes[kind] += float(value)

    def since(self, before: Counters) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Requests by flow, and statuses written by kind; what has grown."""
        return _grown(self.flows, before.flows), _grown(self.writes, before.writes)


def _grown(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {key: value - before[key] for key, value in now.items() if value != before[key]}


# --- Processes ----------------------------------------------------------------------------------


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


# --- What is measured ---------------------------------------------------------------------------


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

    async def all_have(self, count: int) -> None:
        """Until every Envoy has as many servers in each pool."""

        async def is_so() -> bool:
            found = [await each.members(number) for each in self.envoys for number in range(POOLS)]
            return set(found) == {count}

        await until(is_so, 0.01)

    async def restart(self) -> None:
        """Starts in which everything is there already."""
        controller = self.controller
        show = (program(), "controller", "--help")
        imports_s = child_cpu_s(lambda: subprocess.run(show, check=True, stdout=subprocess.DEVNULL))
        read = ("get", "pods,httproutes,services,secrets", "-A", "-o", "json")
        kubectl_s = child_cpu_s(lambda: self.cluster.kubectl(*read))
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
        used = statistics.median(cpus)
        print(
            f"start, median of {RESTARTS}: ready after {statistics.median(times):.2f} s with "
            f"{used:.2f} s of CPU; {imports_s:.2f} s of it are the import of the program"
        )
        print(
            f"  a kubectl that reads pods, routes, Services, Secrets: {kubectl_s:.2f} s; "
            f"ratio {used / kubectl_s:.1f}"
        )
        print(
            f"  Envoys are back after {statistics.median(connected):.2f} s; memory "
            f"{statistics.median(sizes):.0f} MiB; statuses written: {writes:.0f}"
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
        print(f"route to answers, {len(times)} routes: {_spread(times)}")
        print(f"  the write itself: {_spread(posted)}; one request: {_spread(asked)}")
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


def child_cpu_s(run: Callable[[], object]) -> float:
    """CPU of the processes that are started and waited for in `run`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    parser.add_argument("--changes", type=int, default=60, help="that are timed, of each kind")
    parser.add_argument("--seconds", type=float, default=30.0, help="of rest")
    parser.add_argument("--replacements", type=int, default=REPLACEMENTS)
    options = parser.parse_args()
    began = time.perf_counter()
    with Cluster() as cluster:
        cluster.install_crds()
        uvloop.run(Bench(cluster, options).run())
    load = ", ".join(f"{item:.1f}" for item in os.getloadavg())
    print(f"{time.perf_counter() - began:.0f} s in all; load of the machine {load}")


if __name__ == "__main__":
    main()
