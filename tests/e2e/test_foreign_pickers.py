"""Pickers that are not ours, and what becomes of requests when they fail, with the real Envoy."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.stage import backend, pool, route
from tests.e2e.echo_servers import EchoServers, echo_servers
from tests.e2e.foreign_picker import (
    BEHAVIOUR,
    REFUSAL,
    SELECTION,
    SERVED,
    ForeignPicker,
    foreign_picker,
    pod,
    service,
)
from tests.e2e.instances import READY_S, Answer, Instance, eventually, running
from tests.ports import free_port

pytestmark = pytest.mark.e2e

PORT = 9190
ALONE = 9191
"""Leads to no pool of our own picker."""
BODIES = [None, {"prompt": "x"}, {"prompt": "x" * 300_000}]
"""None is a GET."""
GATEWAY = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gate}}
spec:
  gatewayClassName: pointsman
  listeners: [{{name: http, protocol: HTTP, port: {PORT}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: alone}}
spec:
  gatewayClassName: pointsman
  listeners: [{{name: http, protocol: HTTP, port: {ALONE}}}]
"""
HANG_S = 1
PROTOCOL = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
STREAM_DURATION = (
    f"/typed_extension_protocol_options/{PROTOCOL}/common_http_protocol_options/max_stream_duration"
)
IMPATIENT = f"""
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: envoy-gateway-config, namespace: envoy-gateway-system}}
data:
  envoy-gateway.yaml: |
    apiVersion: gateway.envoyproxy.io/v1alpha1
    kind: EnvoyGateway
    extensionApis: {{enableEnvoyPatchPolicy: true}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {{name: impatient}}
spec:
  targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: gate}}
  type: JSONPatch
  jsonPatches:
    - type: type.googleapis.com/envoy.config.cluster.v3.Cluster
      name: inferencepool/default/closed/picker
      operation:
        op: replace
        path: {STREAM_DURATION}
        value: {HANG_S}s
"""
"""What is ten minutes by default is a second for one pool's picker."""


@dataclass
class Field:
    """Pools under load, and who picks for them."""

    instance: Instance
    folder: Path
    servers: EchoServers
    pickers: dict[str, ForeignPicker]
    addresses: dict[str, list[str]]
    stack: ExitStack
    """Ends what is started later."""

    def ask(self, name: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        method = "GET" if body is None else "POST"
        return self.instance.request(PORT, method, f"/{name}", body, headers)

    def is_asked(self, name: str) -> bool:
        """Whether the pool's picker has a say."""
        answer = self.ask(name, {})
        return answer.status == 200 and SERVED in answer.headers


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    folder = tmp_path_factory.mktemp("field")
    hosts = {
        "open": ["127.62.1.1", "127.62.1.2"],
        "closed": ["127.62.2.1", "127.62.2.2"],
        "eight": ["127.62.3.1", "127.62.3.2"],
        "own": ["127.62.4.1", "127.62.4.2"],
    }
    port = free_port([host for each in hosts.values() for host in each])
    ports = {name: {8000: port} for name in hosts}
    ports["eight"] |= {8000 + n: free_port(hosts["eight"]) for n in range(1, 8)}
    addresses = {
        name: [f"{host}:{real}" for host in each for real in ports[name].values()]
        for name, each in hosts.items()
    }
    with ExitStack() as stack:
        servers = stack.enter_context(
            echo_servers([item for each in addresses.values() for item in each])
        )
        pickers = {
            name: stack.enter_context(
                foreign_picker(f"{name}-epp", each, is_plaintext=name == "closed")
            )
            for name, each in addresses.items()
            if name != "own"
        }
        parts = [GATEWAY, IMPATIENT]
        for name, each in hosts.items():
            parts += [pod(f"{name}-{n}", name, host, ports[name]) for n, host in enumerate(each)]
            picker = pickers.get(name)
            if picker is not None:
                parts += [picker.manifest(), service(picker.name, h2c=name == "closed")]
            mode = "FailClose" if name == "closed" else "FailOpen"
            chosen = picker.name if picker is not None else None
            parts.append(
                pool(name, name, picker=chosen, ports=list(ports[name]), failure_mode=mode)
            )
        parts.append(route("all", ["gate"], [(f"/{name}", [backend(name)]) for name in hosts]))
        parts.append(route("alone", ["alone"], [("/open", [backend("open")])]))
        (folder / "all.yaml").write_text("".join(parts))
        instance = stack.enter_context(running(folder, ports=(PORT, ALONE)))
        found = Field(instance, folder, servers, pickers, addresses, stack)
        eventually(lambda: all(found.ask(name).status == 200 for name in hosts), READY_S)
        yield found


@contextmanager
def restored(field: Field, name: str) -> Iterator[ForeignPicker]:
    """A picker that is well again after the block, at the same port if it was killed."""
    picker = field.pickers[name]
    eventually(lambda: field.is_asked(name))
    try:
        yield picker
    finally:
        if picker.process.poll() is None:
            picker.go_on()
        else:
            again = foreign_picker(
                picker.name,
                field.addresses[name],
                port=picker.port,
                is_plaintext=name == "closed",
            )
            field.pickers[name] = field.stack.enter_context(again)
        eventually(lambda: field.is_asked(name))


@pytest.mark.parametrize("name", ["open", "closed"])
@pytest.mark.parametrize("body", BODIES, ids=["get", "small", "large"])
def test_a_picker_that_answers_headers_after_the_body_is_asked_and_told(
    field: Field, name: str, body: Any
) -> None:
    chosen = field.addresses[name][1]
    answer = field.ask(name, body, {SELECTION: chosen})
    assert answer.status == 200
    assert answer.json["address"] == chosen == answer.headers[SERVED]
    assert answer.json["size"] == (0 if body is None else len(json.dumps(body)))


@pytest.mark.parametrize("megabytes", [6, 20])
def test_a_prompt_of_many_megabytes_reaches_a_picker_in_pieces(
    field: Field, megabytes: int
) -> None:
    first, second = field.addresses["open"]
    body = {"prompt": "x" * megabytes * 1_000_000}
    field.servers.stop(first)
    try:
        answer = field.instance.request(
            ALONE, "POST", "/open", body, {SELECTION: f"{first},{second}"}
        )
    finally:
        field.servers.start(first)
    assert answer.status == 200
    assert answer.json["size"] > megabytes * 1_000_000
    assert answer.headers[SERVED] == second


def test_a_picked_port_among_eight_is_obeyed(field: Field) -> None:
    assert len(field.addresses["eight"]) == 16
    for address in field.addresses["eight"]:
        answer = field.ask("eight", {}, {SELECTION: address})
        assert answer.json["address"] == address == answer.headers[SERVED]


def test_a_list_is_followed_where_the_first_cannot_be_reached(field: Field) -> None:
    first, second = field.addresses["open"]
    field.servers.stop(first)
    try:
        for body in BODIES:
            answer = field.ask("open", body, {SELECTION: f"{first},{second}"})
            assert answer.status == 200
            assert answer.json["address"] == second == answer.headers[SERVED]
    finally:
        field.servers.start(first)


@pytest.mark.parametrize(("name", "status"), [("open", 200), ("closed", 503)])
def test_a_host_outside_the_pool_is_never_reached(field: Field, name: str, status: int) -> None:
    stranger = field.addresses["eight"][0]
    field.servers.forget()
    spoofed = {
        "x-gateway-destination-endpoint": stranger,
        "x-gateway-destination-endpoint-subset": stranger,
    }
    # By the client: it is not heard.
    assert field.ask(name, {}, spoofed).json["address"] in field.addresses[name]
    # By the picker: the failure mode decides.
    answer = field.ask(name, {}, {BEHAVIOUR: "stray"})
    assert answer.status == status
    if status == 200:
        assert answer.json["address"] in field.addresses[name]
    # By the client, with a picker that names nobody.
    picker_less = field.ask("own", {"model": "m"}, spoofed)
    assert picker_less.json["address"] in field.addresses["own"]
    assert stranger not in field.servers.requests


@pytest.mark.parametrize("name", ["open", "closed"])
def test_the_pickers_own_errors_pass_untouched(field: Field, name: str) -> None:
    for body in BODIES:
        answer = field.ask(name, body, {BEHAVIOUR: "refuse"})
        assert (answer.status, answer.body) == (429, REFUSAL)


def test_a_picker_that_never_answers_is_cut_off_and_a_stream_that_lasts_is_not(
    field: Field,
) -> None:
    field.servers.hold_again()
    streams: list[Answer] = []
    asking = threading.Thread(target=lambda: streams.append(field.ask("closed/held", {})))
    asking.start()
    eventually(lambda: field.servers.open == 1)
    for body in BODIES[1:]:
        answer = field.ask("closed", body, {BEHAVIOUR: "hang"})
        assert (answer.status, answer.json["error"]["code"]) == (503, "picker_failed")
    # The stream began before the first of these, and was open all the time.
    assert field.servers.open == 1
    field.servers.release()
    asking.join()
    assert streams[0].body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("megabytes", [1, 60])
def test_an_answer_may_be_larger_than_what_the_gateway_buffers(
    field: Field, megabytes: int
) -> None:
    answer = field.ask(f"own/large/{megabytes}000000", {"model": "m"})
    assert answer.status == 200
    assert len(answer.json["filling"]) == megabytes * 1_000_000


def fails_as_it_should(field: Field, name: str) -> bool:
    """Nobody picks: a pool that fails open answers, one that fails closed says why not."""
    answers = [field.ask(name, body) for body in BODIES]
    if any(SERVED in answer.headers for answer in answers):
        return False
    if name == "open":
        return all(answer.status == 200 for answer in answers)
    return all(
        answer.status == 503
        and answer.json["error"]["code"] == "no_endpoint"
        and f"no healthy endpoint in pool default/{name}" in answer.json["error"]["message"]
        for answer in answers
    )


@pytest.mark.parametrize("name", ["open", "closed"])
@pytest.mark.parametrize("how", ["killed", "hung"])
def test_a_picker_that_is_gone_is_found_out_and_found_again(
    field: Field, name: str, how: str
) -> None:
    with restored(field, name) as picker:
        (picker.kill if how == "killed" else picker.hang)()
        # A request that is with a picker while it hangs stays there: none is sent until it is out.
        eventually(lambda: not _is_healthy(field, name))
        assert fails_as_it_should(field, name)


def _is_healthy(field: Field, name: str) -> bool:
    """Whether Envoy's checks of the pool's picker succeed."""
    connection = http.client.HTTPConnection("envoy")
    connection.sock = socket.socket(socket.AF_UNIX)
    with connection.sock as client:
        client.connect(str(field.instance.folder / "envoy-admin.sock"))
        connection.request("GET", "/clusters?format=json")
        clusters = json.loads(connection.getresponse().read())["cluster_statuses"]
    (hosts,) = (
        item["host_statuses"]
        for item in clusters
        if item["name"] == f"inferencepool/default/{name}/picker"
    )
    return not any(host["health_status"].get("failed_active_health_check") for host in hosts)


def test_a_picker_that_is_killed_under_load_costs_what_it_held_and_then_nothing(
    field: Field,
) -> None:
    stop = threading.Event()
    statuses: Counter[int] = Counter()
    after: Counter[int] = Counter()
    last: deque[int] = deque(maxlen=200)
    killed = threading.Event()

    def load() -> None:
        while not stop.is_set():
            counted = after if killed.is_set() else statuses
            status = field.ask("open", {"prompt": "x" * 5_000}).status
            counted[status] += 1
            last.append(status)

    with restored(field, "open") as picker:
        workers = [threading.Thread(target=load) for _ in range(8)]
        for worker in workers:
            worker.start()
        eventually(lambda: statuses[200] > 200)
        picker.kill()
        killed.set()
        eventually(lambda: after[200] > 400)
        stop.set()
        for worker in workers:
            worker.join()
    # Each worker had a request with the picker, and a few more go there until Envoy has seen that
    # it is gone; how many depends on who wakes up first.
    assert statuses[503] + after[503] <= 64
    assert set(last) == {200}
    assert set(statuses) | set(after) <= {200, 503}


def test_endpoints_come_and_go_without_a_failed_request(field: Field) -> None:
    path = field.folder / "more.yaml"
    host = "127.62.4.3"
    port = int(field.addresses["own"][0].rpartition(":")[2])
    address = f"{host}:{port}"
    field.servers.start(address)
    stop = threading.Event()
    statuses: Counter[int] = Counter()
    seen: Counter[str] = Counter()

    def load() -> None:
        while not stop.is_set():
            answer = field.ask("own", {"model": "m", "prompt": "x"})
            statuses[answer.status] += 1
            if answer.status == 200:
                seen[answer.json["address"]] += 1

    there = pod("own-2", "own", host, {8000: port})
    leaving = there.replace(
        "  name: own-2", "  name: own-2\n  deletionTimestamp: 2026-01-01T00:00:00Z"
    )
    not_ready = there.replace(
        "podIP: 127.62.4.3", 'podIP: 127.62.4.3, conditions: [{type: Ready, status: "False"}]'
    )
    assert leaving != there != not_ready
    workers = [threading.Thread(target=load) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        for gone in (leaving, not_ready, None):
            path.write_text(there)
            before = seen[address]
            eventually(lambda before=before: seen[address] > before)  # type: ignore[misc]
            path.unlink() if gone is None else path.write_text(gone)
            eventually(lambda: _is_left_alone(seen, address))
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        path.unlink(missing_ok=True)
        field.servers.stop(address)
    assert set(statuses) == {200}


def _is_left_alone(seen: Counter[str], address: str) -> bool:
    """A hundred others are asked before that one is."""
    before, total = seen[address], sum(seen.values())
    eventually(lambda: sum(seen.values()) > total + 100)
    return seen[address] == before


@pytest.mark.parametrize("name", ["own", "open"])
def test_1500_requests_are_held_open_at_once(field: Field, name: str) -> None:
    count = 1500
    field.servers.hold_again()
    answers = asyncio.run(hold(field, f"/{name}/held", count))
    assert Counter(answers) == {200: count}


async def hold(field: Field, path: str, count: int) -> Sequence[int]:
    """The statuses of so many requests that were all open at once."""
    body = b'{"model": "m", "prompt": "x"}'
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    port = field.instance.ports[PORT]

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        answer = await reader.read()
        writer.close()
        assert answer.endswith(b"0\r\n\r\n") or b" 200 " not in answer[:20]
        return int(answer.split(b" ", 2)[1])

    async with asyncio.timeout(40):
        tasks = [asyncio.create_task(one()) for _ in range(count)]
        while field.servers.open < count:
            await asyncio.sleep(0.02)
            done = [task for task in tasks if task.done()]
            assert not done, done[0].result()
        field.servers.release()
        return await asyncio.gather(*tasks)
