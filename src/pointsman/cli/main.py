"""The `pointsman` command: every subcommand, in one place."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import click

from pointsman import __version__

_COMMANDS = {
    "run": ("pointsman.cli.run", "run"),
    "validate": ("pointsman.cli.validate", "validate"),
    "translate": ("pointsman.cli.translate", "translate_command"),
    "migrate": ("pointsman.cli.migrate", "migrate_command"),
    "crds": ("pointsman.cli.crds", "crds"),
    "get": ("pointsman.cli.get", "get"),
    "status": ("pointsman.cli.status", "status"),
    "explain": ("pointsman.cli.explain", "explain"),
    "wait": ("pointsman.cli.wait", "wait"),
    "logs": ("pointsman.cli.logs", "logs"),
    "api-resources": ("pointsman.cli.api_resources", "api_resources"),
    "controller": ("pointsman.cli.controller", "controller"),
    "proxy": ("pointsman.cli.proxy", "proxy"),
    "picker": ("pointsman.cli.picker", "picker"),
    "modelserver": ("pointsman.cli.modelserver", "modelserver"),
    "lora-syncer": ("pointsman.cli.lora_syncer", "lora_syncer"),
    "version": ("pointsman.cli.version", "version"),
}
"""Subcommand to the module and name of its click command, in the order of the help."""


class Commands(click.Group):
    """Loads a subcommand's module when it is asked for, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every subcommand."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="pointsman %(version)s")
def cli() -> None:
    """An inference gateway.

    The manifests of the Gateway API, a real Envoy, and for each request the model server that
    answers best.

    Start with `pointsman run`: it brings up a gateway with an example behind it.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    cli(arguments, prog_name="pointsman")
