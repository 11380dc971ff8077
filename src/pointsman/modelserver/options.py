"""What a model server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass

from pointsman.modelserver.engine import DEFAULT_PROFILE, PROFILES, Capacity, StepTiming
from pointsman.modelserver.prose import LENGTH_MEDIAN_TOKENS
from pointsman.modelserver.served import Adapter


@dataclass(frozen=True, slots=True)
class FailureOptions:
    """Failures that happen by themselves."""

    rate: float = 0.0
    """Share of generation requests that fail, 0 to 1."""
    kinds: tuple[str, ...] = ("server_error",)
    """Which failures, drawn evenly; see `failures.py`."""


@dataclass(frozen=True, slots=True)
class EventOptions:
    """Where KV cache events go. Endpoints are ZMQ's; see `events.py`."""

    endpoint: str
    replay_endpoint: str | None = None
    topic: str = ""
    buffer_steps: int = 10_000
    """Batches kept for replay."""
    high_water_mark: int = 100_000
    """Batches queued for a slow subscriber before some are dropped."""
    uses_int_hashes: bool = True
    """Hashes as the lower 64 bits instead of bytes (VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES)."""
    as_arrays: bool = False
    """Events as arrays, as vLLM wrote them until 2025, instead of maps."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """One model server. Every replica gets the same."""

    model: str = "pointsman-demo"
    """Where the base model comes from; also its name unless `served_names` says otherwise."""
    served_names: tuple[str, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    has_lora: bool = False
    allows_lora_updates: bool = True
    """VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    profile: str = DEFAULT_PROFILE
    timing: StepTiming = PROFILES[DEFAULT_PROFILE].timing
    capacity: Capacity = PROFILES[DEFAULT_PROFILE].capacity
    time_scale: float = 1.0
    seed: int = 0
    answer_median_tokens: float = LENGTH_MEDIAN_TOKENS
    echoes: bool = False
    """Answers repeat the user's last words instead of prose."""
    names_itself: bool = False
    """Answers begin with the name of the model that gives them."""
    api_keys: tuple[str, ...] = ()
    echoes_request_id: bool = False
    """--enable-request-id-headers."""
    pod: str = ""
    """POD_NAME: answers carry it as `x-inference-pod`, as those of llm-d's simulator do."""
    namespace: str = ""
    """POD_NAMESPACE, as `x-inference-namespace`."""
    startup_delay_s: float = 0.0
    """How long the port stays closed after the start, as while weights are loaded."""
    shutdown_timeout_s: float = 0.0
    """How long running requests may go on after SIGTERM; 0 ends them at once, as vLLM does."""
    drain: str = "vllm"
    """See `drain.py`: `vllm` or `graceful`."""
    failures: FailureOptions = FailureOptions()
    events: EventOptions | None = None
    trace_path: str | None = None
    """File for the step trace; `-` for stderr."""
    max_body_bytes: int = 64 * 1024 * 1024

    @property
    def names(self) -> tuple[str, ...]:
        """What the base model is called."""
        return self.served_names or (self.model,)
