from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from click.testing import Result

from pointsman.cli.columns import human_age

Run = Callable[..., Result]

OBJECTS = """
    apiVersion: gateway.networking.k8s.io/v1
    kind: GatewayClass
    metadata: {name: eg}
    spec: {controllerName: a.b/c}
    ---
    apiVersion: gateway.networking.k8s.io/v1
    kind: Gateway
    metadata: {name: web, labels: {tier: front}}
    spec: {gatewayClassName: eg, listeners: [{name: a, port: 80, protocol: HTTP}]}
    status:
      addresses: [{type: IPAddress, value: 127.0.0.1}]
      conditions: [{type: Programmed, status: "True"}]
    ---
    apiVersion: gateway.networking.k8s.io/v1
    kind: Gateway
    metadata: {name: other, namespace: away}
    spec: {gatewayClassName: eg, listeners: [{name: a, port: 80, protocol: HTTP}]}
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: p-0, labels: {app: p}}
    spec: {containers: [{name: c}]}
    status:
      phase: Running
      podIP: 10.0.0.1
      conditions: [{type: Ready, status: "True"}]
      containerStatuses: [{name: c, ready: true, restartCount: 2}]
    ---
    apiVersion: v1
    kind: Pod
    metadata: {name: external}
    status: {podIP: 10.0.0.2}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: s, creationTimestamp: "2020-01-01T00:00:00Z"}
    spec: {selector: {app: p}, ports: [{port: 80}]}
    ---
    apiVersion: inference.networking.x-k8s.io/v1alpha2
    kind: InferencePool
    metadata: {name: pool}
    spec: {selector: {app: p}, targetPortNumber: 8000, extensionRef: {name: epp}}
"""


@pytest.fixture
def instance(running: Callable[..., Any]) -> Iterator[Any]:
    with running() as instance:
        instance.put(OBJECTS)
        yield instance


def test_a_table_has_kubectl_s_columns(run: Run, instance: Any) -> None:
    result = run("get", "gtw")

    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"]
    assert lines[1].split() == ["web", "eg", "127.0.0.1", "True", "<unknown>"]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pods"], [["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
                    ["external", "0/0", "External", "0", "<unknown>"],
                    ["p-0", "1/1", "Running", "2", "<unknown>"]]),
        (["po", "-l", "app=p", "--no-headers", "-o", "wide"],
         [["p-0", "1/1", "Running", "2", "<unknown>", "10.0.0.1"]]),
        (["gc"], [["NAME", "CONTROLLER", "ACCEPTED", "AGE"], ["eg", "a.b/c", "<unknown>"]]),
        (["gtw", "-A", "--no-headers"],
         [["away", "other", "eg", "<unknown>"],
          ["default", "web", "eg", "127.0.0.1", "True", "<unknown>"]]),
        (["gtw", "-n", "away", "--no-headers"], [["other", "eg", "<unknown>"]]),
        (["gtw", "-l", "tier!=front", "-A", "--no-headers"],
         [["away", "other", "eg", "<unknown>"]]),
        (["inferencepools", "--no-headers"], [["pool", "8000", "epp", "<unknown>"]]),
        (["gtw/web", "gtw/web", "--no-headers"],
         [["web", "eg", "127.0.0.1", "True", "<unknown>"]] * 2),
        (["gtw", "web", "--show-labels", "--no-headers"],
         [["web", "eg", "127.0.0.1", "True", "<unknown>", "tier=front"]]),
    ],
)  # fmt: skip
def test_tables(run: Run, instance: Any, arguments: list[str], expected: list[list[str]]) -> None:
    result = run("get", *arguments)

    assert [line.split() for line in result.stdout.splitlines()] == expected
    assert result.exit_code == 0


def test_several_kinds_are_several_tables(run: Run, instance: Any) -> None:
    result = run("get", "pods,svc")

    first, second = result.stdout.strip().split("\n\n")
    assert first.splitlines()[1].startswith("pod/external")
    assert second.splitlines()[1].split()[:4] == ["service/s", "ClusterIP", "<none>", "80/TCP"]


def test_all_means_every_kind_that_is_used(run: Run, instance: Any) -> None:
    result = run("get", "all", "-o", "name")

    assert result.stdout.split() == [
        "pod/external",
        "pod/p-0",
        "service/s",
        "gatewayclass.gateway.networking.k8s.io/eg",
        "gateway.gateway.networking.k8s.io/web",
        "inferencepool.inference.networking.x-k8s.io/pool",
    ]


@pytest.mark.parametrize(
    "form", ["jsonpath={.status.addresses[0].value}", "=jsonpath={.status.addresses[0].value}"]
)
def test_the_guide_s_jsonpath_prints_the_address(run: Run, instance: Any, form: str) -> None:
    result = run("get", "gtw", "web", "-o", form)

    assert result.stdout == "127.0.0.1"


def test_json_and_yaml_are_the_object_or_a_list(run: Run, instance: Any) -> None:
    one = json.loads(run("get", "gtw", "web", "-o", "json").stdout)
    many = yaml.safe_load(run("get", "gtw", "-A", "-o", "yaml").stdout)

    assert one["metadata"]["name"] == "web"
    assert many["kind"] == "List"
    assert [item["metadata"]["name"] for item in many["items"]] == ["other", "web"]
    assert run("get", "gtw", "-A", "-o", "jsonpath={.items[*].metadata.name}").stdout == "other web"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gtw", "x"],
         'Error from server (NotFound): gateways.gateway.networking.k8s.io "x" not found'),
        (["pod/x"], 'Error from server (NotFound): pods "x" not found'),
        (["gatewys"],
         'error: the server doesn\'t have a resource type "gatewys" (did you mean Gateway'),
        (["gtw", "-o", "table"],
         'error: unable to match a printer suitable for the output format "table"'),
        (["gtw", "-o", "jsonpath={.a"], "error: error parsing jsonpath {.a, a { without a }"),
        (["gtw", "-l", "a ! b"], "error: unable to parse the selector"),
        (["pods,svc", "x"], "error: a name can be given for one resource type only"),
        (["pod/a/b"], "error: there is no need to specify a resource type"),
    ],
)  # fmt: skip
def test_errors_are_one_line_in_kubectl_s_words(
    run: Run, instance: Any, arguments: list[str], message: str
) -> None:
    result = run("get", *arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1


def test_what_is_there_is_shown_beside_what_is_not(run: Run, instance: Any) -> None:
    result = run("get", "gtw", "web", "x", "y")

    assert "web" in result.stdout
    assert result.stderr.count("NotFound") == 2
    assert result.exit_code == 1


def test_nothing_is_said_to_be_nothing(run: Run, instance: Any) -> None:
    assert run("get", "deploy").stderr == "No resources found in default namespace.\n"
    assert run("get", "deploy", "-A").stderr == "No resources found\n"
    assert run("get", "deploy").exit_code == 0


def test_without_an_instance_the_error_says_how_to_start_one(run: Run) -> None:
    result = run("get", "pods")

    assert result.exit_code == 1
    assert result.stderr == "error: no instance is running (start one with: pointsman run PATH)\n"


def test_one_of_several_instances_is_chosen_by_name(
    run: Run, running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running("one") as one, running("two"):
        one.put(OBJECTS)
        ambiguous = run("get", "svc")
        assert "several instances are running: one, two" in ambiguous.stderr
        assert "s " in run("get", "svc", "--instance", "one").stdout
        monkeypatch.setenv("POINTSMAN_INSTANCE", "two")
        assert "No resources found" in run("get", "svc").stderr


def test_a_watch_goes_on_with_what_changes(
    run: Run, instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    has_first, has_change = threading.Event(), threading.Event()

    def echo(text: str = "", **_: Any) -> None:
        lines.append(text)
        has_first.set()
        if text.startswith("web") and "False" in text:
            has_change.set()

    monkeypatch.setattr("click.echo", echo)
    watching = threading.Thread(target=lambda: run("get", "gtw", "-w"))
    watching.start()
    assert has_first.wait(10)
    instance.put(OBJECTS.replace('Programmed, status: "True"', 'Programmed, status: "False"'))
    assert has_change.wait(10)
    instance.stop()
    watching.join(10)
    assert not watching.is_alive()

    assert lines[0].split() == ["NAME", "CLASS", "ADDRESS", "PROGRAMMED", "AGE"]
    assert lines[1].split()[3] == "True"
    assert lines[2].split()[3] == "False"
    assert lines[1].index("True") == lines[2].index("False")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (5, "5s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (1000, "16m"),
     (4 * 3600, "4h"), (4 * 3600 + 60, "4h1m"), (86400, "24h"), (3 * 86400 + 3600, "3d1h"),
     (400 * 86400, "400d"), (1000 * 86400, "2y270d"), (9 * 365 * 86400, "9y")],
)  # fmt: skip
def test_ages_read_as_kubectl_s(seconds: float, text: str) -> None:
    assert human_age(seconds) == text


def test_a_known_age_is_shown(run: Run, instance: Any) -> None:
    assert run("get", "svc").stdout.splitlines()[1].split()[-1].rstrip("0123456789d").endswith("y")
