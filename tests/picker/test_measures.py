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
