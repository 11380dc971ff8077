"""The commands that report: status, logs, api-resources, version."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from click.testing import Result

from pointsman import __version__
from pointsman.admin.providers import EndpointRow, Providers
from pointsman.cli.status import acknowledged
from pointsman.resources.label_query import LabelQuery, LabelQueryError

Run = Callable[..., Result]

OBJECTS = """
    apiVersion: gateway.networking.k8s.io/v1
    kind: Gateway
    metadata: {name: web, generation: 2}
    spec: {gatewayClassName: eg, listeners: [{name: a, port: 80, protocol: HTTP}]}
    status:
      conditions:
      - {type: Accepted, status: "True", reason: Accepted, observedGeneration: 2}
      - {type: Programmed, status: "False", reason: Invalid, message: no such field}
      listeners:
      - {name: a, conditions: [{type: Accepted, status: "True", observedGeneration: 1}]}
    ---
    apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: r}
    spec: {}
    status:
      parents:
      - parentRef: {name: web, sectionName: a}
        conditions: [{type: Accepted, status: "True", reason: Accepted}]
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: d}
    spec:
      selector: {matchLabels: {app: d}}
      template: {metadata: {labels: {app: d}}, spec: {containers: [{name: c}]}}
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: d-0, labels: {app: d}}
"""


async def endpoints() -> Sequence[EndpointRow]:
    return [
        {
            "pool": "default/p",
            "name": "d-0",
            "address": "10.0.0.1:8000",
            "is_ready": True,
            "running": 2,
            "waiting": 3,
            "in_flight": 4,
            "kv_cache": 0.255,
            "adapters": ["x", "y"],
        },
        {"pool": "default/p", "name": "d-1", "address": "10.0.0.2:8000", "error": "no answer"},
    ]


class KeptLogs:
    def names(self) -> Sequence[str]:
        return ["default/d-0/c", "envoy"]

    def tail(self, name: str, lines: int) -> Sequence[str] | None:
        known = {"default/d-0", "default/d-0/c", "d-0", "envoy"}
        return ["one", "two"][-lines:] if name in known else None

    async def follow(self, name: str) -> AsyncIterator[str]:
        yield "three"


PROVIDERS = Providers(
    endpoints=endpoints,
    listeners=lambda: [
        {"gateway": "default/web", "name": "a", "protocol": "HTTP", "address": "127.0.0.1",
         "port": 80, "is_bound": False, "message": "permission denied"},
    ],
    xds=lambda: [
        {"type": "Listener", "name": "default/web/a", "state": "NACKED",
         "message": "no\nsuch field", "objects": ["Gateway default/web"]},
        {"type": "RouteConfiguration", "name": "default/web/a", "state": "ACKED",
         "objects": ["Gateway default/web", "HTTPRoute default/r"]},
    ],
    problems=lambda: [
        {"file": "a.yaml", "line": 3, "field": "spec.x", "message": "unknown field"}
    ],
    logs=KeptLogs(),
)  # fmt: skip


@pytest.fixture
def instance(running: Callable[..., Any]) -> Any:
    with running(providers=PROVIDERS) as instance:
        instance.put(OBJECTS)
        yield instance


def rows(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines()]


def test_the_status_shows_everything(run: Run, instance: Any) -> None:
    result = run("status")
    found = rows(result)

    assert ["Gateway", "default/web", "Accepted", "True", "Accepted", "NACKED"] in found
    assert ["Programmed", "False", "Invalid", "no", "such", "field"] in found
    assert ["listener", "a", "Accepted", "True", "(old)"] in found
    assert ["HTTPRoute", "default/r", "ACKED"] in found
    assert ["Gateway", "web/a", "Accepted", "True", "Accepted"] in found
    assert ["default/web", "a", "HTTP", "127.0.0.1:80", "no", "permission", "denied"] in found
    assert ["Listener", "default/web/a", "no", "such", "field"] in found
    assert ["default/p", "d-0", "10.0.0.1:8000", "yes", "2", "3", "4", "26%", "x,y"] in found
    assert ["default/p", "d-1", "10.0.0.2:8000", *["-"] * 6, "no", "answer"] in found
    assert ["a.yaml:3", "spec.x", "unknown", "field"] in found


def test_a_quiet_status_shows_what_is_wrong(run: Run, instance: Any) -> None:
    result = run("status", "-q")

    assert "HTTPRoute" not in result.stdout
    assert "d-0" not in result.stdout
    assert "Programmed" in result.stdout
    assert "no answer" in result.stdout


def test_the_status_of_one_kind(run: Run, instance: Any) -> None:
    result = run("status", "httproute")

    assert [row[0] for row in rows(result)] == ["OBJECT", "HTTPRoute", "Gateway"]
    assert "all is as it should be" in run("status", "httproute", "-q").stdout
    assert "no object has a condition" in run("status", "-n", "elsewhere").stdout
    assert run("status", "nothing").exit_code == 1


def test_the_status_for_programs(run: Run, instance: Any) -> None:
    answer = json.loads(run("status", "-o", "json").stdout)

    assert answer["endpoints"][0]["kv_cache"] == 0.255


def test_the_worst_answer_of_envoy_counts() -> None:
    assert acknowledged(
        [
            {"state": "ACKED", "objects": ["a", "b", "c"]},
            {"state": "PENDING", "objects": ["b", "c"]},
            {"state": "NACKED", "objects": ["c"]},
            {"state": "ACKED", "objects": ["c"]},
        ]
    ) == {"a": "ACKED", "b": "PENDING", "c": "NACKED"}


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["envoy"], ["one", "two"]),
        (["envoy", "--tail", "1"], ["two"]),
        (["envoy", "-f"], ["one", "two", "three"]),
        (["d-0", "-c", "c"], []),
        (["pod/d-0"], ["one", "two"]),
        (["pod/d-0", "-c", "c"], ["one", "two"]),
        (["deploy/d"], ["one", "two"]),
    ],
)
def test_logs(run: Run, instance: Any, arguments: list[str], lines: list[str]) -> None:
    assert run("logs", *arguments).stdout.splitlines() == lines


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "error: 'nobody' has no logs (those that have: default/d-0/c, envoy)"),
        ("deploy/nobody", 'error: deployments.apps "nobody" not found'),
        ("svc/x", "error: cannot show the logs of a Service"),
    ],
)
def test_logs_that_are_not_there(run: Run, instance: Any, name: str, message: str) -> None:
    result = run("logs", name)

    assert result.exit_code == 1
    assert result.stderr.startswith(message)


def test_the_kinds_of_a_group(run: Run) -> None:
    result = run("api-resources", "--api-group=inference.networking.k8s.io")

    assert rows(result) == [
        ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"],
        ["inferencepools", "infpool", "inference.networking.k8s.io/v1", "true", "InferencePool"],
    ]


def test_the_kinds_by_name(run: Run) -> None:
    names = run("api-resources", "-o", "name", "--namespaced=false").stdout.split()

    assert "gatewayclasses.gateway.networking.k8s.io" in names
    assert "namespaces" in names
    assert "pods" not in names


def test_an_unknown_group_is_an_error_that_names_the_known_ones(run: Run) -> None:
    result = run("api-resources", "--api-group=nowhere")

    assert result.exit_code == 1
    assert "gateway.envoyproxy.io" in result.stderr


def test_the_version_has_envoy_s(run: Run) -> None:
    lines = run("version").stdout.splitlines()
    found = json.loads(run("version", "-o", "json").stdout)

    assert lines[0] == f"pointsman {__version__}"
    assert lines[1].startswith("envoy 1.")
    assert found["envoy"].startswith("1.")


@pytest.mark.parametrize(
    ("text", "is_match"),
    [("", True), ("app=web", True), ("app==web", True), ("app!=web", False), ("app", True),
     ("!app", False), ("!x", True), ("app in (web, api)", True), ("app notin (web)", False),
     ("x notin (a)", True), ("app=web,tier=", False), ("app=web,tier in (a,b)", True)],
)  # fmt: skip
def test_selectors_of_the_command_line(text: str, is_match: bool) -> None:
    assert LabelQuery.of(text).matches({"app": "web", "tier": "a"}) is is_match


@pytest.mark.parametrize("text", ["a b", "a in b", "=x", "a=b=c", "a in (b", "(a)"])
def test_a_selector_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(LabelQueryError, match="unable to parse"):
        LabelQuery.of(text)
