"""The sidecar's own metrics, and the address that shows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from pointsman.modelserver.histogram import labels_text


@dataclass(slots=True)
class SidecarMetrics:
    """What the sidecar knows. `lora_syncer_adapter_status` is the original's; the rest is ours."""

    config_is_valid: bool = False
    runs: int = 0
    failed_runs: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """By verb: load, unload."""
    _status: dict[str, bool] = field(default_factory=dict)

    def set_status(self, adapter: str, *, is_loaded: bool) -> None:
        """Notes whether the server has an adapter."""
        self._status[adapter] = is_loaded

    def keep_only(self, adapters: set[str]) -> None:
        """Forgets adapters that the file no longer names, which bounds the series."""
        for name in self._status.keys() - adapters:
            del self._status[name]

    def text(self) -> str:
        """Prometheus' text format."""
        name = "lora_syncer_adapter_status"
        lines = [
            f"# HELP {name} Whether the model server has the adapter (1) or not (0).",
            f"# TYPE {name} gauge",
        ]
        for adapter, is_loaded in self._status.items():
            lines.append(f"{name}{labels_text({'adapter_name': adapter})} {float(is_loaded)!r}")
        for name, kind, text, value in (
            ("lora_syncer_config_valid", "gauge", "Whether the file can be used.",
             float(self.config_is_valid)),
            ("lora_syncer_runs_total", "counter", "Reconciliations.", float(self.runs)),
            ("lora_syncer_failed_runs_total", "counter", "Reconciliations that did not complete.",
             float(self.failed_runs)),
        ):  # fmt: skip
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name} {value!r}"]
        name = "lora_syncer_failures_total"
        lines += [f"# HELP {name} Adapters that could not be changed.", f"# TYPE {name} counter"]
        for verb, count in self.failures.items():
            lines.append(f"{name}{labels_text({'verb': verb})} {float(count)!r}")
        return "\n".join(lines) + "\n"


@asynccontextmanager
async def exposed(metrics: SidecarMetrics, host: str, port: int) -> AsyncIterator[int]:
    """Shows the metrics at `/metrics`, and yields the port.

    Raises:
        OSError: if the address cannot be bound.
    """

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(text=metrics.text())
        return web.Response(status=200 if request.path in ("/health", "/healthz") else 404)

    runner = web.ServerRunner(web.Server(handle, access_log=None), handle_signals=False)
    await runner.setup()
    try:
        async with asyncio.timeout(10):
            await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
