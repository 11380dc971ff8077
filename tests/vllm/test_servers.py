"""Real vLLM servers that already run: `pointsman run --server`, with no manifest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.instances import Instance, eventually, running
from tests.ports import free_port
from tests.vllm.servers import ADAPTERS, MODEL, Cluster, answered, complete_many, endpoints

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(servers: Cluster, port: int) -> Iterator[Instance]:
    named = f"--server={MODEL}={','.join(servers.urls())}"
    with running(arguments=(named, f"--port={port}")) as instance:
        eventually(lambda: sum("is vllm" in line for line in instance.lines) == 2)
        yield instance


def test_the_servers_are_told_to_be_vllm_and_the_ready_line_names_their_model(
    gateway: Instance, servers: Cluster
) -> None:
    told = {line.split()[-3] for line in gateway.lines if line.endswith("is vllm")}
    assert told == set(servers.urls())
    assert f'"model": "{MODEL}"' in next(x for x in gateway.lines if "pointsman: ready" in x)


@pytest.mark.parametrize("model", [MODEL, *ADAPTERS])
def test_every_model_that_they_list_is_served_by_both(
    gateway: Instance, servers: Cluster, port: int, model: str
) -> None:
    before = {address: answered(address) for address in servers.addresses()}
    answers = complete_many(gateway, port, model)
    assert {(answer.status, answer.json["model"]) for answer in answers} == {(200, model)}
    assert all(answered(address) > count for address, count in before.items())


def test_the_base_and_its_adapters_answer_differently_and_each_the_same_again(
    gateway: Instance, port: int
) -> None:
    def text(model: str) -> str:
        answer = gateway.complete(port, model, temperature=0, max_tokens=16)
        assert answer.status == 200, answer.body
        found: str = answer.json["choices"][0]["text"]
        return found

    texts = {model: text(model) for model in (MODEL, *ADAPTERS)}
    assert len(set(texts.values())) == 3, texts
    assert {model: text(model) for model in texts} == texts


def test_a_model_that_none_of_them_lists_is_a_json_404(gateway: Instance, port: int) -> None:
    answer = gateway.complete(port, "nobody")
    assert answer.status == 404
    assert "nobody" in answer.json["error"]["message"]


def test_status_shows_them_with_the_figures_of_their_own_metrics(
    gateway: Instance, servers: Cluster
) -> None:
    rows = eventually(lambda: [row for row in endpoints(gateway, "servers") if "running" in row])
    assert {f"http://{row['address']}" for row in rows if row["is_ready"]} == set(servers.urls())
    assert all((row["running"], row["waiting"], row["kv_cache"]) == (0, 0, 0) for row in rows)
