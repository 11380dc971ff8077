"""`pointsman picker`: the endpoint picker as a process of its own."""

from __future__ import annotations

import logging
import ssl
import sys

import click
import uvloop

from pointsman.picker import flags
from pointsman.picker.config import ConfigError
from pointsman.picker.process import serve

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
        options = flags.parse(arguments)
    except flags.FlagError as error:
        raise click.UsageError(str(error)) from error
    if not options.pool_name and not options.listen:
        raise click.UsageError("--pool-name NAME or --listen ADDRESS is needed")
    logging.basicConfig(
        stream=sys.stderr,
        level=_LEVELS.get(options.verbosity, logging.DEBUG),
        format="%(asctime)s %(levelname).1s picker: %(message)s",
        datefmt="%H:%M:%S",
    )
    try:
        uvloop.run(serve(options))
    except (OSError, ssl.SSLError, ValueError, ConfigError) as error:
        raise click.ClickException(str(error)) from error
