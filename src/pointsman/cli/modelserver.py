"""`pointsman modelserver`: a model server without a GPU that takes vLLM's command line."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import logging
import os
import sys
from typing import Any

import click

from pointsman.modelserver.commandline import normalized, parse_adapters, parse_length
from pointsman.modelserver.engine import DEFAULT_PROFILE, PROFILES, Capacity, StepTiming
from pointsman.modelserver.failures import checked_kinds
from pointsman.modelserver.options import EventOptions, FailureOptions, ServerOptions
from pointsman.modelserver.server import Listener, addresses, serve

_log = logging.getLogger("pointsman.modelserver")

_PRESETS: dict[str, dict[str, Any]] = {
    "fake-llm": {
        "model": "fake-llm",
        "lora_modules": ("fake-llm-lora-a=/adapters/a", "fake-llm-lora-b=/adapters/b"),
        "max_loras": 2,
        "names_itself": True,
    },
}
"""Known images that are no vLLM: what they serve, as if it had been given as flags."""

_TRUE = frozenset(("1", "true", "yes", "on"))


class VllmCommand(click.Command):
    """A click command that understands vLLM's habits; see `modelserver/commandline.py`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Brings the arguments into click's form first, and keeps what is ignored."""
        takes_value: dict[str, bool] = {"--help": False}
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                for name in (*parameter.opts, *parameter.secondary_opts):
                    takes_value[name] = not parameter.is_flag
        arguments = normalized(args, takes_value)
        ctx.meta["ignored"] = arguments.ignored
        return super().parse_args(ctx, arguments.kept)


def _profiles_text() -> str:
    return "; ".join(f"{profile.name}: {profile.summary}" for profile in PROFILES.values())


@click.command("modelserver", cls=VllmCommand, context_settings={"max_content_width": 100})
@click.argument("model_tag", required=False)
@click.option("--model", help="The base model; also its name unless --served-model-name is given.")
@click.option("--served-model-name", multiple=True, help="Names of the base model.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True)
@click.option("--enable-lora/--no-enable-lora", default=None, help="Serve LoRA adapters.")
@click.option("--lora-modules", multiple=True, help="name=path or JSON, one or several.")
@click.option("--max-loras", type=click.IntRange(1), help="Adapters in one batch.")
@click.option("--max-cpu-loras", type=click.IntRange(1), help="Adapters in host memory.")
@click.option("--max-model-len", help="Tokens of prompt and answer together, for example 32k.")
@click.option("--max-num-seqs", type=click.IntRange(1), help="Sequences in one batch.")
@click.option("--max-num-batched-tokens", help="Token budget of one step.")
@click.option("--block-size", type=click.IntRange(1, 4096), help="Tokens per KV block.")
@click.option("--num-gpu-blocks-override", type=click.IntRange(2), help="KV blocks.")
@click.option("--max-num-queued-reqs", type=click.IntRange(0), help="Waiting and running.")
@click.option("--max-num-queued-tokens", type=click.IntRange(0), help="Prompt tokens waiting.")
@click.option("--enable-prefix-caching/--no-enable-prefix-caching", default=None)
@click.option(
    "--prefix-caching-hash-algo", type=click.Choice(["sha256", "sha256_cbor"]), default=None
)
@click.option("--scheduling-policy", type=click.Choice(["fcfs", "priority"]), default="fcfs")
@click.option("--kv-events-config", help="JSON: where KV cache events go (ZMQ).")
@click.option("--kv-events-format", type=click.Choice(["map", "array"]), default="map")
@click.option("--api-key", multiple=True, help="Accepted keys; also VLLM_API_KEY.")
@click.option("--enable-request-id-headers", is_flag=True, help="Echo X-Request-Id.")
@click.option("--shutdown-timeout", type=click.FloatRange(0), default=0.0, help="Seconds.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same answers.")
@click.option("--preset", type=click.Choice(sorted(_PRESETS)), help="Serve like a known image.")
@click.option("--profile", type=click.Choice(sorted(PROFILES)), default=DEFAULT_PROFILE,
              show_default=True, help=_profiles_text())  # fmt: skip
@click.option("--step-base-ms", type=click.FloatRange(0), help="c0: each step.")
@click.option("--step-sequence-us", type=click.FloatRange(0), help="c_b: each sequence.")
@click.option("--step-context-ns", type=click.FloatRange(0), help="c_ctx: each context token.")
@click.option("--prefill-rate", type=click.FloatRange(1), help="R: prompt tokens per second.")
@click.option("--frontend-ms", type=click.FloatRange(0), help="From arrival to the queue.")
@click.option("--step-jitter", type=click.FloatRange(0, 1), help="Relative deviation of a step.")
@click.option("--lora-load-ms", type=click.FloatRange(0), help="Adapter from memory to its slot.")
@click.option("--lora-fetch-ms", type=click.FloatRange(0), help="Adapter from disk to memory.")
@click.option("--time-scale", type=click.FloatRange(0, 1e9, min_open=True), default=1.0,
              show_default=True, help="Engine seconds per real second.")  # fmt: skip
@click.option("--answer-tokens", type=click.FloatRange(1), help="Median length of answers.")
@click.option("--mode", type=click.Choice(["prose", "echo"]), default="prose", show_default=True)
@click.option("--names-itself", is_flag=True, help="Begin answers with the model's name.")
@click.option("--replicas", type=click.IntRange(1, 4096), default=1, show_default=True)
@click.option("--spread", type=click.Choice(["port", "host"]), default="port", show_default=True,
              help="Consecutive ports or consecutive addresses for replicas.")  # fmt: skip
@click.option("--startup-delay", type=click.FloatRange(0), default=0.0, help="Seconds.")
@click.option("--drain", type=click.Choice(["vllm", "graceful"]), default="vllm",
              show_default=True, help="What SIGTERM does while requests run.")  # fmt: skip
@click.option("--failure-rate", type=click.FloatRange(0, 1), default=0.0, help="Share, 0 to 1.")
@click.option("--failure-types", multiple=True, help="See docs/model-server.md.")
@click.option("--trace", help="Write every engine step as JSON lines to this file (- for stderr).")
@click.option("--exit-with-parent", is_flag=True, help="End when standard input ends.")
@click.option("--log-level", default="info", show_default=True,
              type=click.Choice(["debug", "info", "warning", "error"]))  # fmt: skip
@click.pass_context
def modelserver(ctx: click.Context, /, **flags: Any) -> None:
    """Serve a model without a GPU: vLLM's API and metrics over a model of its engine.

    Takes the flags of `vllm serve`; those that only matter with a GPU are ignored and logged.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=flags["log_level"].upper(),
        format="%(levelname)s %(name)s: %(message)s",
    )
    try:
        options = options_from(flags)
        where = addresses(
            flags["host"], flags["port"], flags["replicas"], by_host=flags["spread"] == "host"
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if ctx.meta["ignored"]:
        _log.info("ignored, since nothing is computed here: %s", ", ".join(ctx.meta["ignored"]))
    run = asyncio.run
    if sys.platform != "win32":
        run = importlib.import_module("uvloop").run
    try:
        run(
            serve(
                options,
                where,
                exits_with_parent=flags["exit_with_parent"],
                ready=lambda listeners: _report(options, listeners),
            )
        )
    except OSError as error:
        raise click.ClickException(f"cannot start: {error}") from None


def _report(options: ServerOptions, listeners: list[Listener]) -> None:
    first, last = listeners[0].address, listeners[-1].address
    span = str(first) if len(listeners) == 1 else f"{first} to {last} ({len(listeners)} replicas)"
    names = [*options.names, *(adapter.name for adapter in options.adapters)]
    _log.info("ready on http://%s serving %s (profile %s)", span, ", ".join(names), options.profile)


def options_from(flags: dict[str, Any]) -> ServerOptions:
    """What the flags come to.

    Raises:
        ValueError: for a value that has no meaning; the message names its flag.
    """
    preset = _PRESETS.get(flags["preset"] or "", {})
    for name, value in preset.items():
        if not flags[name]:
            flags[name] = value
    flags["model"] = flags["model"] or flags["model_tag"]
    adapters = parse_adapters(flags["lora_modules"])
    has_lora = flags["enable_lora"]
    if has_lora is None:
        has_lora = bool(adapters)
    profile = PROFILES[flags["profile"]]
    kinds = checked_kinds(tuple(flags["failure_types"]) or ("server_error",))
    defaults = ServerOptions()
    return ServerOptions(
        model=flags["model"] or defaults.model,
        served_names=tuple(flags["served_model_name"]),
        adapters=adapters,
        has_lora=has_lora,
        allows_lora_updates=_env_flag("VLLM_ALLOW_RUNTIME_LORA_UPDATING", default=False),
        profile=profile.name,
        timing=_timing(profile.timing, flags),
        capacity=_capacity(profile.capacity, flags),
        time_scale=flags["time_scale"],
        seed=flags["seed"],
        answer_median_tokens=flags["answer_tokens"] or defaults.answer_median_tokens,
        echoes=flags["mode"] == "echo",
        names_itself=flags["names_itself"],
        api_keys=tuple(filter(None, (*flags["api_key"], os.environ.get("VLLM_API_KEY")))),
        echoes_request_id=flags["enable_request_id_headers"],
        pod=os.environ.get("POD_NAME", ""),
        namespace=os.environ.get("POD_NAMESPACE", ""),
        startup_delay_s=flags["startup_delay"],
        shutdown_timeout_s=flags["shutdown_timeout"],
        drain=flags["drain"],
        failures=FailureOptions(flags["failure_rate"], kinds),
        events=_events(flags),
        trace_path=flags["trace"],
    )


def _timing(timing: StepTiming, flags: dict[str, Any]) -> StepTiming:
    wanted = {
        "base_s": _scaled(flags["step_base_ms"], 1e-3),
        "per_sequence_s": _scaled(flags["step_sequence_us"], 1e-6),
        "per_context_token_s": _scaled(flags["step_context_ns"], 1e-9),
        "prefill_tokens_per_s": flags["prefill_rate"],
        "frontend_s": _scaled(flags["frontend_ms"], 1e-3),
        "jitter": flags["step_jitter"],
        "adapter_load_s": _scaled(flags["lora_load_ms"], 1e-3),
        "adapter_fetch_s": _scaled(flags["lora_fetch_ms"], 1e-3),
    }
    return dataclasses.replace(
        timing, **{name: value for name, value in wanted.items() if value is not None}
    )


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _capacity(capacity: Capacity, flags: dict[str, Any]) -> Capacity:
    wanted: dict[str, Any] = {
        "kv_blocks": flags["num_gpu_blocks_override"],
        "block_size": flags["block_size"],
        "max_num_seqs": flags["max_num_seqs"],
        "max_loras": flags["max_loras"],
        "max_cpu_loras": flags["max_cpu_loras"],
        "max_queued_requests": flags["max_num_queued_reqs"],
        "max_queued_tokens": flags["max_num_queued_tokens"],
        "prefix_caching": flags["enable_prefix_caching"],
        "hash_algorithm": flags["prefix_caching_hash_algo"],
        "hash_seed": os.environ.get("PYTHONHASHSEED"),
    }
    for name in ("max_model_len", "max_num_batched_tokens"):
        text = flags[name]
        if text is not None and text not in ("auto", "-1"):
            wanted[name] = parse_length(text)
    chosen = dataclasses.replace(
        capacity,
        by_priority=flags["scheduling_policy"] == "priority",
        **{name: value for name, value in wanted.items() if value is not None},
    )
    if chosen.max_model_len > chosen.kv_tokens:
        _log.info(
            "max-model-len lowered from %d to %d, which is what the KV cache holds",
            chosen.max_model_len,
            chosen.kv_tokens,
        )
        chosen = dataclasses.replace(chosen, max_model_len=chosen.kv_tokens)
    return chosen


def _events(flags: dict[str, Any]) -> EventOptions | None:
    text = flags["kv_events_config"]
    if not text:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--kv-events-config is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError("--kv-events-config has to be a JSON object")
    if not value.get("enable_kv_cache_events") or value.get("publisher") == "null":
        return None
    return EventOptions(
        endpoint=str(value.get("endpoint", "tcp://*:5557")),
        replay_endpoint=value.get("replay_endpoint"),
        topic=str(value.get("topic", "")),
        buffer_steps=int(value.get("buffer_steps", 10_000)),
        high_water_mark=int(value.get("hwm", 100_000)),
        uses_int_hashes=_env_flag("VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES", default=True),
        as_arrays=flags["kv_events_format"] == "array",
    )


def _env_flag(name: str, *, default: bool) -> bool:
    value = os.environ.get(name)
    return default if value is None else value.strip().lower() in _TRUE
