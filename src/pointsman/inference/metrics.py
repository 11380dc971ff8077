"""The names under which model servers report their load.

Source: the metrics pages of vLLM, SGLang and TensorRT-LLM. Several names of one fact are the
generations of one server; the first that is found counts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The metric names of one kind of model server. Series of several engines are added up."""

    engine: str
    waiting: tuple[str, ...]
    """Requests that wait for a slot."""
    running: tuple[str, ...]
    """Requests in the batch."""
    kv_cache: tuple[str, ...]
    """Share of the KV cache in use, 0 to 1."""
    lora: str | None = None
    """The adapters, in labels; its value is the time of the state."""
    cache_config: str | None = None
    """The size of the KV cache, in labels."""


ENGINES = (
    EngineMetrics(
        engine="vllm",
        waiting=("vllm:num_requests_waiting",),
        running=("vllm:num_requests_running",),
        kv_cache=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        lora="vllm:lora_requests_info",
        cache_config="vllm:cache_config_info",
    ),
    EngineMetrics(
        engine="sglang",
        waiting=("sglang:num_queue_reqs",),
        running=("sglang:num_running_reqs",),
        kv_cache=("sglang:token_usage",),
        cache_config="sglang:cache_config_info",
    ),
    EngineMetrics(
        engine="trtllm-serve",
        waiting=("trtllm_num_requests_waiting",),
        running=("trtllm_num_requests_running",),
        kv_cache=("trtllm_kv_cache_utilization",),
    ),
)
