"""How a command reaches a running instance, and how it ends when it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import click

from pointsman.admin.client import AdminClient, AdminError
from pointsman.admin.instances import INSTANCE_VARIABLE, InstanceError

T = TypeVar("T")


class CommandError(click.ClickException):
    """Ends a command with one line on stderr and exit code 1, in kubectl's manner: `error: ...`."""

    def __init__(self, message: str, lead: str = "error: ") -> None:
        """`lead` stands before the message."""
        super().__init__(message)
        self._lead = lead

    def show(self, file: Any = None) -> None:
        """Print it."""
        click.echo(f"{self._lead}{self.format_message()}", err=True, file=file)


def fail(message: str) -> NoReturn:
    """End the command: `error: MESSAGE`, exit code 1."""
    raise CommandError(message)


def not_found(resource: str, name: str) -> CommandError:
    """The error of kubectl for an object that is not there; `resource` is `plural.group`."""
    return CommandError(f'{resource} "{name}" not found', "Error from server (NotFound): ")


instance_option = click.option(
    "--instance",
    metavar="NAME",
    envvar=INSTANCE_VARIABLE,
    help="The running instance to ask, where there are several.",
)


def ask(instance: str | None, question: Callable[[AdminClient], Awaitable[T]]) -> T:
    """Run `question` with a client of the instance; failures end the command with one line."""
    try:
        return asyncio.run(_ask(AdminClient.of(instance), question))
    except (InstanceError, AdminError) as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _ask(client: AdminClient, question: Callable[[AdminClient], Awaitable[T]]) -> T:
    async with client:
        return await question(client)
