"""The names under which model servers report their load.

Source: the metrics pages of vLLM, SGLang, TensorRT-LLM, Text Generation Inference, llama.cpp and
Triton. Several names of one fact are the generations of one server; the first that is found counts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, or those of its series whose label has a value."""

    name: str
    label: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The metric names of one kind of model server. Series of several engines are added up.

    What a server does not report has no name here, and stays unknown.
    """

    engine: str
    waiting: tuple[Metric, ...]
    """Requests that wait for a slot."""
    running: tuple[Metric, ...] = ()
    """Requests in the batch."""
    kv_cache: tuple[Metric, ...] = ()
    """Share of the KV cache in use, 0 to 1."""
    lora: str | None = None
    """The adapters, in labels; its value is the time of the state."""
    cache_config: str | None = None
    """The size of the KV cache, in labels."""
    block_tokens: Metric | None = None
    """Tokens of one block of the KV cache, as a value."""
    blocks: Metric | None = None
    """Blocks of the KV cache, as a value."""


_TRITON_REQUESTS = "nv_trt_llm_request_metrics"
_TRITON_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"

ENGINES = (
    EngineMetrics(
        engine="vllm",
        waiting=(Metric("vllm:num_requests_waiting"),),
        running=(Metric("vllm:num_requests_running"),),
        kv_cache=(Metric("vllm:kv_cache_usage_perc"), Metric("vllm:gpu_cache_usage_perc")),
        lora="vllm:lora_requests_info",
        cache_config="vllm:cache_config_info",
    ),
    EngineMetrics(
        engine="sglang",
        waiting=(Metric("sglang:num_queue_reqs"),),
        running=(Metric("sglang:num_running_reqs"),),
        kv_cache=(Metric("sglang:token_usage"),),
        cache_config="sglang:cache_config_info",
    ),
    EngineMetrics(
        engine="trtllm-serve",
        waiting=(Metric("trtllm_num_requests_waiting"),),
        running=(Metric("trtllm_num_requests_running"),),
        kv_cache=(Metric("trtllm_kv_cache_utilization"),),
        block_tokens=Metric("trtllm_kv_cache_tokens_per_block"),
        blocks=Metric("trtllm_kv_cache_max_blocks"),
    ),
    EngineMetrics(
        engine="triton-tensorrt-llm",
        waiting=(Metric(_TRITON_REQUESTS, "request_type", "waiting"),),
        running=(Metric(_TRITON_REQUESTS, "request_type", "scheduled"),),
        kv_cache=(Metric(_TRITON_BLOCKS, "kv_cache_block_type", "fraction"),),
        block_tokens=Metric(_TRITON_BLOCKS, "kv_cache_block_type", "tokens_per"),
        blocks=Metric(_TRITON_BLOCKS, "kv_cache_block_type", "max"),
    ),
    EngineMetrics(
        engine="tgi",
        waiting=(Metric("tgi_queue_size"),),
        running=(Metric("tgi_batch_current_size"),),
    ),
    EngineMetrics(
        engine="llama.cpp",
        waiting=(Metric("llamacpp:requests_deferred"),),
        running=(Metric("llamacpp:requests_processing"),),
    ),
    EngineMetrics(
        # Last: behind TensorRT-LLM it reports these beside the better ones. What it has for running
        # requests (`nv_inference_exec_count`) only grows, and so says nothing of now.
        engine="triton",
        waiting=(Metric("nv_inference_pending_request_count"),),
    ),
)
"""In the order in which they are looked for; the first of which anything is found counts."""
