"""What kube-proxy and a cloud's load balancer do: Services lead to their ready endpoints.

A Service with a cluster address is reached there by the node's pods. One of type LoadBalancer also
gets an address of its own in the loopback network that the tests are in, and only they reach it
there: inside of a pod a loopback address is the pod's. TCP only, in user space, so an endpoint sees
the node as its client. Affinity and traffic policies are not regarded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress

from pointsman.sockets import LoopSocket
from tests.kubernetes.api import PAUSE_S, UNREACHABLE, Api, ApiError, Key, Mirror, Object
from tests.kubernetes.network import Outside, bound
from tests.kubernetes.proxy import Forwarder, MakeSocket, Target

API_SERVICE: Key = ("default", "kubernetes")
OWNER_LABEL = "kubernetes.io/service-name"
BALANCER_NETWORKS = range(1, 64)
"""127.x: what `pointsman run` does not take addresses from."""
BALANCER_HOSTS = range(2, 255)
CLAIM_TRIES = 64

_log = logging.getLogger("node.services")

Place = tuple[str, int, bool]
"""Address, port, and whether that is outside."""


class NoAddressError(Exception):
    """No address for another load balancer."""


class Services:
    """All Services of the cluster."""

    def __init__(self, api: Api, outside: Outside, api_port: int) -> None:
        self._api = api
        self._outside = outside
        self._api_target = Target("127.0.0.1", api_port)
        self.services = Mirror(api, "/api/v1/services", self._service_changed)
        self.slices = Mirror(api, "/apis/discovery.k8s.io/v1/endpointslices", self._slice_changed)
        self._forwarders: dict[Key, dict[Place, Forwarder]] = defaultdict(dict)
        self._balancers: dict[Key, str] = {}
        self._claim, self.network = _claimed_network(outside)
        self._free = [f"{self.network}.{host}" for host in reversed(BALANCER_HOSTS)]
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Follow the cluster for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.services.run())
            group.create_task(self.slices.run())
            group.create_task(self._keep())

    def targets(self, key: Key, port: Object) -> list[Target]:
        """Where a port of a Service leads to now: ready endpoints, or those that still serve."""
        ready, serving = [], []
        for endpoint, number in self._endpoints(key, port.get("name", "")):
            conditions = endpoint.get("conditions") or {}
            found = [Target(address, number) for address in endpoint["addresses"]]
            if conditions.get("ready") is not False:
                ready += found
            elif conditions.get("serving"):
                serving += found
        return ready or serving

    def endpoints(self, key: Key) -> Iterator[Object]:
        """The ready endpoints of a Service, whatever their ports."""
        for item in self._slices_of(key):
            for endpoint in item.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is not False:
                    yield endpoint

    def _endpoints(self, key: Key, port_name: str) -> Iterator[tuple[Object, int]]:
        for item in self._slices_of(key):
            for port in item.get("ports") or ():
                if (port.get("name") or "") == port_name and port.get("port"):
                    for endpoint in item.get("endpoints") or ():
                        yield endpoint, port["port"]

    def _slices_of(self, key: Key) -> Iterator[Object]:
        namespace, name = key
        for (place, _), item in self.slices.objects.items():
            labels = item["metadata"].get("labels") or {}
            is_of_it = place == namespace and labels.get(OWNER_LABEL) == name
            if is_of_it and item.get("addressType") == "IPv4":
                yield item

    def _service_changed(self, key: Key, service: Object | None) -> None:
        self._dirty.add(key)
        self._wake.set()

    def _slice_changed(self, key: Key, item: Object | None) -> None:
        if item is not None:
            labels = item["metadata"].get("labels") or {}
            self._dirty.add((key[0], labels.get(OWNER_LABEL, "")))
        else:
            # Its labels are gone with it.
            self._dirty |= {known for known in self.services.objects if known[0] == key[0]}
        self._wake.set()

    async def _keep(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            dirty, self._dirty = self._dirty, set()
            for key in dirty:
                try:
                    await self._bring_up_to_date(key)
                except (OSError, ApiError, NoAddressError, *UNREACHABLE) as error:
                    _log.warning("service %s/%s: %s", *key, error)
                    self._dirty.add(key)
            if self._dirty:
                await asyncio.sleep(PAUSE_S)
                self._wake.set()

    async def _bring_up_to_date(self, key: Key) -> None:
        service = self.services.objects.get(key)
        forwarders = self._forwarders[key]
        wanted = dict(self._wanted(key, service)) if service is not None else {}
        for place in forwarders.keys() - wanted.keys():
            await forwarders.pop(place).close()
        for place, targets in wanted.items():
            if place not in forwarders:
                forwarders[place] = self._forwarder(key, place)
            await forwarders[place].lead_to(targets)
        await self._report_balancer(key, service)
        if service is None:
            del self._forwarders[key]

    def _wanted(self, key: Key, service: Object) -> Iterator[tuple[Place, list[Target]]]:
        spec = service["spec"]
        balancer = self._balancer(key, spec)
        for port in spec.get("ports") or ():
            if port.get("protocol", "TCP") != "TCP":
                continue
            targets = [self._api_target] if key == API_SERVICE else self.targets(key, port)
            address = spec.get("clusterIP")
            if address and address != "None":
                yield (address, port["port"], False), targets
            if balancer:
                yield (balancer, port["port"], True), targets

    def _balancer(self, key: Key, spec: Object) -> str | None:
        """The address for a Service of that type, which keeps it as long as it is of that type."""
        if spec.get("type") != "LoadBalancer" or spec.get("loadBalancerClass"):
            return None
        asked = spec.get("loadBalancerIP")
        had = self._balancers.get(key)
        if had is not None and asked in (None, "", had):
            return had
        if had is not None:
            self._free.insert(0, self._balancers.pop(key))
        if not asked and not self._free:
            raise NoAddressError(f"all addresses of {self.network}.0/24 are taken")
        if asked and asked not in self._free:
            return None
        address: str = asked or self._free[-1]
        self._free.remove(address)
        self._balancers[key] = address
        return address

    async def _report_balancer(self, key: Key, service: Object | None) -> None:
        is_wanted = service is not None and self._balancer(key, service["spec"]) is not None
        if not is_wanted and key in self._balancers:
            self._free.insert(0, self._balancers.pop(key))
        if service is None:
            return
        wanted = [{"ip": self._balancers[key]}] if is_wanted else []
        reported = (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
        if [{"ip": item.get("ip")} for item in reported] != wanted:
            namespace, name = key
            path = f"/api/v1/namespaces/{namespace}/services/{name}/status"
            body = {"status": {"loadBalancer": {"ingress": wanted}}}
            with suppress(ApiError):
                await self._api.request("PATCH", path, body, "application/merge-patch+json")

    def _forwarder(self, key: Key, place: Place) -> Forwarder:
        address, port, is_outside = place
        # The API server alone is outside of the node.
        make: MakeSocket = self._outside.stream if key == API_SERVICE else LoopSocket
        if is_outside:
            return Forwarder(lambda: self._outside.listener(address, port), make)
        return Forwarder(lambda: bound(LoopSocket(), address, port), make)


def _claimed_network(outside: Outside) -> tuple[socket.socket, str]:
    """A /24 of the loopback network; nobody else takes it while the socket is open."""
    for _ in range(CLAIM_TRIES):
        network = f"127.{random.choice(BALANCER_NETWORKS)}.{random.randrange(256)}"
        claim = outside.stream(socket.AF_UNIX)
        try:
            claim.bind(f"\0pointsman-balancers-{network}")
        except OSError:
            claim.close()
            continue
        return claim, network
    raise NoAddressError("no part of 127.0.0.0/8 is free for load balancers")
