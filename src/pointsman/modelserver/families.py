"""The metric families of vLLM 0.32: names, types, what they mean, label names, buckets.

Names, types, labels and buckets are those that a running vLLM shows, since routers and dashboards
read them; the descriptions are ours. A counter's name here is without `_total`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TTFT_BOUNDS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
TOKEN_GAP_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
)  # fmt: skip
PHASE_BOUNDS_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
ITERATION_BOUNDS = tuple(float(n) for n in (1, 8, *(2**k for k in range(4, 15))))
CHOICE_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0)
PREEMPTION_BOUNDS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
TOKEN_BOUNDS: tuple[float, ...] = ()
"""Stands for 1, 2, 5, 10 ... up to the longest sequence that the server accepts."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A gauge or a counter; `values` are the values of its one extra label, if it has one."""

    name: str
    kind: str
    help: str
    label: str = ""
    values: tuple[str, ...] = field(default=("",))
    has_engine_label: bool = True


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram of one label set."""

    name: str
    help: str
    bounds: tuple[float, ...]


SUCCESS_REASONS = ("stop", "length", "abort", "error", "repetition")
PROMPT_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
CACHE_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
REJECTION_REASONS = ("max_num_queued_reqs", "max_num_queued_tokens")

FAMILIES: tuple[Scalar | Distribution, ...] = (
    Scalar("vllm:estimated_flops_per_gpu", "counter", "Floating point operations (not modelled)."),
    Scalar("vllm:estimated_read_bytes_per_gpu", "counter", "Bytes read (not modelled)."),
    Scalar("vllm:estimated_write_bytes_per_gpu", "counter", "Bytes written (not modelled)."),
    Scalar("vllm:num_requests_running", "gauge", "Sequences in the running batch."),
    Scalar("vllm:num_requests_waiting", "gauge", "Sequences waiting for admission."),
    Scalar(
        "vllm:num_requests_waiting_by_reason",
        "gauge",
        "Waiting sequences by what they wait for: room (capacity) or an adapter slot (deferred).",
        "reason",
        ("capacity", "deferred"),
    ),
    Scalar(
        "vllm:engine_sleep_state",
        "gauge",
        "Whether the engine sleeps; the model never does.",
        "sleep_state",
        ("awake", "weights_offloaded", "discard_all"),
    ),
    Scalar("vllm:kv_cache_usage_perc", "gauge", "Share of KV blocks held by sequences, 0 to 1."),
    Scalar("vllm:prefix_cache_queries", "counter", "Prompt tokens looked up in the prefix cache."),
    Scalar("vllm:prefix_cache_hits", "counter", "Prompt tokens found in the prefix cache."),
    Scalar("vllm:external_prefix_cache_queries", "counter", "Tokens asked of other instances."),
    Scalar("vllm:external_prefix_cache_hits", "counter", "Tokens found at other instances."),
    Scalar("vllm:mm_cache_queries", "counter", "Media items looked up in their cache."),
    Scalar("vllm:mm_cache_hits", "counter", "Media items found in their cache."),
    Scalar("vllm:num_preemptions", "counter", "Sequences that lost their blocks to others."),
    Scalar("vllm:prompt_tokens", "counter", "Prompt tokens of admitted sequences."),
    Scalar(
        "vllm:prompt_tokens_by_source",
        "counter",
        "Prompt tokens by where their KV entries came from.",
        "source",
        PROMPT_SOURCES,
    ),
    Scalar("vllm:prompt_tokens_cached", "counter", "Prompt tokens that some cache held."),
    Scalar(
        "vllm:prompt_tokens_cached_by_source",
        "counter",
        "Cached prompt tokens by the tier that held them.",
        "source",
        CACHE_TIERS,
    ),
    Scalar("vllm:generation_tokens", "counter", "Tokens generated."),
    Scalar(
        "vllm:request_success",
        "counter",
        "Sequences that ended, by the reason.",
        "finished_reason",
        SUCCESS_REASONS,
    ),
    Scalar(
        "vllm:admission_rejections",
        "counter",
        "Requests refused by a queue limit.",
        "reason",
        REJECTION_REASONS,
        has_engine_label=False,
    ),
    Distribution("vllm:request_prompt_tokens", "Prompt tokens per sequence.", TOKEN_BOUNDS),
    Distribution("vllm:request_generation_tokens", "Tokens generated per sequence.", TOKEN_BOUNDS),
    Distribution("vllm:iteration_tokens_total", "Tokens per engine step.", ITERATION_BOUNDS),
    Distribution(
        "vllm:request_max_num_generation_tokens", "Most tokens a request allowed.", TOKEN_BOUNDS
    ),
    Distribution("vllm:request_params_n", "Choices asked for.", CHOICE_BOUNDS),
    Distribution("vllm:request_params_max_tokens", "The max_tokens parameter.", TOKEN_BOUNDS),
    Distribution("vllm:time_to_first_token_seconds", "Arrival to first token.", TTFT_BOUNDS_S),
    Distribution(
        "vllm:inter_token_latency_seconds", "Between tokens of a sequence.", TOKEN_GAP_BOUNDS_S
    ),
    Distribution(
        "vllm:request_time_per_output_token_seconds",
        "Mean time between the tokens of each sequence.",
        TOKEN_GAP_BOUNDS_S,
    ),
    Distribution("vllm:e2e_request_latency_seconds", "Arrival to end.", PHASE_BOUNDS_S),
    Distribution("vllm:request_queue_time_seconds", "Arrival to admission.", PHASE_BOUNDS_S),
    Distribution("vllm:request_inference_time_seconds", "Admission to end.", PHASE_BOUNDS_S),
    Distribution("vllm:request_prefill_time_seconds", "Admission to first token.", PHASE_BOUNDS_S),
    Distribution("vllm:request_decode_time_seconds", "First to last token.", PHASE_BOUNDS_S),
    Distribution("vllm:request_num_preemptions", "Preemptions per sequence.", PREEMPTION_BOUNDS),
    Distribution(
        "vllm:request_prefill_kv_computed_tokens",
        "Prompt tokens per sequence that no cache held.",
        TOKEN_BOUNDS,
    ),
)
"""In the order in which vLLM shows them."""

LORA_INFO = "vllm:lora_requests_info"
CACHE_INFO = "vllm:cache_config_info"
