"""`/metrics` has the families of a real vLLM 0.32, with values from the engine."""

from __future__ import annotations

import re

import pytest

from pointsman.modelserver.histogram import Histogram, one_two_five
from tests.modelserver.conftest import Served, Serving, until

SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
BOTH = {"engine", "model_name"}

GAUGES: dict[str, set[str]] = {
    "vllm:num_requests_running": BOTH,
    "vllm:num_requests_waiting": BOTH,
    "vllm:num_requests_waiting_by_reason": BOTH | {"reason"},
    "vllm:engine_sleep_state": BOTH | {"sleep_state"},
    "vllm:kv_cache_usage_perc": BOTH,
}
COUNTERS: dict[str, set[str]] = {
    **dict.fromkeys(
        (
            "vllm:estimated_flops_per_gpu",
            "vllm:estimated_read_bytes_per_gpu",
            "vllm:estimated_write_bytes_per_gpu",
            "vllm:prefix_cache_queries",
            "vllm:prefix_cache_hits",
            "vllm:external_prefix_cache_queries",
            "vllm:external_prefix_cache_hits",
            "vllm:mm_cache_queries",
            "vllm:mm_cache_hits",
            "vllm:num_preemptions",
            "vllm:prompt_tokens",
            "vllm:prompt_tokens_cached",
            "vllm:generation_tokens",
        ),
        BOTH,
    ),
    "vllm:prompt_tokens_by_source": BOTH | {"source"},
    "vllm:prompt_tokens_cached_by_source": BOTH | {"source"},
    "vllm:request_success": BOTH | {"finished_reason"},
    "vllm:admission_rejections": {"model_name", "reason"},
}
HISTOGRAMS = (
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
    "vllm:iteration_tokens_total",
    "vllm:request_max_num_generation_tokens",
    "vllm:request_params_n",
    "vllm:request_params_max_tokens",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_inference_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:request_decode_time_seconds",
    "vllm:request_num_preemptions",
    "vllm:request_prefill_kv_computed_tokens",
)
PROCESS = {
    "python_gc_objects_collected_total": "counter",
    "python_gc_objects_uncollectable_total": "counter",
    "python_gc_collections_total": "counter",
    "python_info": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_cpu_seconds_total": "counter",
    "process_open_fds": "gauge",
    "process_max_fds": "gauge",
}
HTTP_IDLE = {
    "http_requests_total": "counter",
    "http_request_size_bytes": "summary",
    "http_response_size_bytes": "summary",
    "http_request_duration_highr_seconds": "histogram",
    "http_request_duration_highr_seconds_created": "gauge",
    "http_request_duration_seconds": "histogram",
}
HTTP_USED = {
    f"{name}_created": "gauge"
    for name in (
        "http_requests",
        "http_request_size_bytes",
        "http_response_size_bytes",
        "http_request_duration_seconds",
    )
}


def expected_types(*, used: bool) -> dict[str, str]:
    types = dict(PROCESS)
    types |= dict.fromkeys(GAUGES, "gauge")
    for name in COUNTERS:
        types |= {f"{name}_total": "counter", f"{name}_created": "gauge"}
    for name in HISTOGRAMS:
        types |= {name: "histogram", f"{name}_created": "gauge"}
    types |= {"vllm:lora_requests_info": "gauge", "vllm:cache_config_info": "gauge"}
    return types | HTTP_IDLE | (HTTP_USED if used else {})


class Exposition:
    """A parsed `/metrics` body."""

    def __init__(self, text: str) -> None:
        self.types: dict[str, str] = {}
        self.samples: list[tuple[str, dict[str, str], float]] = []
        helped = set()
        for line in text.splitlines():
            if line.startswith("# HELP "):
                helped.add(line.split()[2])
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                assert name in helped
                assert name not in self.types
                self.types[name] = kind
            else:
                match = SAMPLE.match(line)
                assert match is not None, line
                name, labels, value = match.groups()
                self.samples.append((name, dict(LABEL.findall(labels or "")), float(value)))

    def value(self, name: str, **labels: str) -> float:
        [found] = [
            value
            for sample, given, value in self.samples
            if sample == name and labels.items() <= given.items()
        ]
        return found

    def labels(self, name: str) -> set[frozenset[str]]:
        return {frozenset(given) for sample, given, _ in self.samples if sample == name}

    def bounds(self, name: str) -> list[str]:
        return [given["le"] for sample, given, _ in self.samples if sample == f"{name}_bucket"]


async def scrape(served: Served) -> Exposition:
    status, text = await served.get("/metrics")
    assert status == 200
    return Exposition(text)


@pytest.mark.parametrize("used", [False, True])
async def test_families_and_types_are_those_of_vllm(served: Served, used: bool) -> None:
    if used:
        await served.post("/v1/completions", {"prompt": "Hi"})
    assert (await scrape(served)).types == expected_types(used=used)


async def test_label_names_are_those_of_vllm(served: Served) -> None:
    found = await scrape(served)
    for name, labels in GAUGES.items():
        assert found.labels(name) == {frozenset(labels)}
    for name, labels in COUNTERS.items():
        assert found.labels(f"{name}_total") == {frozenset(labels)}
        assert found.labels(f"{name}_created") == {frozenset(labels)}
    for name in HISTOGRAMS:
        assert found.labels(f"{name}_bucket") == {frozenset(BOTH | {"le"})}
        assert found.labels(f"{name}_sum") == {frozenset(BOTH)}


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        (
            "vllm:time_to_first_token_seconds",
            ".001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 160 640 2560",
        ),
        (
            "vllm:inter_token_latency_seconds",
            ".01 .025 .05 .075 .1 .15 .2 .3 .4 .5 .75 1 2.5 5 7.5 10 20 40 80",
        ),
        (
            "vllm:e2e_request_latency_seconds",
            ".3 .5 .8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680",
        ),
        (
            "vllm:iteration_tokens_total",
            "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384",
        ),
        ("vllm:request_prompt_tokens", "1 2 5 10 20 50 100 200 500 1000 2000"),
        ("vllm:request_params_n", "1 2 5 10 20"),
        ("vllm:request_num_preemptions", "1 2 3 4 5 10 20"),
    ],
)
async def test_buckets_are_those_of_vllm(served: Served, name: str, bounds: str) -> None:
    expected = [repr(float(bound)) for bound in bounds.split()] + ["+Inf"]
    assert (await scrape(served)).bounds(name) == expected


async def test_label_values_are_those_of_vllm(served: Served) -> None:
    found = await scrape(served)

    def values(name: str, label: str) -> list[str]:
        return [given[label] for sample, given, _ in found.samples if sample == name]

    assert values("vllm:request_success_total", "finished_reason") == [
        "stop", "length", "abort", "error", "repetition",
    ]  # fmt: skip
    assert values("vllm:num_requests_waiting_by_reason", "reason") == ["capacity", "deferred"]
    info = next(given for name, given, _ in found.samples if name == "vllm:cache_config_info")
    assert (info["block_size"], info["num_gpu_blocks"]) == ("16", "1024")
    assert info["kv_cache_size_tokens"] == "16384"
    assert "model_name" not in info


async def test_values_come_from_the_engine(served: Served) -> None:
    prompt = list(range(64))
    for _ in range(2):
        await served.post(
            "/v1/completions", {"prompt": prompt, "max_tokens": 5, "ignore_eos": True}
        )
    found = await scrape(served)
    assert found.value("vllm:prompt_tokens_total") == 128
    assert found.value("vllm:generation_tokens_total") == 10
    assert found.value("vllm:prefix_cache_queries_total") == 128
    assert found.value("vllm:prefix_cache_hits_total") == 48
    assert found.value("vllm:prompt_tokens_by_source_total", source="local_compute") == 80
    assert found.value("vllm:request_success_total", finished_reason="length") == 2
    assert found.value("vllm:request_prompt_tokens_sum") == 128
    assert found.value("vllm:time_to_first_token_seconds_count") == 2
    assert found.value("vllm:inter_token_latency_seconds_count") == 8
    assert found.value("vllm:iteration_tokens_total_count") == 10
    assert found.value("vllm:iteration_tokens_total_sum") == 80 + 8
    assert found.value("vllm:num_requests_running") == 0
    assert found.value("http_requests_total", status="2xx") == 2


async def test_a_running_request_holds_blocks_and_is_counted(served: Served) -> None:
    body = {"prompt": list(range(160)), "max_tokens": 1800, "ignore_eos": True, "stream": True}
    async with served.client.post(served.url + "/v1/completions", json=body) as response:
        await response.content.readany()
        found = await scrape(served)
        assert found.value("vllm:num_requests_running") == 1
        # One block of the 1,024 is never used.
        assert found.value("vllm:kv_cache_usage_perc") * 1023 >= 10


async def test_an_aborted_request_is_no_success(served: Served) -> None:
    body = {"prompt": "Hi", "max_tokens": 1800, "ignore_eos": True, "stream": True}
    response = await served.client.post(served.url + "/v1/completions", json=body)
    await response.content.readany()
    response.close()
    await until(lambda: served.replica.driver.engine.is_idle)
    found = await scrape(served)
    assert found.value("vllm:request_success_total", finished_reason="abort") == 0
    assert found.value("vllm:num_requests_running") == 0


def lora_series(found: Exposition) -> list[tuple[str, str, float]]:
    return [
        (given["running_lora_adapters"], given["waiting_lora_adapters"], value)
        for name, given, value in found.samples
        if name == "vllm:lora_requests_info"
    ]


async def test_lora_info_has_no_sample_before_the_first_request(served: Served) -> None:
    assert lora_series(await scrape(served)) == []


async def test_lora_info_keeps_every_combination_and_the_newest_is_the_present(
    served: Served,
) -> None:
    for model in ("lora-a", "lora-b"):
        await served.post("/v1/completions", {"model": model, "prompt": "Hi"})
    series = lora_series(await scrape(served))
    assert {running for running, _, _ in series} == {"lora-a", "lora-b", ""}
    assert all(running == waiting for running, waiting, _ in series)
    assert max(series, key=lambda entry: entry[2])[0] == ""


async def test_a_server_without_lora_has_no_lora_family(serving: Serving) -> None:
    async with serving(has_lora=False, adapters=()) as served:
        assert "vllm:lora_requests_info" not in (await scrape(served)).types


def test_a_bound_belongs_to_the_bucket_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.cumulative() == [2, 4, 5]
    assert histogram.sum == 14.0


def test_token_buckets_grow_by_one_two_five() -> None:
    assert one_two_five(200) == (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
