"""Whose words count: objectives and debug headers on routes that believe them, and on others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.echo_servers import echo_servers
from tests.e2e.instances import Answer, Instance, eventually, running
from tests.ports import free_port

pytestmark = pytest.mark.e2e

PORT = 9083
HOSTS = ["127.63.1.1", "127.63.1.2"]
OBJECTIVE = "x-gateway-inference-objective"
DEBUG, DECISION = "x-pointsman-debug", "x-pointsman-decision"
TRUSTING = """
    pointsman.dev/trust-objective-header: "true"
    pointsman.dev/trust-debug-header: "true"
"""
WRONG = """
    pointsman.dev/trust-objective-header: "yes"
    pointsman.dev/trust-debug-header: "True"
"""
MANIFEST = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate}
spec:
  gatewayClassName: pointsman
  listeners: [{name: http, protocol: HTTP, port: 9083}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec:
  selector: {matchLabels: {app: server}}
  targetPorts: [{number: %d}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: urgent}
spec: {priority: 7, poolRef: {name: pool}}
"""
ROUTE = """---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: %s
  annotations:%sspec:
  parentRefs: [{name: gate}]
  rules:
    - matches: [{path: {value: /%s}}]
      backendRefs:
        - {group: inference.networking.k8s.io, kind: InferencePool, name: pool, weight: 1}%s
"""
SECOND = """
        - {group: inference.networking.k8s.io, kind: InferencePool, name: pool, weight: 1}"""
POD = """---
apiVersion: v1
kind: Pod
metadata: {name: server-%d, labels: {app: server}}
status: {podIP: %s}
"""


@dataclass
class Gate:
    """Two servers that tell what came to them, behind routes that believe more or less."""

    instance: Instance

    def ask(self, name: str, **headers: str) -> Answer:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        body = {"model": "m", "prompt": "hello"}
        path = f"/{name}/v1/completions"
        return self.instance.request(PORT, "POST", path, body, given)

    def priority(self, name: str, number: int) -> Any:
        """What the picker took a request for that names an objective."""
        request = f"{name}-{number}"
        answer = self.ask(name, **{OBJECTIVE: "urgent", "x-request-id": request})
        assert answer.status == 200
        assert OBJECTIVE not in answer.json["headers"]
        text = self.instance.cli("explain", "--model", "m", "-o", "json", "--limit", "1")
        return json.loads(text)[0]["priority"]


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    port = free_port(HOSTS)
    routes = {"trusting": TRUSTING, "weighted": TRUSTING, "plain": "", "wrong": WRONG}
    text = MANIFEST % port
    for name, believed in routes.items():
        text += ROUTE % (name, believed or " {}\n", name, SECOND if name == "weighted" else "")
    text += "".join(POD % (number, host) for number, host in enumerate(HOSTS))
    path = tmp_path_factory.mktemp("trust") / "all.yaml"
    path.write_text(text)
    with (
        echo_servers([f"{host}:{port}" for host in HOSTS]),
        running(path, ports=(PORT,)) as instance,
    ):
        eventually(lambda: instance.request(PORT, "GET", "/plain").status == 200)
        yield Gate(instance)


def test_an_objective_counts_on_routes_that_believe_it_and_on_no_others(gate: Gate) -> None:
    found = {name: gate.priority(name, 1) for name in ("trusting", "weighted", "plain", "wrong")}
    assert found == {"trusting": 7, "weighted": 7, "plain": 0, "wrong": 0}


def test_a_decision_is_told_where_it_may_be_asked_for(gate: Gate) -> None:
    for name in ("trusting", "weighted"):
        answer = gate.ask(name, **{DEBUG: "true"})
        told = json.loads(answer.headers[DECISION])
        assert told["endpoint"] == answer.json["address"]
        assert told["candidates"] == 2
        assert set(told["scores"]) == set(told["totals"])
        assert len(told["scores"]) == 2
        assert "queue-scorer" in told["weights"]
        assert DEBUG not in answer.json["headers"]


def test_a_decision_is_told_to_nobody_else(gate: Gate) -> None:
    for name in ("plain", "wrong"):
        answer = gate.ask(name, **{DEBUG: "true"})
        assert answer.status == 200
        assert DECISION not in answer.headers
        assert DEBUG not in answer.json["headers"]
    for headers in ({}, {DEBUG: "false"}, {DEBUG: ""}):
        assert DECISION not in gate.ask("trusting", **headers).headers


def test_an_error_tells_its_decision_too(gate: Gate) -> None:
    path = "/trusting/v1/completions"
    answer = gate.instance.request(PORT, "POST", path, b"{", {DEBUG: "true"})
    assert answer.status == 400
    assert json.loads(answer.headers[DECISION])["reason"] == "invalid_json"


def test_what_is_neither_true_nor_false_is_told_and_believes_nothing(gate: Gate) -> None:
    (parent,) = gate.instance.object("httproute", "wrong")["status"]["parents"]
    found = {item["type"]: item for item in parent["conditions"]}
    assert found["Accepted"]["status"] == "True"
    assert found["Warning"]["reason"] == "UnsupportedValue"
    place = "metadata.annotations[pointsman.dev/trust-objective-header]"
    assert f'{place}: must be "true" or "false", is "yes"' in found["Warning"]["message"]
    (parent,) = gate.instance.object("httproute", "trusting")["status"]["parents"]
    assert "Warning" not in {item["type"] for item in parent["conditions"]}
