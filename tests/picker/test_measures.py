"""Reading the metrics of model servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.picker.endpoints.measures import Measures, read_measures, series

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="base"} 8.0
vllm:num_requests_running{engine="1",model_name="base"} 2.0
vllm:num_requests_waiting{engine="0",model_name="base"} 16.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="base",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="base"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="base"} 0.75
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1.7e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a, b",waiting_lora_adapters="c"} 1.8e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="z",waiting_lora_adapters=""} 1.75e+09
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000",cache_dtype="auto"} 1.0
"""


def test_vllm() -> None:
    assert read_measures(VLLM, 5.0, 3) == Measures(
        at=5.0,
        waiting=16,
        running=10,
        kv_cache=0.5,
        running_adapters=frozenset("ab"),
        waiting_adapters=frozenset("c"),
        max_adapters=4,
        base_models=frozenset({"base"}),
        kv_cache_tokens=16_000,
        own_requests=3,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"vllm:num_requests_running 1\nvllm:gpu_cache_usage_perc 0.5\n", (None, 1, 0.5)),
        (b"sglang:num_queue_reqs 4\nsglang:token_usage 0.1\n", (4, None, 0.1)),
        (b'trtllm_num_requests_waiting{a="b"} 4', (4, None, None)),
        (b"vllm:num_requests_running NaN\nvllm:num_requests_waiting 2", (2, None, None)),
        (b"vllm:kv_cache_usage_perc 7\n", (None, None, 1.0)),
        (b"vllm:num_requests_waiting -5\n", (0, None, None)),
    ],
)
def test_other_names_and_odd_values(
    text: bytes, expected: tuple[int | None, int | None, float | None]
) -> None:
    found = read_measures(text, 0.0)
    assert found is not None
    assert (found.waiting, found.running, found.kv_cache) == expected


TRITON = b"""\
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="a",version="1"} 77
nv_trt_llm_request_metrics{model="a",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="b",request_type="waiting",version="1"} 4
nv_trt_llm_request_metrics{model="a",request_type="scheduled",version="1"} 8
nv_trt_llm_request_metrics{model="a",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="a",version="1"} 0.5
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="b",version="1"} 0.75
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="a",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="a",version="1"} 6239
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="b",version="1"} 32
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="b",version="1"} 10
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TRITON, (7, 8, 0.625, 64 * 6239 + 320)),
        (b'nv_inference_pending_request_count{model="a"} 2\nnv_inference_exec_count 9', (2, None)),
        (b"tgi_queue_size 7\ntgi_batch_current_size 4\n", (7, 4, None, None)),
        (b"llamacpp:requests_processing 4\nllamacpp:requests_deferred 8\n", (8, 4, None, None)),
        (
            b"trtllm_num_requests_running 2\ntrtllm_kv_cache_utilization 0.5\n"
            b"trtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 100\n",
            (None, 2, 0.5, 3200),
        ),
        (
            b"trtllm_num_requests_running 2\ntrtllm_kv_cache_tokens_per_block NaN\n"
            b"trtllm_kv_cache_max_blocks 1e300\n",
            (None, 2, None, None),
        ),
    ],
)
def test_other_servers(text: bytes, expected: tuple[float | None, ...]) -> None:
    found = read_measures(text, 0.0)
    assert found is not None
    read = (found.waiting, found.running, found.kv_cache, found.kv_cache_tokens)
    assert read[: len(expected)] == expected


def test_engines_in_one_server_are_added_up_and_their_cache_shares_averaged() -> None:
    one = (
        "sglang:num_queue_reqs{%s} 1\nsglang:num_running_reqs{%s} 2\nsglang:token_usage{%s} 0.%d\n"
    )
    text = "".join(one % (*(f'dp_rank="{rank}"',) * 3, rank) for rank in (2, 4, 6))
    found = read_measures(text.encode(), 0.0)
    assert found is not None
    assert (found.waiting, found.running) == (3, 6)
    assert found.kv_cache == pytest.approx(0.4)


def test_a_text_without_any_known_name_says_nothing() -> None:
    assert read_measures(b"up 1\n# vllm:num_requests_waiting 3\n", 0.0) is None


def test_cache_size_prefers_tokens() -> None:
    text = (
        b"vllm:num_requests_waiting 1\n"
        b'vllm:cache_config_info{block_size="16",num_gpu_blocks="None",'
        b'kv_cache_size_tokens="4194304"} 1\n'
    )
    found = read_measures(text, 0.0)
    assert found is not None
    assert found.kv_cache_tokens == 4_194_304


def test_labels_are_unescaped() -> None:
    (found,) = series(b'x{a="1\\"2\\n",b="}"} 3', b"x")
    assert (found.label(b"a"), found.label(b"b"), found.value) == ('1"2\n', "}", 3.0)


LINES = st.lists(
    st.sampled_from(VLLM.split(b"\n"))
    | st.binary(max_size=30).map(lambda tail: b"vllm:num_requests_waiting" + tail)
    | st.binary(max_size=30).map(lambda tail: b"vllm:lora_requests_info{" + tail)
    | st.binary(max_size=30),
    max_size=12,
)


@given(LINES)
def test_no_text_breaks_it(lines: list[bytes]) -> None:
    found = read_measures(b"\n".join(lines), 0.0)
    if found is not None and found.kv_cache is not None:
        assert 0 <= found.kv_cache <= 1
