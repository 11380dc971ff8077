"""What runs while things change goes on to its end."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instances import Instance, eventually, running, unix_json

pytestmark = pytest.mark.e2e

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners: [{name: all, protocol: HTTP, port: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: llama}
spec: {selector: {app: llama}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: llama}
spec:
  replicas: 2
  selector: {matchLabels: {app: llama}}
  template:
    metadata: {labels: {app: llama}}
    spec:
      containers:
        - name: server
          image: ghcr.io/llm-d/llm-d-inference-sim:latest
          args: [--model, llama, --port, "8000"]
          ports: [{containerPort: 8000}]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: llama}}
spec:
  parentRefs: [{{name: front}}]
  rules:
{rules}    - backendRefs: [{{name: llama, port: 80}}]
"""
INSERTED = """\
    - matches: [{path: {value: /inserted}}]
      filters: [{type: CORS, cors: {allowOrigins: ["https://a.example"]}}]
      backendRefs: [{name: llama, port: 80}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("changes")
    (path / "gateway.yaml").write_text(GATEWAY)
    (path / "route.yaml").write_text(ROUTE.format(rules=""))
    return path


@pytest.fixture(scope="module")
def instance(folder: Path) -> Iterator[Instance]:
    with running(folder, ports=(8080,)) as found:
        yield found


class Listening:
    """A client in the midst of an answer that streams."""

    def __init__(self, instance: Instance, tokens: int) -> None:
        body = b'{"model": "llama", "prompt": "x", "max_tokens": %d, "stream": true}' % tokens
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        self._socket = socket.create_connection(("127.0.0.1", instance.ports[8080]))
        self._socket.settimeout(30)
        self._socket.sendall(head % len(body) + body)
        self._received = self._socket.recv(65536)
        assert b"200 OK" in self._received

    def is_whole(self) -> bool:
        with self._socket:
            while b"data: [DONE]" not in self._received:
                chunk = self._socket.recv(65536)
                if not chunk:
                    return False
                self._received = self._received[-100:] + chunk
        return True


def has_cluster(instance: Instance) -> bool:
    """Whether Envoy still has the route's cluster, be it only to let requests end."""
    found = unix_json(instance.folder / "envoy-admin.sock", "/clusters?format=json")
    names = [item["name"] for item in found["cluster_statuses"]]
    return any(name.startswith("httproute/default/llama/") for name in names)


def is_let_in(instance: Instance) -> bool:
    """Whether a page of another origin may ask."""
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    answer = instance.request(8080, "OPTIONS", "/inserted", headers=headers)
    return "access-control-allow-origin" in answer.headers


def test_a_route_that_goes_cuts_no_answer(instance: Instance, folder: Path) -> None:
    client = Listening(instance, 300)
    assert has_cluster(instance)
    (folder / "route.yaml").rename(folder / "route.gone")
    eventually(lambda: instance.complete(8080, "llama").status == 404)
    # Its cluster is gone too, and the answer still comes from there.
    eventually(lambda: not has_cluster(instance))
    assert client.is_whole()
    (folder / "route.gone").rename(folder / "route.yaml")
    eventually(lambda: instance.complete(8080, "llama").status == 200)


def test_a_rule_that_is_inserted_disturbs_nobody(instance: Instance, folder: Path) -> None:
    client = Listening(instance, 300)
    stop = threading.Event()
    statuses: Counter[int] = Counter()

    def load() -> None:
        while not stop.is_set():
            statuses[instance.complete(8080, "llama").status] += 1

    worker = threading.Thread(target=load)
    worker.start()
    try:
        for rules in (INSERTED, "", INSERTED):
            # The CORS filter comes and goes on the listener as well.
            (folder / "route.yaml").write_text(ROUTE.format(rules=rules))
            if rules:
                eventually(lambda: is_let_in(instance))
            else:
                eventually(lambda: not is_let_in(instance))
    finally:
        stop.set()
        worker.join(30)
    assert set(statuses) == {200}
    assert client.is_whole()
