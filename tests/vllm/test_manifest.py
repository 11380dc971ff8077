"""A manifest whose containers run real vLLM servers: `pointsman run --workloads process`."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.instances import Instance, eventually
from tests.vllm.servers import (
    ADAPTERS,
    CHAT,
    LISTENER,
    MODEL,
    PORT,
    REQUESTS,
    START_S,
    Cluster,
    answered,
    complete_many,
    endpoints,
    models,
)

SLOTS = 8
"""Requests that one server runs at a time."""


@contextmanager
def long_stream(gateway: Instance, tokens: int) -> Iterator[http.client.HTTPConnection]:
    """A stream whose client does not read, and leaves at the end of the context."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.ports[LISTENER], timeout=60)
    body = {"model": CHAT, "prompt": "Go on.", "max_tokens": tokens, "ignore_eos": True}
    with closing(connection):
        content = json.dumps({**body, "stream": True})
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", content, headers)
        yield connection


def test_each_server_listens_on_the_same_port_of_an_address_of_its_own(servers: Cluster) -> None:
    addresses = servers.addresses()
    assert len(set(addresses)) == 2
    assert all(address.startswith("127.") and address != "127.0.0.1" for address in addresses)
    rows = endpoints(servers.gateway, "vllm")
    assert sorted(row["address"] for row in rows) == sorted(f"{ip}:{PORT}" for ip in addresses)
    assert all(row["is_ready"] for row in rows)


def test_the_syncer_of_each_pod_has_loaded_the_adapter_that_vllm_was_not_started_with(
    servers: Cluster,
) -> None:
    for pod in servers.pods():
        assert models(pod["status"]["podIP"]) == {MODEL, *ADAPTERS}
        name = pod["metadata"]["name"]
        assert "loaded lora-b" in servers.gateway.cli("logs", name, "-c", "lora-syncer")


def test_a_split_model_is_answered_under_the_names_of_both_adapters(servers: Cluster) -> None:
    answers = complete_many(servers.gateway, LISTENER, CHAT)
    assert {answer.status for answer in answers} == {200}
    assert set(Counter(answer.json["model"] for answer in answers)) == set(ADAPTERS)


def test_both_servers_get_requests(servers: Cluster) -> None:
    before = {address: answered(address) for address in servers.addresses()}
    answers = complete_many(servers.gateway, LISTENER, CHAT)
    assert {answer.status for answer in answers} == {200}
    after = {address: answered(address) for address in before}
    assert all(after[address] > before[address] for address in before), (before, after)
    assert sum(after.values()) - sum(before.values()) == REQUESTS


def test_a_stream_comes_as_events_with_the_adapters_name_and_ends_with_done(
    servers: Cluster,
) -> None:
    more = {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    answer = servers.gateway.complete(LISTENER, CHAT, **more)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *events, last = [line for line in answer.body.decode().split("\n\n") if line]
    assert last == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["model"] for chunk in chunks} < set(ADAPTERS)
    assert chunks[-1]["usage"]["completion_tokens"] == 4


def test_the_official_client_streams_a_chat(servers: Cluster) -> None:
    url = f"http://127.0.0.1:{servers.gateway.ports[LISTENER]}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=12,
            stream=True,
        )
        chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")
    assert {chunk.model for chunk in chunks} < set(ADAPTERS)


def test_a_model_that_nobody_serves_is_a_json_404(servers: Cluster) -> None:
    answer = servers.gateway.complete(LISTENER, "nobody")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")


def test_what_vllm_refuses_comes_back_in_its_own_words(servers: Cluster) -> None:
    answer = servers.gateway.complete(LISTENER, CHAT, max_tokens=100_000)
    assert (answer.status, answer.json["error"]["type"]) == (400, "BadRequestError")


def test_status_shows_what_real_servers_run_queue_and_hold_until_the_clients_leave(
    servers: Cluster,
) -> None:
    gateway = servers.gateway
    with ExitStack() as clients:
        for _ in range(8 * SLOTS):
            clients.enter_context(long_stream(gateway, 2000))
        eventually(lambda: _loaded(endpoints(gateway, "vllm")), 60)
        assert "RUNNING" in gateway.cli("status")
    eventually(lambda: _idle(endpoints(gateway, "vllm")), 60)


def _loaded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows once both servers are full and hold requests back."""
    is_full = all(
        row.get("running") == SLOTS and row.get("waiting", 0) > 0 and row.get("kv_cache", 0) > 0
        for row in rows
    )
    return rows if is_full else []


def _idle(rows: list[dict[str, Any]]) -> bool:
    return all(
        (row.get("running"), row.get("waiting"), row["in_flight"]) == (0, 0, 0) for row in rows
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_a_server_has_ended_requests_go_on_and_it_serves_again_when_it_is_back(
    servers: Cluster, number: signal.Signals
) -> None:
    gateway = servers.gateway
    address = servers.addresses()[0]
    seen = itertools.count()

    def goes_on() -> None:
        answer = gateway.complete(LISTENER, CHAT, prompt=f"{next(seen)} went on")
        assert answer.status == 200, (answer.status, answer.body)

    def is_away() -> bool:
        goes_on()
        return address not in servers.ready()

    def is_back() -> bool:
        goes_on()
        return address in servers.ready() and models(address) == {MODEL, *ADAPTERS}

    pid = servers.server_pid(address)
    os.kill(pid, number)
    # A request that it has in its hands ends with it: nobody may send that a second time.
    eventually(lambda: not Path(f"/proc/{pid}").exists(), 30)
    eventually(is_away, 30)
    eventually(is_back, START_S)

    # While an adapter is in use it stays where it runs, so it is the base that spreads at once.
    def serves() -> bool:
        answers = complete_many(gateway, LISTENER, MODEL)
        assert {answer.status for answer in answers} == {200}
        return answered(address) > 0

    eventually(serves, 30)
