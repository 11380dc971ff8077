"""Pools of both generations from several routes and Gateways, beside Services, and for calls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.conformance.stage import backend, pool, route
from tests.e2e.echo_servers import echo_servers
from tests.e2e.foreign_picker import pod
from tests.e2e.instances import Instance, eventually, running, unix_json
from tests.e2e.test_edge import service
from tests.e2e.test_routes import grpc_backend
from tests.ports import free_port

pytestmark = pytest.mark.e2e

ONE = 9390
TWO = 9391
OLD_GROUP = "inference.networking.x-k8s.io"
SHARE_TOLERANCE = 0.15
"""Four and a half standard deviations of 200 draws."""

OBJECTS = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: one}}
spec: {{gatewayClassName: pointsman, listeners: [{{name: http, protocol: HTTP, port: {ONE}}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: two}}
spec: {{gatewayClassName: pointsman, listeners: [{{name: http, protocol: HTTP, port: {TWO}}}]}}
---
apiVersion: {OLD_GROUP}/v1alpha2
kind: InferencePool
metadata: {{name: old}}
spec:
  selector: {{app: old}}
  targetPortNumber: 3000
  extensionRef: {{name: provided, failureMode: FailOpen}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: calls}}
spec:
  parentRefs: [{{name: two}}]
  rules:
    - matches: [{{method: {{service: a.B}}}}]
      backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: calls}}]
"""


@dataclass
class Pools:
    """An instance, and which address belongs to whom."""

    instance: Instance
    names: dict[str, str]

    def who(self, path: str, port: int = ONE) -> str:
        """Whose server answers."""
        answer = self.instance.request(port, "POST", path, {"model": "m", "prompt": "x"})
        if answer.status != 200:
            return str(answer.status)
        return self.names[answer.json["address"]]

    def status(self, group: str, name: str) -> dict[str, Any]:
        query = f"/api/objects?kind=InferencePool&namespace=default&name={name}"
        items = unix_json(self.instance.folder / "admin.sock", query)["items"]
        (found,) = (item for item in items if item["apiVersion"].startswith(group))
        status: dict[str, Any] = found.get("status") or {}
        return status


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    folder = tmp_path_factory.mktemp("pools")
    hosts = {"old": "127.63.1.1", "new": "127.63.1.2", "plain": "127.63.1.3"}
    port = free_port(list(hosts.values()))
    old = backend("old", group=OLD_GROUP)
    plain = {"name": "plain", "port": 80}
    rules = [
        ("/old", [old]),
        ("/generations", [{**old, "weight": 50}, backend("new", weight=50)]),
        ("/mixed", [backend("new", weight=80), {**plain, "weight": 20}]),
        ("/off", [backend("new", weight=0), {**old, "weight": 1}]),
    ]
    with ExitStack() as stack:
        stack.enter_context(echo_servers([f"{host}:{port}" for host in hosts.values()]))
        calls = stack.enter_context(grpc_backend("calls"))
        parts = [OBJECTS, route("first", ["one"], rules)]
        parts.append(route("second", ["one", "two"], [("/again", [old])]))
        parts += [pod(f"{name}-0", name, host, {3000: port}) for name, host in hosts.items()]
        parts += [service("plain"), pool("new", "new", picker=None)]
        parts.append(pod("calls-0", "calls", "127.0.0.1", {3000: calls.port}))
        parts.append(pool("calls", "calls", picker=None, protocol="kubernetes.io/h2c"))
        (folder / "all.yaml").write_text("".join(parts))
        instance = stack.enter_context(running(folder, ports=(ONE, TWO)))
        yield Pools(instance, {f"{host}:{port}": name for name, host in hosts.items()})


def test_an_older_pool_is_served_by_several_routes_and_gateways(pools: Pools) -> None:
    for path, port in (("/old", ONE), ("/again", ONE), ("/again", TWO)):
        assert eventually(lambda path=path, port=port: pools.who(path, port)) == "old"  # type: ignore[misc]
    entries = eventually(lambda: pools.status(OLD_GROUP, "old").get("parent"))
    assert {entry["parentRef"]["name"] for entry in entries} == {"one", "two"}
    for entry in entries:
        found = {item["type"]: item["status"] for item in entry["conditions"]}
        assert found == {"Accepted": "True", "ResolvedRefs": "True"}


def test_weights_hold_between_generations_and_between_a_pool_and_a_service(pools: Pools) -> None:
    count = 200
    generations = Counter(pools.who("/generations") for _ in range(count))
    assert set(generations) == {"old", "new"}
    assert abs(generations["old"] / count - 0.5) < SHARE_TOLERANCE
    mixed = Counter(pools.who("/mixed") for _ in range(count))
    assert set(mixed) == {"new", "plain"}
    assert abs(mixed["new"] / count - 0.8) < SHARE_TOLERANCE
    assert Counter(pools.who("/off") for _ in range(20)) == {"old": 20}


def test_calls_and_requests_go_to_one_gateway_and_their_pools(pools: Pools) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{pools.instance.ports[TWO]}") as channel:
        call = channel.unary_unary("/a.B/Do")

        def answer() -> bytes:
            try:
                return bytes(call(b"", timeout=5))
            except grpc.RpcError as error:
                return str(error.code()).encode()

        assert eventually(lambda: answer().startswith(b"/a.B/Do")), answer()
    assert pools.who("/again", TWO) == "old"
    # A call of another service meets no route.
    body = json.dumps({}).encode()
    headers = {"content-type": "application/grpc"}
    other = pools.instance.request(TWO, "POST", "/c.D/Do", body, headers)
    assert other.headers["grpc-status"] == "12"
