"""`pointsman picker`: the endpoint picker as a process of its own."""

from __future__ import annotations

import logging
import os
import ssl
import sys

import click
import uvloop

from pointsman.picker.config import ConfigError
from pointsman.picker.process import serve
from pointsman.picker.settings import environment, flags
from pointsman.picker.settings.options import Options
from pointsman.sources.kubernetes.access import AccessError
from pointsman.telemetry.json_lines import JsonLines

_LEVELS = {0: logging.WARNING, 1: logging.WARNING, 2: logging.INFO, 3: logging.INFO}


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    },
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def picker(arguments: tuple[str, ...]) -> None:
    """Pick model servers for a gateway, over Envoy's external processing protocol."""
    if {"-h", "-help", "--help"} & set(arguments):
        click.echo("Usage: pointsman picker FLAGS\n\n" + flags.usage())
        return
    try:
        options = flags.parse(arguments, environment.own_namespace(os.environ))
        flags.check(options)
    except flags.FlagError as error:
        raise click.UsageError(str(error)) from error
    _log(options)
    try:
        uvloop.run(serve(options))
    except (OSError, ssl.SSLError, ValueError, ConfigError, AccessError) as error:
        raise click.ClickException(str(error)) from error


def _log(options: Options) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines()
        if options.logs_json
        else logging.Formatter("%(asctime)s %(levelname).1s picker: %(message)s", "%H:%M:%S")
    )
    quiet = logging.ERROR if options.verbosity < 0 else logging.DEBUG
    logging.basicConfig(level=_LEVELS.get(options.verbosity, quiet), handlers=[handler])
