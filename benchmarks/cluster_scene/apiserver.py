"""The API server, as its administrator sees it: what is written, and what it counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from benchmarks.cluster_scene.objects import (
    FLOWS,
    NAMESPACE,
    STATUSES,
    Object,
    pod,
    pod_status,
)
from pointsman.cluster.settings import COMPONENT_LABEL, MANAGED
from pointsman.sources.kubernetes.api import MERGE_PATCH, Api
from tests.kubernetes.cluster import Cluster

AT_ONCE = 16
PROXIES = f"{MANAGED},{COMPONENT_LABEL}=proxy"
LAST_NUMBER = 2**20
"""A pod's number makes its address."""


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

    async def ready_proxies(self) -> int:
        """Nobody runs the pods of the Gateways either; says that they are ready, and how many."""
        found = await self._api.get(self._pods, {"labelSelector": PROXIES})
        for number, item in enumerate(found["items"]):
            path = f"{self._pods}/{item['metadata']['name']}/status"
            status = pod_status(LAST_NUMBER - number, is_ready=True)
            await self._api.request("PATCH", path, status, content_type=MERGE_PATCH)
        return len(found["items"])

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
