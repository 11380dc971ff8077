"""GRPCRoutes with real calls, as the conformance suite makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from tests.conformance.servers import Server
from tests.conformance.sites import Site
from tests.e2e.instances import running

pytestmark = pytest.mark.e2e

MANIFEST = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners:
    - {name: exact, port: 80, protocol: HTTP, hostname: bar.example}
    - {name: deep, port: 80, protocol: HTTP, hostname: foo.bar.example}
    - {name: wild, port: 80, protocol: HTTP, hostname: "*.bar.example"}
    - {name: other, port: 80, protocol: HTTP, hostname: "*.other.example"}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: one}
spec:
  parentRefs: [{name: front, sectionName: exact}]
  rules:
    - name: of-echo
      matches: [{method: {service: grpc.Echo, method: Echo}}]
      backendRefs: [{name: g1, port: 80}]
    - matches: [{method: {service: grpc.Echo, method: Two}}]
      backendRefs: [{name: g2, port: 80}]
    - matches:
        - {headers: [{name: version, value: one}]}
        - {headers: [{name: Color, value: blue}, {name: version, value: two}]}
      backendRefs: [{name: g3, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: two}
spec:
  parentRefs: [{name: front, sectionName: deep}]
  rules: [{backendRefs: [{name: g2, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: three}
spec:
  parentRefs: [{name: front, sectionName: wild}, {name: front, sectionName: other}]
  rules: [{backendRefs: [{name: g3, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: weights}
spec:
  parentRefs: [{name: front, sectionName: other}]
  hostnames: [weights.other.example]
  rules:
    - backendRefs:
        - {name: g1, port: 80, weight: 70}
        - {name: g2, port: 80, weight: 30}
        - {name: g3, port: 80, weight: 0}
"""
CALLS = 200


@contextmanager
def calls(name: str) -> Iterator[Server]:
    """A server that answers every call with its own name."""

    class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Calls()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield Server(name, port=port)
    finally:
        server.stop(None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        servers = [stack.enter_context(calls(name)) for name in ("g1", "g2", "g3")]
        folder = tmp_path_factory.mktemp("grpc")
        text = MANIFEST + "".join(item.manifest() for item in servers)
        (folder / "all.yaml").write_text(text)
        instance = stack.enter_context(running(folder, ports=(80,)))
        yield Site(instance, {item.name: item for item in servers}, folder)


def call(
    site: Site, host: str, method: str, count: int = 1, metadata: dict[str, str] | None = None
) -> list[str]:
    """The names of the servers that answered, or the code where none did."""
    options = [("grpc.default_authority", host)]
    found = []
    with grpc.insecure_channel(f"127.0.0.1:{site.instance.ports[80]}", options) as channel:
        for _ in range(count):
            try:
                answer: bytes = channel.unary_unary(method)(
                    b"", timeout=10, metadata=tuple((metadata or {}).items())
                )
                found.append(answer.decode())
            except grpc.RpcError as error:
                found.append(error.code().name)
    return found


@pytest.mark.parametrize(
    ("host", "method", "server"),
    [
        ("bar.example", "/grpc.Echo/Echo", "g1"),
        ("bar.example", "/grpc.Echo/Two", "g2"),
        ("bar.example", "/grpc.Echo/Three", "UNIMPLEMENTED"),
        ("bar.example", "/grpc.Echoes/Echo", "UNIMPLEMENTED"),
        ("bar.example:80", "/grpc.Echo/Echo", "g1"),
        ("foo.bar.example", "/grpc.Echo/Echo", "g2"),
        ("baz.bar.example", "/grpc.Echo/Echo", "g3"),
        ("deep.baz.bar.example", "/grpc.Echo/Echo", "g3"),
        ("a.other.example", "/grpc.Echo/Echo", "g3"),
        ("other.example", "/grpc.Echo/Echo", "UNIMPLEMENTED"),
        ("no.match.example", "/grpc.Echo/Echo", "UNIMPLEMENTED"),
    ],
)
def test_calls_go_by_host_and_method(site: Site, host: str, method: str, server: str) -> None:
    assert call(site, host, method) == [server]


@pytest.mark.parametrize(
    ("metadata", "server"),
    [
        ({"version": "one"}, "g3"),
        ({"version": "two"}, "UNIMPLEMENTED"),
        ({"version": "two", "color": "blue"}, "g3"),
        ({"color": "blue"}, "UNIMPLEMENTED"),
    ],
)
def test_calls_go_by_their_headers(site: Site, metadata: dict[str, str], server: str) -> None:
    assert call(site, "bar.example", "/grpc.Other/Any", metadata=metadata) == [server]


def test_calls_are_shared_by_weight(site: Site) -> None:
    found = Counter(call(site, "weights.other.example", "/grpc.Echo/Echo", CALLS))
    assert set(found) == {"g1", "g2"}
    # 70 % with room for chance: more than four standard deviations.
    assert 0.56 < found["g1"] / CALLS < 0.84
