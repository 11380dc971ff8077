"""The LoRA rollout sidecar, against our server and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pointsman.modelserver.sidecar.gauges import SidecarMetrics, exposed
from pointsman.modelserver.sidecar.reconciler import Pace, Reconciler
from pointsman.modelserver.sidecar.rollout import RolloutError, parse_rollout
from pointsman.modelserver.sidecar.target import Target
from pointsman.modelserver.sidecar.watch import keep_reconciled
from tests.modelserver.conftest import Served, Serving, until

PACE = Pace(
    health_interval_s=0.01,
    health_timeout_s=2.0,
    periodic_s=30.0,
    retry_first_s=0.005,
    retry_most_s=0.01,
    retries=3,
)
GUIDE = """
vLLMLoRAConfig:
  name: vllm-llama2-7b
  port: 8000
  ensureExist:
    models:
    - base-model: Qwen/Qwen2.5-1.5B
      id: tweet-summary-1
      source: SriSanth2345/Qwen-1.5B-Tweet-Generations
"""


def config(exist: str = "", not_exist: str = "") -> str:
    def models(ids: str) -> str:
        return "".join(f"\n    - {{id: {name}, source: s/{name}}}" for name in ids.split())

    return (
        "vLLMLoRAConfig:\n"
        f"  ensureExist:\n    models: {models(exist) or '[]'}\n"
        f"  ensureNotExist:\n    models: {models(not_exist) or '[]'}\n"
    )


def reconciler_for(
    url: str, path: Path, metrics: SidecarMetrics | None = None, pace: Pace = PACE
) -> Reconciler:
    return Reconciler(path, lambda rollout: Target(url), metrics or SidecarMetrics(), pace)


def names(served: Served) -> list[str]:
    return served.replica.models.adapters


def test_the_guides_file_is_read() -> None:
    rollout = parse_rollout(GUIDE)
    assert (rollout.host, rollout.port, rollout.name) == ("localhost", 8000, "vllm-llama2-7b")
    [adapter] = rollout.to_load
    assert adapter.id == "tweet-summary-1"
    assert adapter.base_model == "Qwen/Qwen2.5-1.5B"


def test_the_default_base_model_is_for_adapters_without_their_own() -> None:
    text = GUIDE + "    - {id: other, source: x}\n  defaultBaseModel: base\n"
    assert [adapter.base_model for adapter in parse_rollout(text).to_load] == [
        "Qwen/Qwen2.5-1.5B",
        "base",
    ]


def test_what_stands_in_both_lists_is_left_alone() -> None:
    rollout = parse_rollout(config("a b", "b c"))
    assert [adapter.id for adapter in rollout.to_load] == ["a"]
    assert [adapter.id for adapter in rollout.to_unload] == ["c"]
    assert rollout.contradictory == ("b",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "not YAML"),
        ("- 1", "the file: expected a mapping"),
        ("other: 1", "expected the key vLLMLoRAConfig"),
        ("vLLMLoRAConfig: {port: no}", "vLLMLoRAConfig.port: expected a port number"),
        ("vLLMLoRAConfig: {ensureExist: {models: {}}}", "models: expected a list"),
        ("vLLMLoRAConfig: {ensureExist: {models: [{id: a}]}}", r"models\[0\].source: required"),
        ("vLLMLoRAConfig: {ensureExist: {models: [{source: a}]}}", r"models\[0\].id: required"),
        ("vLLMLoRAConfig: {name: [1]}", "name: expected a text"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(text: str, problem: str) -> None:
    with pytest.raises(RolloutError, match=problem):
        parse_rollout(text)


yaml_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["vLLMLoRAConfig", "ensureExist", "ensureNotExist", "models", "id", "source",
                 "base-model", "port", "host", "name", "defaultBaseModel"]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.builds(yaml.safe_dump, yaml_values)))
@example("2026-13-01")
@example("[" * 3000)
def test_no_file_crashes_it(text: str) -> None:
    with contextlib.suppress(RolloutError):
        parse_rollout(text)


async def test_adapters_are_loaded_and_unloaded_as_wished(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("lora-a new", "lora-b never-there"))
    metrics = SidecarMetrics()
    assert await reconciler_for(served.url, path, metrics).reconcile()
    assert names(served) == ["lora-a", "new"]
    text = metrics.text()
    assert 'lora_syncer_adapter_status{adapter_name="new"} 1.0' in text
    assert 'lora_syncer_adapter_status{adapter_name="lora-b"} 0.0' in text
    assert "lora_syncer_config_valid 1.0" in text


async def test_a_broken_file_changes_nothing_and_the_last_good_wish_stays(
    served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "configmap.yaml"
    metrics = SidecarMetrics()
    reconciler = reconciler_for(served.url, path, metrics)
    assert not await reconciler.reconcile()  # there is no file
    path.write_text(config("new"))
    assert await reconciler.reconcile()
    path.write_text("vLLMLoRAConfig: 5")
    served.replica.models.remove("new")
    assert await reconciler.reconcile()
    assert "new" in names(served)
    assert not metrics.config_is_valid


async def test_one_bad_adapter_does_not_stop_the_others(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(
        "vLLMLoRAConfig: {ensureExist: {models: ["
        "{id: bad, source: missing/x}, {id: good, source: x}]}}"
    )
    metrics = SidecarMetrics()
    assert not await reconciler_for(served.url, path, metrics).reconcile()
    assert "good" in names(served)
    assert metrics.failures == {"load": 1}


async def test_it_waits_until_the_server_is_healthy(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("new"))
    served.replica.conduct.is_healthy = False
    reconciler = reconciler_for(served.url, path)
    running = asyncio.create_task(reconciler.reconcile())
    await until(lambda: reconciler.last_said.startswith("waiting for"))
    assert "new" not in names(served)
    served.replica.conduct.is_healthy = True
    assert await asyncio.wait_for(running, 5)
    assert "new" in names(served)


async def test_a_server_that_never_becomes_healthy_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("new"))
    pace = Pace(health_interval_s=0.01, health_timeout_s=0.05)
    assert not await reconciler_for("http://127.0.0.1:9", path, pace=pace).reconcile()


@asynccontextmanager
async def faulty(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> AsyncIterator[str]:
    """A server that answers as it is told."""
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_what_may_pass_is_tried_again_and_what_is_refused_is_not(tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("new"))
    status = 503
    loads = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal loads
        if request.path == "/v1/models":
            return web.json_response({"data": []})
        if request.path == "/v1/load_lora_adapter":
            loads += 1
            return web.json_response({"detail": "Not Found"}, status=status)
        return web.Response()

    async with faulty(answer) as url:
        assert not await reconciler_for(url, path).reconcile()
        assert loads == PACE.retries
        status, loads = 404, 0
        assert not await reconciler_for(url, path).reconcile()
        assert loads == 1


async def test_an_answer_that_is_nonsense_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("new"))

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="{nonsense", content_type="application/json")

    async with faulty(answer) as url:
        assert not await reconciler_for(url, path).reconcile()


async def test_a_changed_file_is_applied_and_a_restarted_server_set_right(
    served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("one"))
    stop = asyncio.Event()
    reconciler = reconciler_for(served.url, path)
    keeping = asyncio.create_task(keep_reconciled(reconciler, path, 30.0, stop))
    await until(lambda: "one" in names(served))
    path.write_text(config("two", "one"))
    await until(lambda: "two" in names(served) and "one" not in names(served))
    stop.set()
    await asyncio.wait_for(keeping, 5)


async def test_a_swapped_folder_is_noticed_as_kubernetes_swaps_it(
    served: Served, tmp_path: Path
) -> None:
    for version, wished in (("v1", "one"), ("v2", "two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "configmap.yaml").write_text(config(wished))
    (tmp_path / "..data").symlink_to("v1")
    path = tmp_path / "configmap.yaml"
    path.symlink_to("..data/configmap.yaml")
    stop = asyncio.Event()
    keeping = asyncio.create_task(
        keep_reconciled(reconciler_for(served.url, path), path, 30.0, stop)
    )
    await until(lambda: "one" in names(served))
    (tmp_path / "..next").symlink_to("v2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    await until(lambda: "two" in names(served))
    stop.set()
    await asyncio.wait_for(keeping, 5)


async def test_a_server_that_forgot_is_set_right_periodically(
    served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("one"))
    stop = asyncio.Event()
    reconciler = reconciler_for(served.url, path)
    keeping = asyncio.create_task(keep_reconciled(reconciler, path, 0.02, stop))
    await until(lambda: "one" in names(served))
    served.replica.models.remove("one")
    await until(lambda: "one" in names(served))
    stop.set()
    await asyncio.wait_for(keeping, 5)


async def test_metrics_are_shown() -> None:
    metrics = SidecarMetrics()
    metrics.set_status("a", is_loaded=True)
    async with exposed(metrics, "127.0.0.1", 0) as port, aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/metrics") as response:
            assert 'adapter_name="a"' in await response.text()
        metrics.keep_only(set())
        assert "adapter_name" not in metrics.text()


async def test_the_servers_permission_is_hinted_at(serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "configmap.yaml"
    path.write_text(config("new"))
    async with serving(allows_lora_updates=False) as served:
        reconciler = reconciler_for(served.url, path)
        assert not await reconciler.reconcile()
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in reconciler.last_said
