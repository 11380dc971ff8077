from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from pointsman.resources.base import Ref

Run = Callable[..., Result]


def gateway(programmed: str, generation: int = 1) -> str:
    return f"""
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {{name: web, generation: {generation}, labels: {{a: b}}}}
        spec: {{gatewayClassName: eg, listeners: [{{name: a, port: 80, protocol: HTTP}}]}}
        status:
          conditions: [{{type: Programmed, status: "{programmed}", observedGeneration: 1}}]
          addresses: [{{value: 127.0.0.1}}]
    """


ROUTE = """
    apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: r}
    spec: {}
    status:
      parents:
      - {parentRef: {name: a}, conditions: [{type: Accepted, status: "True"}]}
      - {parentRef: {name: b}, conditions: [{type: Accepted, status: "SECOND"}]}
"""


@pytest.fixture
def instance(running: Callable[..., Any]) -> Iterator[Any]:
    with running() as instance:
        instance.put(gateway("True"))
        yield instance


@pytest.mark.parametrize(
    "goal",
    ["condition=Programmed", "condition=programmed=true", "create",
     "jsonpath={.status.addresses[0].value}=127.0.0.1", "jsonpath={.status.addresses}",
     "jsonpath=.status.addresses[0].value"],
)  # fmt: skip
def test_what_is_so_already_is_said_at_once(run: Run, instance: Any, goal: str) -> None:
    result = run("wait", "gtw/web", f"--for={goal}", "--timeout=10s")

    said = "created" if goal == "create" else "condition met"
    assert result.stdout == f"gateway.gateway.networking.k8s.io/web {said}\n"
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "goal",
    ["condition=Programmed=False", "condition=Other", "jsonpath={.status.addresses[0].value}=::1"],
)
def test_what_does_not_come_is_a_timeout(run: Run, instance: Any, goal: str) -> None:
    result = run("wait", "gtw/web", f"--for={goal}", "--timeout=50ms")

    assert result.exit_code == 1
    assert result.stderr == (
        "error: timed out waiting for the condition on gateway.gateway.networking.k8s.io/web\n"
    )


def test_a_condition_of_an_older_generation_does_not_count(run: Run, instance: Any) -> None:
    instance.put(gateway("True", generation=2))

    assert run("wait", "gtw/web", "--for=condition=Programmed", "--timeout=50ms").exit_code == 1


@pytest.mark.parametrize(("second", "code"), [("True", 0), ("False", 1)])
def test_a_route_is_accepted_when_all_its_parents_say_so(
    run: Run, instance: Any, second: str, code: int
) -> None:
    instance.put(ROUTE.replace("SECOND", second))

    result = run("wait", "httproute", "r", "--for=condition=Accepted", "--timeout=50ms")

    assert result.exit_code == code


def waiting(run: Run, *arguments: str) -> tuple[threading.Thread, list[Result]]:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(run("wait", *arguments)))
    thread.start()
    return thread, results


@pytest.mark.parametrize("which", [["gtw/web"], ["gtw", "--all"], ["gtw", "-l", "a=b"]])
def test_what_comes_later_is_waited_for(run: Run, instance: Any, which: list[str]) -> None:
    instance.put(gateway("False"))
    thread, results = waiting(run, *which, "--for=condition=Programmed", "--timeout=10s")

    instance.put(gateway("True"))
    thread.join(10)

    assert results[0].stdout == "gateway.gateway.networking.k8s.io/web condition met\n"
    assert results[0].exit_code == 0


def test_a_deletion_is_waited_for(run: Run, instance: Any) -> None:
    thread, results = waiting(run, "gtw/web", "--for=delete", "--timeout=10s")

    instance.delete(Ref("gateway.networking.k8s.io", "Gateway", "default", "web"))
    thread.join(10)

    assert results[0].exit_code == 0
    assert run("wait", "gtw/web", "--for=delete").exit_code == 0


def test_a_creation_is_waited_for(run: Run, instance: Any) -> None:
    thread, results = waiting(run, "httproute/r", "--for=create", "--timeout=10s")

    instance.put(ROUTE.replace("SECOND", "True"))
    thread.join(10)

    assert results[0].stdout == "httproute.gateway.networking.k8s.io/r created\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gtw/x", "--for=condition=Ready"],
         'Error from server (NotFound): gateways.gateway.networking.k8s.io "x"'),
        (["pods", "--all", "--for=condition=Ready"], "error: no matching resources found"),
        (["pods", "--for=condition=Ready"], "error: name an object (KIND/NAME), or give --all"),
        (["gtw/web", "--for=ready"], "error: unrecognized condition: 'ready'"),
        (["gtw/web", "--for=jsonpath={.a"], "error: error parsing jsonpath"),
        (["gtw/web", "--for=create", "--timeout=soon"], "error: invalid --timeout"),
    ],
)  # fmt: skip
def test_errors_are_one_line(run: Run, instance: Any, arguments: list[str], message: str) -> None:
    result = run("wait", *arguments)

    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
