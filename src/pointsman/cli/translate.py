"""`pointsman translate`: the Envoy resources that manifests become, without running anything."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from pointsman.cli.output import as_yaml
from pointsman.gateway import snapshot
from pointsman.gateway.options import Options
from pointsman.gateway.patches import typed_json
from pointsman.gateway.snapshot import Snapshot
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import Translation, translate
from pointsman.resources.problems import Problem
from pointsman.sources.files import FileSource
from pointsman.store import Store
from pointsman.xds.binary import EnvoyNotFoundError
from pointsman.xds.culprits import all_culprits
from pointsman.xds.dry_run import DryRunError, check

TYPES = {
    "listener": ("listeners", snapshot.LISTENER),
    "route": ("routes", snapshot.ROUTE_CONFIGURATION),
    "cluster": ("clusters", snapshot.CLUSTER),
    "endpoint": ("endpoints", snapshot.ENDPOINTS),
    "secret": ("secrets", snapshot.SECRET),
}
"""What `--type` takes, to the key in the output and the resource type."""

PICKER_SOCKET = "picker.sock"
"""Stands for the socket of the picker that `pointsman run` would provide."""


@click.command("translate")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--type", "kinds", multiple=True, type=click.Choice([*TYPES]), help="Only these resources."
)
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
@click.option("--before-patches", is_flag=True, help="Without what EnvoyPatchPolicies change.")
@click.option("--check", "is_checked", is_flag=True, help="Ask the real Envoy whether it agrees.")
@click.pass_context
def translate_command(
    context: click.Context,
    paths: tuple[str, ...],
    kinds: tuple[str, ...],
    output: str,
    before_patches: bool,
    is_checked: bool,
) -> None:
    """Show the Envoy resources that manifests become.

    PATH is a file, a folder with everything below it, or - for standard input. What is wrong with
    the manifests goes to standard error; the exit code is 1 when there is an error, or when Envoy
    refuses the result.

    \b
      pointsman translate manifests/ --type route
      pointsman translate manifests/ --check > /dev/null
    """  # noqa: D301  # click reads the escape
    found, problems = asyncio.run(load(paths))
    resources = found.before_patches if before_patches else found.snapshot
    value = shown(resources, kinds or tuple(TYPES))
    click.echo(json.dumps(value, indent=2) if output == "json" else as_yaml(value).rstrip())
    for problem in problems:
        click.echo(str(problem), err=True)
    is_refused = is_checked and not _check(found, resources)
    if is_refused or any(problem.is_error for problem in problems):
        context.exit(1)


async def load(paths: tuple[str, ...]) -> tuple[Translation, list[Problem]]:
    """The translation of some files as `pointsman run` would have it, and what is wrong."""
    store = Store()
    source = FileSource(store, paths)
    await source.start()
    options = Options(
        bind_address="127.0.0.1",
        advertised_address="127.0.0.1",
        own_picker_socket=PICKER_SOCKET,
        is_alone=True,
    )
    found = translate(store, options)
    told = statuses(store, found, EnvoyFacts(), options)
    faults = [
        Problem("error", str(ref), 0, "", f"{item['type']}: {item['message']}")
        for ref, status in told.items()
        for item in _conditions(status)
        if _is_fault(item)
    ]
    return found, [*source.problems, *dict.fromkeys(faults)]


def shown(resources: Snapshot, kinds: tuple[str, ...]) -> dict[str, list[Any]]:
    """The resources of those types as plain data: protobuf's JSON with snake_case names.

    Private keys are left out: what is printed ends up in logs.
    """
    found = {
        title: [typed_json.to_dict(item.message) for item in resources.of_type(type_url)]
        for name, (title, type_url) in TYPES.items()
        if name in kinds
    }
    for secret in found.get("secrets", ()):
        secret.get("tls_certificate", {}).pop("private_key", None)
    return found


def _check(found: Translation, resources: Snapshot) -> bool:
    try:
        asyncio.run(check(resources))
    except DryRunError as error:
        blamed = asyncio.run(all_culprits(found.resolver.store, found))
        for item, words in blamed.items():
            click.echo(f"{item}: Envoy refuses it: {words}", err=True)
        if not blamed:
            click.echo(f"Envoy refuses it: {error}", err=True)
        return False
    except EnvoyNotFoundError as error:
        click.echo(str(error), err=True)
        return False
    click.echo("Envoy takes it", err=True)
    return True


def _conditions(status: Any) -> list[dict[str, Any]]:
    """All conditions in a status, however deep."""
    if isinstance(status, list):
        return [item for entry in status for item in _conditions(entry)]
    if not isinstance(status, dict):
        return []
    inner = [
        item for key, value in status.items() if key != "conditions" for item in _conditions(value)
    ]
    own: list[dict[str, Any]] = status.get("conditions", [])
    return [*own, *inner]


def _is_fault(item: dict[str, Any]) -> bool:
    """A condition that says that the object is wrong, and not that no Envoy runs."""
    if item["type"] == "Conflicted" or item["status"] == "True":
        return bool(item["type"] == "Conflicted" and item["status"] == "True")
    waits_for_envoy = item["type"] == "Programmed" and item["reason"] in (
        "NoResources",
        "Pending",
    )
    return not waits_for_envoy
