"""`pointsman proxy`: the Envoy of a pod, as a Gateway's Deployment starts it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

import click

from pointsman.standalone.envoy import Envoy, EnvoySettings
from pointsman.standalone.processes import Output
from pointsman.xds.binary import EnvoyNotFoundError

LOOK_S = 1.0


@click.command()
@click.option(
    "--bootstrap",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The bootstrap that Envoy starts with.",
)
@click.option(
    "--admin-socket",
    required=True,
    type=click.Path(path_type=Path),
    help="The Unix socket that the bootstrap gives Envoy's admin.",
)
@click.option("--node-id", required=True, help="Who this Envoy is.")
@click.option("--concurrency", type=click.IntRange(1, 1024), help="Envoy's worker threads.")
@click.option("--log-level", default="warning", show_default=True)
@click.option("--component-log-level", default="", help="NAME:LEVEL, with commas.")
@click.option(
    "--min-drain",
    type=click.FloatRange(0, 3600),
    default=10.0,
    show_default=True,
    help="Seconds for which requests are still taken after SIGTERM.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0, 86400),
    default=60.0,
    show_default=True,
    help="Seconds that running answers may take after that.",
)
def proxy(
    bootstrap: Path,
    admin_socket: Path,
    node_id: str,
    concurrency: int | None,
    log_level: str,
    component_log_level: str,
    min_drain: float,
    drain_timeout: float,
) -> None:
    """Run the Envoy of a pod.

    It is a Gateway's Deployment that starts this. At its end Envoy tells its clients to go
    elsewhere, and lets running answers finish.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname).1s proxy: %(message)s",
        datefmt="%H:%M:%S",
    )
    pairs = (item.partition(":") for item in component_log_level.split(",") if item)
    settings = EnvoySettings(
        folder=admin_socket.parent,
        bootstrap=bootstrap,
        admin_socket=admin_socket,
        node_id=node_id,
        concurrency=concurrency,
        log_level=log_level,
        component_levels={name: level for name, _, level in pairs},
        min_drain_s=min_drain,
        drain_timeout_s=drain_timeout,
        logs_to_stdout=True,
    )
    try:
        has_failed = asyncio.run(_run(settings))
    except (EnvoyNotFoundError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if has_failed:
        sys.exit(1)


async def _run(settings: EnvoySettings) -> bool:
    """Run Envoy until a signal comes; True where it ended by itself, for the kubelet to see."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    output = Output(lambda line: click.echo(line, err=True))
    async with Envoy(settings, output).running() as envoy:
        while not stop.is_set() and not envoy.process.restarts:
            try:
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()
            except TimeoutError:
                continue
        return not stop.is_set()
