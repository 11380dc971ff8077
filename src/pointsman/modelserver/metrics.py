"""What `/metrics` says about one engine, in vLLM's names and with vLLM's habits.

One habit deserves its own word. `vllm:lora_requests_info` has no sample until the first request;
then one series per combination of adapters ever seen in flight, in whatever order they came, whose
value is the unix time at which it was last true. The newest series is the present. Both label
lists always name the same adapters, since vLLM fills both from one set.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from pointsman.modelserver.engine import Capacity, Engine, Sequence, StepResult
from pointsman.modelserver.families import (
    CACHE_INFO,
    FAMILIES,
    LORA_INFO,
    REJECTION_REASONS,
    SUCCESS_REASONS,
    TOKEN_BOUNDS,
    Distribution,
    Scalar,
)
from pointsman.modelserver.histogram import Histogram, HistogramLines, labels_text, one_two_five

_REMEMBERED_COMBINATIONS = 1024
"""Series of `lora_requests_info` kept; vLLM keeps all of them for ever."""


class EngineMetrics:
    """Counts what happens in one engine and writes it in Prometheus' text format."""

    def __init__(self, engine: Engine, model_name: str, *, has_lora: bool) -> None:
        self._engine = engine
        self._has_lora = has_lora
        self._created_s = time.time()
        self._success: dict[str, int] = {}
        self._rejections: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}
        self._lora_seen: OrderedDict[str, float] = OrderedDict()
        labels = {"engine": "0", "model_name": model_name}
        self._lines: dict[str, HistogramLines] = {}
        for family in FAMILIES:
            if isinstance(family, Distribution):
                bounds = family.bounds
                if bounds is TOKEN_BOUNDS:
                    bounds = one_two_five(engine.capacity.max_model_len)
                self._lines[family.name] = HistogramLines(family.name, labels, bounds)
        self._heads = {
            family.name: _sample_heads(family, labels)
            for family in FAMILIES
            if isinstance(family, Scalar)
        }
        self._created = labels_text(labels)
        self._cache_info = _cache_info_line(engine.capacity)
        self._bind_histograms()

    def _bind_histograms(self) -> None:
        def bound(name: str) -> Histogram:
            return self._lines[f"vllm:{name}"].histogram

        self._iteration = bound("iteration_tokens_total")
        self._ttft = bound("time_to_first_token_seconds")
        self._gap = bound("inter_token_latency_seconds")
        self._tpot = bound("request_time_per_output_token_seconds")
        self._e2e = bound("e2e_request_latency_seconds")
        self._queue = bound("request_queue_time_seconds")
        self._inference = bound("request_inference_time_seconds")
        self._prefill = bound("request_prefill_time_seconds")
        self._decode = bound("request_decode_time_seconds")
        self._prompt = bound("request_prompt_tokens")
        self._generation = bound("request_generation_tokens")
        self._allowed = bound("request_max_num_generation_tokens")
        self._choices = bound("request_params_n")
        self._max_tokens = bound("request_params_max_tokens")
        self._preemptions = bound("request_num_preemptions")
        self._kv_computed = bound("request_prefill_kv_computed_tokens")

    def submitted(self, sequence: Sequence, choices: int) -> None:
        """A sequence was accepted; `choices` is the `n` of its request."""
        self._choices.observe(choices)
        if sequence.allowed_tokens:
            self._max_tokens.observe(sequence.allowed_tokens)
        if sequence.adapter is not None:
            self._in_flight[sequence.adapter] = self._in_flight.get(sequence.adapter, 0) + 1

    def rejected(self, reason: str) -> None:
        """A queue limit refused a request."""
        self._rejections[reason] = self._rejections.get(reason, 0) + 1

    def stepped(self, result: StepResult) -> None:
        """A step has ended."""
        self._iteration.observe(result.batch.tokens)
        for sequence in result.first:
            self._ttft.observe(result.end_s - sequence.arrival_s)
        for gap_s, count in result.gaps.items():
            self._gap.observe(gap_s, count)
        if self._has_lora:
            self._note_adapters()

    def ended(self, sequence: Sequence) -> None:
        """A sequence has ended. Aborted ones are not counted among the successes, as in vLLM."""
        if sequence.adapter is not None:
            left = self._in_flight.get(sequence.adapter, 1) - 1
            if left > 0:
                self._in_flight[sequence.adapter] = left
            else:
                self._in_flight.pop(sequence.adapter, None)
            self._note_adapters()
        reason = sequence.finish_reason
        if reason == "abort":
            return
        self._success[reason] = self._success.get(reason, 0) + 1
        self._observe_lengths(sequence)
        self._observe_times(sequence)

    def _observe_lengths(self, sequence: Sequence) -> None:
        prompt_tokens = len(sequence.prompt)
        self._prompt.observe(prompt_tokens)
        self._generation.observe(sequence.generated)
        self._allowed.observe(sequence.allowed_tokens or sequence.generated)
        self._preemptions.observe(sequence.preemptions)
        self._kv_computed.observe(prompt_tokens - sequence.cached_tokens)

    def _observe_times(self, sequence: Sequence) -> None:
        end_s = sequence.finished_s or 0.0
        admitted_s = sequence.first_scheduled_s or 0.0
        first_s = end_s if sequence.first_token_s is None else sequence.first_token_s
        self._e2e.observe(end_s - sequence.arrival_s)
        self._queue.observe(admitted_s - sequence.queued_s)
        self._inference.observe(end_s - admitted_s)
        self._prefill.observe(first_s - admitted_s)
        self._decode.observe(end_s - first_s)
        self._tpot.observe((end_s - first_s) / max(1, sequence.generated - 1))

    def _note_adapters(self) -> None:
        names = ",".join(self._in_flight)
        self._lora_seen[names] = time.time()
        if len(self._lora_seen) > _REMEMBERED_COMBINATIONS:
            oldest = min(self._lora_seen, key=self._lora_seen.__getitem__)
            del self._lora_seen[oldest]

    def _values(self) -> dict[str, tuple[float, ...]]:
        """The values of every scalar family that can be other than 0."""
        scheduler = self._engine.scheduler
        counters = scheduler.counters
        waiting = len(scheduler.waiting)
        deferred = sum(1 for sequence in scheduler.waiting if sequence.is_deferred)
        hits = counters.prefix_hits
        return {
            "vllm:num_requests_running": (len(scheduler.running),),
            "vllm:num_requests_waiting": (waiting,),
            "vllm:num_requests_waiting_by_reason": (waiting - deferred, deferred),
            "vllm:engine_sleep_state": (1, 0, 0),
            "vllm:kv_cache_usage_perc": (scheduler.pool.usage,),
            "vllm:prefix_cache_queries": (counters.prefix_queries,),
            "vllm:prefix_cache_hits": (hits,),
            "vllm:num_preemptions": (counters.preemptions,),
            "vllm:prompt_tokens": (counters.prompt_tokens,),
            "vllm:prompt_tokens_by_source": (counters.computed_prompt_tokens, hits, 0),
            "vllm:prompt_tokens_cached": (hits,),
            "vllm:prompt_tokens_cached_by_source": (hits, 0, 0, 0, 0),
            "vllm:generation_tokens": (counters.generated_tokens,),
            "vllm:request_success": tuple(
                self._success.get(reason, 0) for reason in SUCCESS_REASONS
            ),
            "vllm:admission_rejections": tuple(
                self._rejections.get(reason, 0) for reason in REJECTION_REASONS
            ),
        }

    def write(self, lines: list[str]) -> None:
        """Appends every family of the engine."""
        values = self._values()
        for family in FAMILIES:
            if isinstance(family, Distribution):
                lines.append(f"# HELP {family.name} {family.help}")
                lines.append(f"# TYPE {family.name} histogram")
                self._lines[family.name].write(lines)
                self._write_created(lines, family.name, family.help, [self._created])
                continue
            is_counter = family.kind == "counter"
            full = f"{family.name}_total" if is_counter else family.name
            lines.append(f"# HELP {full} {family.help}")
            lines.append(f"# TYPE {full} {family.kind}")
            heads = self._heads[family.name]
            numbers = values.get(family.name, (0,) * len(heads))
            for head, number in zip(heads, numbers, strict=True):
                lines.append(f"{full}{head} {float(number)!r}")
            if is_counter:
                self._write_created(lines, family.name, family.help, heads)
        self._write_infos(lines)

    def _write_created(self, lines: list[str], name: str, text: str, heads: list[str]) -> None:
        lines.append(f"# HELP {name}_created {text}")
        lines.append(f"# TYPE {name}_created gauge")
        lines.extend(f"{name}_created{head} {self._created_s!r}" for head in heads)

    def _write_infos(self, lines: list[str]) -> None:
        if self._has_lora:
            lines.append(f"# HELP {LORA_INFO} Adapters in flight; the newest value is the present.")
            lines.append(f"# TYPE {LORA_INFO} gauge")
            slots = str(self._engine.capacity.max_loras)
            for names, at_s in self._lora_seen.items():
                labels = {
                    "max_lora": slots,
                    "running_lora_adapters": names,
                    "waiting_lora_adapters": names,
                }
                lines.append(f"{LORA_INFO}{labels_text(labels)} {at_s!r}")
        lines.append(f"# HELP {CACHE_INFO} How the KV cache is configured.")
        lines.append(f"# TYPE {CACHE_INFO} gauge")
        lines.append(self._cache_info)


def _sample_heads(family: Scalar, labels: dict[str, str]) -> list[str]:
    base = dict(labels)
    if not family.has_engine_label:
        del base["engine"]
    if not family.label:
        return [labels_text(base)]
    return [labels_text({**base, family.label: value}) for value in family.values]


def _cache_info_line(capacity: Capacity) -> str:
    """`cache_config_info`: the labels that vLLM 0.32 shows, most of which mean nothing here."""
    block_size = str(capacity.block_size)
    labels = {
        "_block_size_resolved": "True",
        "block_size": block_size,
        "cache_dtype": "auto",
        "cache_hit_alignment_tokens": "None",
        "effective_attention_block_size": block_size,
        "enable_mamba_shared_prefix_checkpoint": "False",
        "enable_prefix_caching": str(capacity.prefix_caching),
        "engine": "0",
        "gpu_memory_utilization": "0.92",
        "hash_block_size": "None",
        "is_attention_free": "False",
        "kv_cache_dtype_skip_layers": "[]",
        "kv_cache_layout": "None",
        "kv_cache_max_concurrency": str(
            capacity.kv_blocks * capacity.block_size / capacity.max_model_len
        ),
        "kv_cache_memory_bytes": "None",
        "kv_cache_size_tokens": str(capacity.kv_blocks * capacity.block_size),
        "kv_offloading_backend": "native",
        "kv_offloading_size": "None",
        "kv_sharing_fast_prefill": "False",
        "mamba_block_size": "None",
        "mamba_cache_dtype": "auto",
        "mamba_cache_mode": "none",
        "mamba_page_size_padded": "None",
        "mamba_ssm_cache_dtype": "float32",
        "num_cpu_blocks": "None",
        "num_gpu_blocks": str(capacity.kv_blocks),
        "num_gpu_blocks_override": "None",
        "prefix_cache_retention_interval": "0",
        "prefix_caching_hash_algo": capacity.hash_algorithm,
        "prefix_match_unit": "None",
        "replayssm_buffer_len": "16",
        "skip_page_size_padded": "None",
        "sliding_window": "None",
        "swa_bounded_replay": "True",
        "use_kda_recoverssm": "False",
        "use_replayssm": "False",
        "user_specified_block_size": "True",
    }
    return f"{CACHE_INFO}{labels_text(labels)} 1.0"
