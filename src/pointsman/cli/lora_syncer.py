"""`pointsman lora-syncer`: the LoRA rollout sidecar of the inference extension."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

import click

from pointsman.modelserver.server import on_end_of_input
from pointsman.modelserver.sidecar.gauges import SidecarMetrics, exposed
from pointsman.modelserver.sidecar.reconciler import Pace, Reconciler
from pointsman.modelserver.sidecar.rollout import DEFAULT_HOST, Rollout
from pointsman.modelserver.sidecar.target import Target
from pointsman.modelserver.sidecar.watch import keep_reconciled

_log = logging.getLogger("pointsman.lora_syncer")


@click.command("lora-syncer")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar="DYNAMIC_LORA_ROLLOUT_CONFIG",
    default=Path("/config/configmap.yaml"),
    show_default=True,
    help="The file with vLLMLoRAConfig; also DYNAMIC_LORA_ROLLOUT_CONFIG.",
)
@click.option("--host", help="What 'localhost' in the file means: the pod's address.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Overrides the file's port.")
@click.option("--health-check-timeout", type=click.FloatRange(0), default=300.0, show_default=True)
@click.option(
    "--health-check-interval", type=click.FloatRange(0.05), default=2.0, show_default=True
)
@click.option("--reconcile-trigger", type=click.FloatRange(0.05), default=5.0, show_default=True,
              help="Seconds between periodic runs.")  # fmt: skip
@click.option("--config-validation/--no-config-validation", default=True, hidden=True,
              help="Accepted for the original's sake; the file is always validated.")  # fmt: skip
@click.option("--metrics-host", help="Address of the metrics; default: --host or all.")
@click.option("--metrics-port", type=click.IntRange(-1, 65_535), default=8080, show_default=True,
              help="Port of the metrics; -1 for none.")  # fmt: skip
@click.option("--exit-with-parent", is_flag=True, help="End when standard input ends.")
def lora_syncer(
    config: Path,
    host: str | None,
    port: int | None,
    health_check_timeout: float,
    health_check_interval: float,
    reconcile_trigger: float,
    config_validation: bool,
    metrics_host: str | None,
    metrics_port: int,
    exit_with_parent: bool,
) -> None:
    """Keep a model server's LoRA adapters as a file says.

    Waits until the server is healthy, loads what ensureExist names, unloads what ensureNotExist
    names, and does so again whenever the file changes and every few seconds.
    """
    del config_validation
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s"
    )
    # It would report every event of the folder.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    pace = Pace(
        health_interval_s=health_check_interval,
        health_timeout_s=health_check_timeout,
        periodic_s=reconcile_trigger,
    )

    def make_target(rollout: Rollout) -> Target:
        chosen = rollout.host
        if host and chosen in (DEFAULT_HOST, "127.0.0.1"):
            chosen = host
        return Target(f"http://{chosen}:{port or rollout.port}")

    metrics = SidecarMetrics()
    reconciler = Reconciler(config, make_target, metrics, pace)
    asyncio.run(
        _run(
            reconciler,
            metrics,
            config,
            pace,
            (metrics_host or host or "0.0.0.0", metrics_port),
            exit_with_parent,
        )
    )


async def _run(
    reconciler: Reconciler,
    metrics: SidecarMetrics,
    config: Path,
    pace: Pace,
    shown_at: tuple[str, int],
    exits_with_parent: bool,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exits_with_parent:
        on_end_of_input(stop.set)
    host, port = shown_at
    work = keep_reconciled(reconciler, config, pace.periodic_s, stop)
    if port < 0:
        _log.info("ready: reconciling with %s", config)
        await work
        return
    try:
        async with exposed(metrics, host, port) as bound:
            _log.info("ready: reconciling with %s, metrics on %s:%d", config, host, bound)
            await work
    except OSError as error:
        # The metrics are a convenience: a taken port must not keep adapters from being loaded.
        work.close()
        _log.warning("no metrics, %s:%d cannot be bound: %s", host, port, error)
        await keep_reconciled(reconciler, config, pace.periodic_s, stop)
