"""What becomes of requests when our own picker hangs, is slow, dies and comes back.

Each case for a pool that fails open and one that fails closed, and for no body, a small and a large
one. A route that shows decisions tells whether the picker was asked.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.echo_servers import EchoServers, echo_servers
from tests.e2e.instances import Answer, Instance, eventually, running
from tests.ports import free_port

pytestmark = pytest.mark.e2e

PORT = 9084
HOSTS = ["127.63.2.1", "127.63.2.2"]
DECISION = "x-pointsman-decision"
BODIES = [None, {"model": "m", "prompt": "x"}, {"model": "m", "prompt": "x" * 300_000}]
"""None is a GET."""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate}
spec:
  gatewayClassName: pointsman
  listeners: [{name: http, protocol: HTTP, port: 9084}]
"""
POOL = """---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: %(name)s}
spec:
  selector: {matchLabels: {app: server}}
  targetPorts: [{number: %(port)d}]
  endpointPickerRef: {name: picker, port: {number: 9002}, failureMode: %(mode)s}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: %(name)s
  annotations: {pointsman.dev/trust-debug-header: "true"}
spec:
  parentRefs: [{name: gate}]
  rules:
    - matches: [{path: {value: /%(name)s}}]
      backendRefs:
        - {group: inference.networking.k8s.io, kind: InferencePool, name: %(name)s}
"""
POD = """---
apiVersion: v1
kind: Pod
metadata: {name: server-%d, labels: {app: server}}
status: {podIP: %s}
"""


@dataclass
class Gate:
    """Two pools over the same servers, and the picker's process."""

    instance: Instance
    servers: EchoServers

    def ask(self, name: str, body: Any = None) -> Answer:
        method = "GET" if body is None else "POST"
        path = f"/{name}/v1/completions"
        return self.instance.request(PORT, method, path, body, {"x-pointsman-debug": "true"})

    def is_picked(self) -> bool:
        """Whether the picker has a say for both pools again."""
        return all(DECISION in self.ask(name, BODIES[1]).headers for name in ("open", "closed"))

    def picker(self) -> int:
        eventually(lambda: len(self.instance.pids("pointsman picker")) == 1)
        return next(iter(self.instance.pids("pointsman picker")))

    @contextmanager
    def held_answer(self, name: str) -> Iterator[http.client.HTTPResponse]:
        """An answer that has begun and goes on until the servers are told to end it."""
        self.servers.hold_again()
        port = self.instance.ports[PORT]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", f"/{name}/held")
            answer = connection.getresponse()
            assert answer.readline() == b"data: {}\n"
            yield answer
        finally:
            connection.close()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    port = free_port(HOSTS)
    text = GATEWAY
    for name, mode in (("open", "FailOpen"), ("closed", "FailClose")):
        text += POOL % {"name": name, "mode": mode, "port": port}
    text += "".join(POD % (number, host) for number, host in enumerate(HOSTS))
    path = tmp_path_factory.mktemp("failures") / "all.yaml"
    path.write_text(text)
    with (
        echo_servers([f"{host}:{port}" for host in HOSTS]) as servers,
        running(path, ports=(PORT,)) as instance,
    ):
        found = Gate(instance, servers)
        eventually(found.is_picked)
        yield found


def test_a_picker_that_hangs_holds_no_request_and_cuts_no_answer(gate: Gate) -> None:
    eventually(gate.is_picked)
    picker = gate.picker()
    with gate.held_answer("closed") as answer:
        os.kill(picker, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(8) as together:
                cases = [(name, body) for name in ("open", "closed") for body in BODIES]
                found = list(together.map(lambda case: gate.ask(*case), cases))
        finally:
            os.kill(picker, signal.SIGCONT)
        assert [each.status for each in found] == [200, 200, 200, 503, 503, 503]
        assert all(DECISION not in each.headers for each in found)
        assert {each.json["error"]["code"] for each in found[3:]} == {"no_endpoint"}
        gate.servers.release()
        assert answer.read().endswith(b"data: [DONE]\n\n")
    eventually(gate.is_picked)


def test_a_picker_that_is_slow_is_waited_for(gate: Gate) -> None:
    eventually(gate.is_picked)
    picker = gate.picker()
    for name in ("open", "closed"):
        for body in BODIES:
            os.kill(picker, signal.SIGSTOP)
            threading.Timer(0.15, os.kill, (picker, signal.SIGCONT)).start()
            answer = gate.ask(name, body)
            assert answer.status == 200
            assert DECISION in answer.headers


def test_a_picker_that_dies_cuts_no_answer_and_comes_back(gate: Gate) -> None:
    for name in ("open", "closed"):
        eventually(gate.is_picked)
        with gate.held_answer(name) as answer:
            os.kill(gate.picker(), signal.SIGKILL)
            found = {
                case: {gate.ask(case, body).status for body in BODIES for _ in range(3)}
                for case in ("open", "closed")
            }
            assert found["open"] == {200}
            # It may be back in the midst of them.
            assert found["closed"] <= {200, 503}
            gate.servers.release()
            assert answer.read().endswith(b"data: [DONE]\n\n")
    eventually(gate.is_picked)


def test_a_picker_that_is_told_to_end_lets_answers_end(gate: Gate) -> None:
    eventually(gate.is_picked)
    before = gate.picker()
    with gate.held_answer("closed") as answer:
        os.kill(before, signal.SIGTERM)
        eventually(lambda: before not in gate.instance.pids("pointsman picker"))
        assert gate.ask("open", BODIES[2]).status == 200
        gate.servers.release()
        assert answer.read().endswith(b"data: [DONE]\n\n")
    eventually(gate.is_picked)
