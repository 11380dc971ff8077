"""The picker over real gRPC."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2 as modes
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.process import Picker
from pointsman.picker.settings.options import Options
from pointsman.store import Store
from tests.picker.conftest import Objects, Running, model, pod, pool, until

Mode = modes.ProcessingMode


def headers(
    *, path: str = "/v1/chat/completions", end: bool = False, mode: int = Mode.BUFFERED, **more: str
) -> pb.ProcessingRequest:
    message = pb.ProcessingRequest()
    http = message.request_headers
    http.end_of_stream = end
    for name, value in {":path": path, ":method": "GET" if end else "POST", **more}.items():
        http.headers.headers.add(key=name.replace("_", "-"), raw_value=value.encode())
    message.protocol_config.request_body_mode = mode
    return message


def body(data: bytes, *, end: bool = True) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=end))


def chat(name: str = "m") -> bytes:
    return json.dumps({"model": name, "messages": [{"role": "user", "content": "hello"}]}).encode()


def mutations(common: Any) -> dict[str, str]:
    return {
        option.header.key: option.header.raw_value.decode()
        for option in common.header_mutation.set_headers
    }


def destination_metadata(answer: pb.ProcessingResponse) -> str:
    fields = answer.dynamic_metadata.fields["envoy.lb"].struct_value.fields
    value: str = fields["x-gateway-destination-endpoint"].string_value
    return value


async def test_a_buffered_request_is_picked_at_its_body_with_a_list_of_fallbacks(
    running: Running,
) -> None:
    stream = running.stream()
    await stream.write(headers())
    assert (await stream.read()).WhichOneof("response") == "request_headers"
    await stream.write(body(chat()))
    answer = await stream.read()
    common = answer.request_body.response
    endpoints = mutations(common)["x-gateway-destination-endpoint"].split(",")
    assert sorted(endpoints) == ["127.0.0.1:8000", "127.0.0.2:8000", "127.0.0.3:8000"]
    assert destination_metadata(answer) == ",".join(endpoints)
    assert not common.HasField("body_mutation")


async def test_load_is_reserved_at_the_pick_and_released_at_the_end_of_the_stream(
    running: Running,
) -> None:
    table = running.picker.table
    stream = running.stream()
    await stream.write(headers())
    await stream.read()
    await stream.write(body(chat()))
    await stream.read()
    assert sum(endpoint.requests for endpoint in table) == 1
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert (await stream.code()) is grpc.StatusCode.OK
    assert sum(endpoint.requests for endpoint in table) == 0


async def test_load_is_released_when_the_client_cancels(running: Running) -> None:
    table = running.picker.table
    stream = running.stream()
    await stream.write(headers())
    await stream.read()
    await stream.write(body(chat()))
    await stream.read()
    stream.cancel()
    await until(lambda: sum(endpoint.requests for endpoint in table) == 0)
    assert running.picker.ext_proc.open_streams == 0


async def test_thirty_requests_at_once_are_spread_evenly(running: Running) -> None:
    streams = []
    for _ in range(30):
        stream = running.stream()
        await stream.write(headers())
        await stream.read()
        await stream.write(body(chat()))
        await stream.read()
        streams.append(stream)
    assert [endpoint.requests for endpoint in running.picker.table] == [10, 10, 10]
    for stream in streams:
        stream.cancel()


async def test_full_duplex_answers_after_the_body_and_echoes_it_in_chunks(running: Running) -> None:
    running.store.apply([model("m", targets=[("m-lora", None)])])
    await until(lambda: running.picker.pools.all()[0].models)
    data = json.dumps({"model": "m", "prompt": "x" * 200_000}).encode()
    stream = running.stream(None if running.picker.default_pool else "default/pool")
    await stream.write(headers(mode=Mode.FULL_DUPLEX_STREAMED))
    for start in range(0, len(data), 50_000):
        await stream.write(body(data[start : start + 50_000], end=start + 50_000 >= len(data)))
    answer = await stream.read()
    changed = mutations(answer.request_headers.response)
    expected = data.replace(b'"m"', b'"m-lora"', 1)
    assert changed["content-length"] == str(len(expected))
    echoed, is_end = b"", False
    while not is_end:
        part = (await stream.read()).request_body.response.body_mutation.streamed_response
        assert len(part.body) <= 62_000
        echoed += part.body
        is_end = part.end_of_stream
    assert echoed == expected


async def test_errors_are_json_in_the_manner_of_the_api(running: Running) -> None:
    running.store.apply([model("known")])
    await until(lambda: running.picker.pools.all()[0].models)
    cases = [
        (b"{", 400, "invalid_json"),
        (b'{"messages": []}', 400, "missing_model"),
        (chat("unknown"), 404, "model_not_found"),
    ]
    for data, status, code in cases:
        stream = running.stream()
        await stream.write(headers())
        await stream.read()
        await stream.write(body(data))
        answer = (await stream.read()).immediate_response
        assert answer.status.code == status
        assert json.loads(answer.body)["error"]["code"] == code


async def test_a_pool_that_nobody_knows_is_a_503(running: Running) -> None:
    stream = running.stream("default/other")
    await stream.write(headers(end=True))
    assert (await stream.read()).immediate_response.status.code == 503


async def test_a_stream_out_of_order_ends_with_a_status_and_hurts_nobody(running: Running) -> None:
    bad = running.stream()
    await bad.write(body(b"{}"))
    with pytest.raises(grpc.aio.AioRpcError, match="a request body in state new"):
        await bad.read()
    assert (await bad.code()) is grpc.StatusCode.INVALID_ARGUMENT
    good = running.stream()
    await good.write(headers(end=True, path="/v1/models"))
    assert (await good.read()).WhichOneof("response") == "request_headers"


async def test_a_long_prompt_comes_back_to_the_server_that_has_read_it(running: Running) -> None:
    chosen: dict[str, set[str]] = {"a": set(), "b": set(), "c": set()}
    for _ in range(5):
        for text, servers in chosen.items():
            data = json.dumps({"model": "m", "prompt": text * 4_000}).encode()
            stream = running.stream()
            await stream.write(headers(path="/v1/completions"))
            await stream.read()
            await stream.write(body(data))
            answer = await stream.read()
            servers.add(destination_metadata(answer).partition(",")[0])
            stream.cancel()
            await until(lambda: running.picker.ext_proc.open_streams == 0)
    assert [len(servers) for servers in chosen.values()] == [1, 1, 1]


async def test_a_server_that_comes_back_holds_nothing_any_more(running: Running) -> None:
    picker = running.picker
    stream = running.stream()
    await stream.write(headers(path="/v1/completions"))
    await stream.read()
    await stream.write(body(json.dumps({"model": "m", "prompt": "x" * 4_000}).encode()))
    await stream.read()
    assert picker.prefixes.blocks > 0
    running.store.apply([], [pod(f"p{i}", "127.0.0.1").ref for i in range(3)])
    await until(lambda: len(picker.table) == 0)
    assert picker.prefixes.blocks == 0
    stream.cancel()


async def test_the_models_of_a_pool_are_listed(running: Running) -> None:
    running.store.apply([model("served")])
    await until(lambda: running.picker.pools.all()[0].models)
    stream = running.stream()
    await stream.write(headers(end=True, path="/v1/models"))
    answer = (await stream.read()).immediate_response
    assert answer.status.code == 200
    assert [item["id"] for item in json.loads(answer.body)["data"]] == ["served"]


async def test_a_changed_configuration_is_taken_up_and_a_wrong_one_is_not(folder: Path) -> None:
    head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    path = folder / "config.yaml"
    path.write_text(head + "plugins: [{type: queue-scorer}]")
    store = Store()
    store.apply([pool()])
    picker = Picker(Options(listen=(f"unix:{folder}/p",), config_file=path), store, Objects(store))

    def scorers() -> list[str]:
        return [scorer.name for scorer in picker.director.config.profiles["default"].scorers]

    async with picker.running():
        assert scorers() == ["queue-scorer"]
        path.write_text(head + "plugins: [{type: quue-scorer}]")
        await until(lambda: picker.config_source.errors == 1)
        assert scorers() == ["queue-scorer"]
        path.write_text(head + "plugins: [{type: token-load-scorer}]")
        await until(lambda: scorers() == ["token-load-scorer"])


async def test_a_request_whose_end_is_not_seen_counts_until_the_metrics_show_it(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointsman.picker.extproc import service

    monkeypatch.setattr(service, "LINGER_S", 0.05)
    monkeypatch.setattr(running.picker.ext_proc, "_default_pool", "default/pool")
    stream = running.stream(None)
    await stream.write(headers(end=True, path="/health"))
    await stream.read()
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert sum(endpoint.requests for endpoint in running.picker.table) == 1
    await until(lambda: sum(endpoint.requests for endpoint in running.picker.table) == 0)


async def test_unfinished_bodies_are_bounded_over_all_streams(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointsman.picker.extproc import service

    monkeypatch.setattr(service, "MAX_HELD_BYTES", 100_000)
    first = running.stream()
    await first.write(headers(mode=Mode.FULL_DUPLEX_STREAMED))
    await first.write(body(b"x" * 90_000, end=False))
    await until(lambda: running.picker.ext_proc.held_bytes == 90_000)
    second = running.stream()
    await second.write(headers(mode=Mode.FULL_DUPLEX_STREAMED))
    await second.write(body(b"x" * 20_000, end=False))
    assert (await second.read()).immediate_response.status.code == 503
    first.cancel()
    await until(lambda: running.picker.ext_proc.held_bytes == 0)


async def test_a_body_above_the_limit_is_a_413(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointsman.picker.extproc import machine

    monkeypatch.setattr(machine, "MAX_BODY_BYTES", 1_000)
    stream = running.stream()
    await stream.write(headers(mode=Mode.FULL_DUPLEX_STREAMED))
    await stream.write(body(b"x" * 2_000, end=False))
    answer = (await stream.read()).immediate_response
    assert answer.status.code == 413
    assert json.loads(answer.body)["error"]["code"] == "body_too_large"


async def refusal(running: Running, name: str) -> Any:
    stream = running.stream()
    await stream.write(headers())
    await stream.read()
    await stream.write(body(chat(name)))
    answer = await stream.read()
    stream.cancel()
    return answer.immediate_response if answer.HasField("immediate_response") else None


async def test_a_saturated_pool_sheds_what_is_not_critical(running: Running) -> None:
    running.store.apply(
        [
            model("high", "Critical"),
            model("mid"),
            model("std", "Standard"),
            model("low", "Sheddable"),
        ]
    )
    await until(lambda: running.picker.pools.all()[0].models)
    running.picker.scraper.change([], list(running.picker.table))
    for waiting, shed in ((4, []), (5, ["mid", "std", "low"])):
        for endpoint in running.picker.table:
            endpoint.measures = Measures(time.monotonic(), waiting=waiting)
        refused = {name: await refusal(running, name) for name in ("high", "mid", "std", "low")}
        assert [name for name, answer in refused.items() if answer is not None] == shed
    answer = refused["low"]
    assert answer.status.code == 429
    sent = {option.header.key: option.header.raw_value for option in answer.headers.set_headers}
    assert sent["retry-after"] == b"1"
    assert json.loads(answer.body)["error"]["type"] == "rate_limit_error"


async def test_a_saturated_pool_without_models_turns_nobody_away(running: Running) -> None:
    running.picker.scraper.change([], list(running.picker.table))
    for endpoint in running.picker.table:
        endpoint.measures = Measures(time.monotonic(), waiting=50)
    assert await refusal(running, "any") is None


async def test_a_pool_without_ready_pods_is_a_503(running: Running) -> None:
    running.store.apply([pod(f"p{i}", f"127.0.0.{i + 1}", ready=False) for i in range(3)])
    await until(lambda: len(running.picker.table) == 0)
    answer = await refusal(running, "m")
    assert answer.status.code == 503
    assert json.loads(answer.body)["error"]["code"] == "no_endpoint"


async def picked_within(running: Running, hint: Any) -> list[str] | int:
    """The endpoints of a pick under a subset hint, or the status of the refusal."""
    message = headers(end=True, path="/x")
    fields = message.metadata_context.filter_metadata["envoy.lb.subset_hint"]
    fields["x-gateway-destination-endpoint-subset"] = hint
    stream = running.stream()
    await stream.write(message)
    answer = await stream.read()
    stream.cancel()
    if answer.HasField("immediate_response"):
        return int(answer.immediate_response.status.code)
    return sorted(destination_metadata(answer).split(","))


async def test_a_subset_hint_narrows_the_choice_by_address_and_port(running: Running) -> None:
    one, two = "127.0.0.1:8000", "127.0.0.2:8000"
    assert await picked_within(running, [one]) == [one]
    assert await picked_within(running, [one, two, "127.0.0.3:9"]) == [one, two]
    assert await picked_within(running, f"{one}, {two}") == [one, two]
    assert await picked_within(running, ["127.0.0.1:9"]) == 503
    assert await picked_within(running, []) == 503


async def test_load_goes_with_a_request_to_the_server_that_answers(running: Running) -> None:
    stream = running.stream()
    await stream.write(headers())
    await stream.read()
    await stream.write(body(chat()))
    first, second, _ = mutations((await stream.read()).request_body.response)[
        "x-gateway-destination-endpoint"
    ].split(",")
    load = {endpoint.address: endpoint for endpoint in running.picker.table}
    assert (load[first].requests, load[second].requests) == (1, 0)
    response = pb.ProcessingRequest(response_headers=pb.HttpHeaders())
    fields = response.metadata_context.filter_metadata["envoy.lb"]
    fields["x-gateway-destination-endpoint-served"] = second
    await stream.write(response)
    await stream.read()
    assert (load[first].requests, load[second].requests) == (0, 1)
    await stream.done_writing()
    await stream.read()
    assert sum(endpoint.requests for endpoint in running.picker.table) == 0


async def test_a_subset_hint_can_be_switched_off(running: Running) -> None:
    running.picker.director._ignores_subset = True
    found = await picked_within(running, ["127.0.0.1:8000"])
    assert isinstance(found, list)
    assert len(found) == 3


async def test_what_clients_say_to_the_picker_goes_no_further(running: Running) -> None:
    stream = running.stream()
    message = headers(end=True, path="/x", x_gateway_inference_objective="high")
    message.request_headers.headers.headers.add(
        key="x-gateway-destination-endpoint", raw_value=b"h"
    )
    await stream.write(message)
    answer = await stream.read()
    stream.cancel()
    mutation = answer.request_headers.response.header_mutation
    assert list(mutation.remove_headers) == ["x-gateway-inference-objective"]
    assert "h" not in mutations(answer.request_headers.response).values()


async def test_decisions_are_followed_live(running: Running) -> None:
    path = running.picker.options.admin_socket
    assert path is not None
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://a/decisions", params={"follow": "1", "model": "mine"}) as response,
    ):
        for name in ("other", "mine"):
            assert await refusal(running, name) is None
        decision = json.loads(await asyncio.wait_for(response.content.readline(), 5))
        assert (decision["model"], len(decision["candidates"])) == ("mine", 3)
        assert set(decision["totals"]) == set(decision["endpoints"])
        assert len(running.picker.director.ring.followers) == 1
    await until(lambda: not running.picker.director.ring.followers)
