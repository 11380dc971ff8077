"""Metrics under the field's names, once each, with bounded labels."""

from __future__ import annotations

import re
from collections import Counter as Tally

from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.report import MAX_LABEL_SETS, Counter, Report
from tests.picker.conftest import Running
from tests.picker.test_process import body, chat, headers

FIELD = {
    "gen_ai_client_token_usage",
    "gen_ai_server_time_to_first_token_seconds",
    "inference_extension_info",
    "inference_extension_prefix_indexer_hit_ratio",
    "inference_extension_prefix_indexer_size",
    "inference_extension_scheduler_attempts_total",
    "inference_extension_scheduler_e2e_duration_seconds",
    "inference_objective_input_tokens",
    "inference_objective_request_duration_seconds",
    "inference_objective_request_error_total",
    "inference_objective_request_sizes",
    "inference_objective_request_total",
    "inference_objective_running_requests",
    "inference_pool_average_kv_cache_utilization",
    "inference_pool_average_queue_size",
    "inference_pool_average_running_requests",
    "inference_pool_per_pod_queue_size",
    "inference_pool_ready_pods",
}


async def ask(running: Running, model: str, prompt: str = "") -> None:
    stream = running.stream()
    await stream.write(headers())
    await stream.read()
    data = chat(model) if not prompt else chat(model).replace(b"hello", prompt.encode())
    await stream.write(body(data))
    await stream.read()
    await stream.done_writing()
    await stream.read()


async def test_every_name_of_the_field_is_there_once(running: Running) -> None:
    for endpoint in running.picker.table:
        endpoint.measures = Measures(0.0, waiting=2, running=4, kv_cache=0.5)
    for _ in range(2):
        await ask(running, "m", "x" * 4_000)
    text = running.picker.report.text(running.picker.pools, running.picker.prefixes.blocks)
    named = Tally(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert set(named.values()) == {1}
    assert {name for name in named if not name.startswith("pointsman_")} == FIELD
    for line in (
        'inference_objective_request_total{model_name="m",target_model_name="m"} 2',
        'inference_pool_average_running_requests{name="pool"} 4',
        'inference_pool_per_pod_queue_size{name="pool",model_server_pod="p1-rank-0"} 2',
        'inference_extension_prefix_indexer_hit_ratio_bucket{le="0"} 1',
        "inference_extension_prefix_indexer_hit_ratio_count 2",
    ):
        assert line in text.splitlines()
    assert re.search(r"^inference_extension_prefix_indexer_size [1-9]", text, re.MULTILINE)
    picked = r'attempts_total{status="success",target_model_name="m",pod_name="p\d",namespace='
    assert re.search(picked, text)


async def test_a_model_that_nobody_serves_fills_no_labels(running: Running) -> None:
    await ask(running, "m")
    running.picker.report.errors.add(("m", "m", "x"))
    before = len(running.picker.report.requests.values)
    for number in range(3):
        stream = running.stream("default/unknown")
        await stream.write(headers(end=True, path=f"/{number}"))
        await stream.read()
    assert len(running.picker.report.requests.values) == before + 1


def test_labels_beyond_the_bound_are_counted_together() -> None:
    counter = Counter("c", "Text.", ("a",))
    for number in range(MAX_LABEL_SETS + 50):
        counter.add((str(number),))
    assert len(counter.values) == MAX_LABEL_SETS + 1
    assert counter.values[("other",)] == 50


def test_the_time_to_the_first_token_is_told() -> None:
    report = Report()
    report.first_byte(("m", "t"), 0.3)
    lines = list(report.first_tokens.lines())
    assert lines[-1].endswith('{gen_ai_request_model="m",gen_ai_response_model="t"} 1')
