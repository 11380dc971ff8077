"""`pointsman version`: which Pointsman this is, and which Envoy it has."""

from __future__ import annotations

import json
import platform

import click

from pointsman import __version__
from pointsman.xds.binary import EnvoyNotFoundError, envoy_path, envoy_version


@click.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="For programs.")
def version(output: str | None) -> None:
    """Show the versions of Pointsman and of its Envoy."""
    try:
        envoy, path = envoy_version(), str(envoy_path())
    except EnvoyNotFoundError as error:
        envoy, path = "", str(error)
    if output == "json":
        found = {"pointsman": __version__, "envoy": envoy, "python": platform.python_version()}
        click.echo(json.dumps(found, indent=4))
        return
    click.echo(f"pointsman {__version__}")
    click.echo(f"envoy {envoy} ({path})" if envoy else f"envoy not found: {path}")
    click.echo(f"python {platform.python_version()}")
