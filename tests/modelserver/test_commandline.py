"""vLLM's command line, as guides and charts write it."""

from __future__ import annotations

from typing import Any

import click
import pytest

from pointsman.cli import modelserver as command
from pointsman.modelserver.commandline import normalized, parse_adapters, parse_length
from pointsman.modelserver.engine import PROFILES
from pointsman.modelserver.options import ServerOptions
from pointsman.modelserver.served import Adapter

GUIDE = [
    "--model", "Qwen/Qwen2.5-1.5B-Instruct", "--port", "8000", "--enable-lora", "--max-loras", "4",
    "--lora-modules",
    '{"name": "tweet-summary-0", "path": "a/b", "base_model_name": "Qwen/Qwen2.5-1.5B"}',
    '{"name": "tweet-summary-1", "path": "a/b", "base_model_name": "Qwen/Qwen2.5-1.5B"}',
]  # fmt: skip


def options_of(*args: str) -> tuple[ServerOptions, list[str]]:
    """What a command line comes to, and what it ignores."""
    context = command.modelserver.make_context("modelserver", list(args))
    return command.options_from(dict(context.params)), context.meta["ignored"]


def test_the_guides_command_is_understood_as_it_stands() -> None:
    options, ignored = options_of("python3", "-m", "vllm.entrypoints.openai.api_server", *GUIDE)
    assert options.names == ("Qwen/Qwen2.5-1.5B-Instruct",)
    assert [adapter.name for adapter in options.adapters] == ["tweet-summary-0", "tweet-summary-1"]
    assert options.adapters[0].base_model == "Qwen/Qwen2.5-1.5B"
    assert options.has_lora
    assert options.capacity.max_loras == 4
    assert ignored == []


@pytest.mark.parametrize(
    "args",
    [
        ["vllm", "serve", "org/m"],
        ["serve", "org/m"],
        ["/usr/bin/python3", "-u", "-m", "vllm.entrypoints.openai.api_server", "--model", "org/m"],
        ["--model=org/m"],
        ["org/m"],
        ["serve", "--trust-remote-code", "org/m"],
    ],
)
def test_a_model_can_be_named_in_every_way(args: list[str]) -> None:
    assert options_of(*args)[0].model == "org/m"


def test_flags_may_have_underscores_and_repeat() -> None:
    options, _ = options_of("--max_num_seqs=7", "--max-num-seqs", "9", "--block_size", "32")
    assert options.capacity.max_num_seqs == 9
    assert options.capacity.block_size == 32


def test_what_means_nothing_without_a_gpu_is_ignored_and_told() -> None:
    options, ignored = options_of(
        "--tensor-parallel-size", "2", "-tp", "4", "--model", "m", "--enforce-eager", "--dtype=auto"
    )
    assert options.model == "m"
    assert ignored == [
        "--tensor-parallel-size 2", "-tp 4", "--enforce-eager", "--dtype auto",
    ]  # fmt: skip


def test_several_served_names_follow_one_flag() -> None:
    options, _ = options_of("--model", "m", "--served-model-name", "a", "b", "--port", "1")
    assert options.names == ("a", "b")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["a=/x"], [Adapter("a", "/x", None, 0)]),
        (['{"name": "a", "path": "/x"}'], [Adapter("a", "/x", None, 0)]),
        (
            ['[{"name": "a", "path": "/x"}, {"name": "b", "path": "/y", "base_model_name": "m"}]'],
            [Adapter("a", "/x", None, 0), Adapter("b", "/y", "m", 0)],
        ),
    ],
)
def test_adapters_come_in_several_forms(entries: list[str], expected: list[Adapter]) -> None:
    found = [(entry.name, entry.path, entry.base_model) for entry in parse_adapters(entries)]
    assert found == [(entry.name, entry.path, entry.base_model) for entry in expected]


@pytest.mark.parametrize("entry", ["a", "=x", "{", '{"name": "a"}', '{"name": 1, "path": "x"}'])
def test_a_wrong_adapter_is_refused_with_what_was_expected(entry: str) -> None:
    with pytest.raises(ValueError, match="--lora-modules"):
        parse_adapters([entry])


@pytest.mark.parametrize(("text", "tokens"), [("4096", 4096), ("32k", 32_000), ("32K", 32_768)])
def test_lengths_may_have_units(text: str, tokens: int) -> None:
    assert parse_length(text) == tokens


def test_a_model_length_that_does_not_fit_is_lowered_to_what_does() -> None:
    options, _ = options_of("--max-model-len", "100k", "--num-gpu-blocks-override", "101")
    assert options.capacity.max_model_len == 1600


def test_every_constant_of_a_profile_can_be_set() -> None:
    options, _ = options_of(
        "--profile", "cpu-tiny", "--step-base-ms", "3", "--step-sequence-us", "4",
        "--step-context-ns", "5", "--prefill-rate", "600", "--lora-load-ms", "7",
        "--lora-fetch-ms", "8", "--step-jitter", "0.1",
        "--frontend-ms", "9",
    )  # fmt: skip
    timing = options.timing
    assert timing.base_s == pytest.approx(0.003)
    assert timing.per_sequence_s == pytest.approx(4e-6)
    assert timing.per_context_token_s == pytest.approx(5e-9)
    assert timing.prefill_tokens_per_s == 600
    assert timing.adapter_load_s == pytest.approx(0.007)
    assert timing.adapter_fetch_s == pytest.approx(0.008)
    assert timing.jitter == 0.1
    assert timing.frontend_s == pytest.approx(0.009)
    assert options.capacity.kv_blocks == PROFILES["cpu-tiny"].capacity.kv_blocks


def test_the_fake_llm_preset_serves_its_two_adapters() -> None:
    options, _ = options_of("--preset", "fake-llm", "--host", "127.0.0.1", "--port", "8000")
    names = [*options.names, *(adapter.name for adapter in options.adapters)]
    assert names == ["fake-llm", "fake-llm-lora-a", "fake-llm-lora-b"]
    assert options.names_itself


def test_the_environment_allows_updates_of_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", raising=False)
    assert not options_of("m")[0].allows_lora_updates
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True")
    assert options_of("m")[0].allows_lora_updates


def test_cache_events_are_configured_by_vllms_json() -> None:
    config = '{"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:1"}'
    options, _ = options_of("--kv-events-config", config)
    assert options.events is not None
    assert options.events.endpoint == "tcp://*:1"
    assert options_of("--kv-events-config", "{}")[0].events is None


@pytest.mark.parametrize(
    "args", [["--kv-events-config", "{"], ["--failure-types", "flood"], ["--lora-modules", "x"]]
)
def test_a_wrong_value_is_a_usage_error(args: list[str]) -> None:
    with pytest.raises((click.UsageError, ValueError)):
        options_of(*args)


def test_a_boolean_may_be_given_with_a_value() -> None:
    known: dict[str, Any] = {"--enable-lora": False, "--port": True}
    assert normalized(["--enable-lora=true", "--port=1"], known).kept == [
        "--enable-lora", "--port", "1",
    ]  # fmt: skip
    assert normalized(["--enable-lora=false"], known).kept == []
