"""`pointsman run`: a gateway with everything behind it, on this machine."""

from __future__ import annotations

import asyncio
import gc
import importlib.resources
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from pointsman.admin.instances import INSTANCE_VARIABLE, InstanceError
from pointsman.gateway.listeners.access_logs import (
    JSON_ON_STDOUT,
    TEXT_ON_STDOUT,
    AccessLog,
)
from pointsman.inference.models import served_models
from pointsman.inference.pools import pools
from pointsman.resources.inference_extension import InferenceModel
from pointsman.standalone.external import External, ServerError, parse_servers
from pointsman.standalone.instance import Instance, InstanceSettings, start
from pointsman.standalone.open_files import raise_open_files
from pointsman.telemetry.logs import configure
from pointsman.xds.binary import EnvoyNotFoundError

READY_TIMEOUT_S = 30.0
"""After each such time it is said what is still missing."""


def _port_map(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[int, int]:
    result = {}
    for value in values:
        listed, equals, real = value.partition("=")
        if not (equals and _is_port(listed) and _is_port(real)):
            raise click.BadParameter(f"expected LISTENER=REAL like 80=8085, got {value!r}")
        result[int(listed)] = int(real)
    return result


def _servers(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[External, ...]:
    try:
        return tuple(parse_servers(values))
    except ServerError as error:
        raise click.BadParameter(str(error)) from error


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, allow_dash=True))
@click.option(
    "--server",
    "servers",
    multiple=True,
    callback=_servers,
    metavar="NAME=URL[,URL...]",
    help="Model servers that already run; no manifests needed. May be repeated.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="The listener in front of --server.",
)
@click.option(
    "--instance",
    envvar=INSTANCE_VARIABLE,
    help="Name of this instance, by which other commands find it.",
)
@click.option("--address", default="127.0.0.1", show_default=True, help="Where listeners bind.")
@click.option(
    "--port-map",
    multiple=True,
    callback=_port_map,
    metavar="LISTENER=REAL",
    help="Bind a listener's port to another one, like 80=8085. May be repeated.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), help="Worker threads of Envoy.")
@click.option(
    "--pod-addresses",
    type=click.Choice(["own", "shared"]),
    help="An address for each pod (Linux), or ports on 127.0.0.1; by default what works here.",
)
@click.option(
    "--workloads",
    type=click.Choice(["builtin", "process"]),
    default="builtin",
    show_default=True,
    help="What containers run as: our stand-ins, or their own command where it is installed.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0, 3600),
    show_default="10, or what an EnvoyProxy says",
    help="Seconds that running requests may take when the gateway ends.",
)
@click.option(
    "--access-log",
    type=click.Choice(["auto", "off", "text", "json"]),
    default="auto",
    show_default=True,
    help="What is written to stdout of each request: auto is off on a terminal, else json.",
)
@click.option("-v", "--verbose", count=True, help="Say more; twice for what processes print.")
def run(
    paths: tuple[str, ...],
    servers: tuple[External, ...],
    port: int,
    instance: str | None,
    address: str,
    port_map: dict[int, int],
    concurrency: int | None,
    pod_addresses: str | None,
    workloads: str,
    drain_timeout: float | None,
    access_log: str,
    verbose: int,
) -> None:
    """Run the manifests under PATH... as a gateway on this machine.

    PATH is a file, a folder (with everything below it) or - for standard input. Without a PATH a
    built-in example runs. Files are watched: what changes is applied.

    With --server no manifests are needed: a pool over servers that already run (vLLM, SGLang,
    llama.cpp, TGI, Ollama or another that speaks the OpenAI API) behind --port.

    \b
      pointsman run manifests/
      pointsman run --server qwen=http://10.0.0.7:8000,http://10.0.0.8:8000
    """  # noqa: D301  # click reads the escape
    configure(verbose)
    raise_open_files()
    settings = InstanceSettings(
        paths=paths if paths or servers else (example_path(),),
        servers=servers,
        servers_port=port,
        name=instance,
        address=address,
        port_map=port_map,
        concurrency=concurrency,
        shared_addresses=None if pod_addresses is None else pod_addresses == "shared",
        envoy_log_level="info" if verbose > 1 else None,
        echoes_output=verbose > 1,
        runs_real_commands=workloads == "process",
        drain_timeout_s=drain_timeout,
        access_log=access_log_of(access_log),
    )
    try:
        asyncio.run(_run(settings))
    except (InstanceError, EnvoyNotFoundError, ServerError) as error:
        raise click.ClickException(str(error)) from error


def access_log_of(choice: str) -> AccessLog | None:
    """What `--access-log` means; on a terminal lines would run into what else is said there."""
    if choice == "auto":
        choice = "off" if sys.stdout.isatty() else "json"
    return {"json": JSON_ON_STDOUT, "text": TEXT_ON_STDOUT}.get(choice)


def example_path() -> str:
    """The folder of the built-in example."""
    return str(Path(str(importlib.resources.files("pointsman") / "examples" / "two-adapters")))


async def _run(settings: InstanceSettings) -> None:
    began = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with start(settings) as instance:
        stopping = asyncio.create_task(stop.wait())
        failing = asyncio.create_task(instance.failed())
        announcing = asyncio.create_task(_announce(instance, began))
        try:
            await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()
        finally:
            for task in (announcing, stopping, failing):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            _say("draining")


async def _announce(instance: Instance, began: float) -> None:
    while not await instance.ready(READY_TIMEOUT_S):
        waited_s = time.monotonic() - began
        waiting = "; ".join(await instance.waiting_for())
        _say(f"not up after {waited_s:.0f} s, waiting for: {waiting}. So far: {summary(instance)}")
    # What was made until now lives as long as the process; the collector must not go through all of
    # it in the midst of a change.
    gc.collect()
    gc.freeze()
    _say(f"ready in {time.monotonic() - began:.1f} s: {summary(instance)}")


def summary(instance: Instance) -> str:
    """The listeners, the admin address, and a request to try."""
    translation = instance.controller.translation
    facts = instance.controller.discovery.facts
    if translation is None:
        return f"admin unix:{instance.admin_socket}"
    bound = [
        item
        for item in translation.listeners
        if item.is_served and item.is_bound_in(facts.listeners)
    ]
    urls = {
        item.xds_name: f"{item.spec.protocol.lower()}://{item.hosts[0]}"
        f":{instance.options.bound_port(item.spec.port)}"
        for item in bound
    }
    parts = [", ".join(dict.fromkeys(urls.values())) or "no listener"]
    parts.append(f"admin unix:{instance.admin_socket}")
    served = [
        urls[attachment.listener.xds_name]
        for parent in translation.parents
        for attachment in parent.attachments
        if attachment.listener.xds_name in urls
    ]
    if served:
        body = f'{{"model": "{_model(instance)}", "prompt": "Hello", "max_tokens": 20}}'
        command = ("curl", f"{served[0]}/v1/completions", "-H", "content-type: application/json")
        parts.append(f"try: {shlex.join((*command, '-d', body))}")
    return "; ".join(parts)


def _model(instance: Instance) -> str:
    """A model name that is served, the most important first, for the request to try."""
    models = instance.store.list(InferenceModel)
    served = [
        model
        for namespace, name in pools(instance.store)
        for model in served_models(models, namespace, name).values()
    ]
    if served:
        return max(served, key=lambda model: model.priority).name
    return next(iter(instance.external.models), "MODEL")


def _say(text: str) -> None:
    click.echo(f"pointsman: {text}", file=sys.stderr)
