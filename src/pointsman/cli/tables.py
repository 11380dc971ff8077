"""Tables: coloured on a terminal, plain aligned text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = "   "
_LEAST_MESSAGE = 24
"""Characters of a message beside which names are kept whole."""
_GOOD = frozenset({"True", "Running", "Ready", "ACKED", "yes", "Accepted", "Programmed", "Active"})
_BAD = frozenset({"False", "NACKED", "Failed", "CrashLoopBackOff", "no", "Invalid", "error"})
_PENDING = frozenset({"Unknown", "Pending", "PENDING", "ContainerCreating", "<unset>"})


def show(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, with_headers: bool = True
) -> None:
    """Print a table to stdout."""
    if sys.stdout.isatty():
        console = Console()
        console.print(_rich(headers, rows, with_headers, console.width))
        return
    for line in plain_lines(headers, rows, with_headers=with_headers):
        click.echo(line)


def plain_lines(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, with_headers: bool = True
) -> list[str]:
    """The lines of a table: columns as wide as their widest cell, three spaces between."""
    everything = [headers, *rows] if with_headers else list(rows)
    widths = [max(len(row[i]) for row in everything) for i in range(len(headers))] if rows else []
    if not widths:
        widths = [len(header) for header in headers]
    return [_line(row, widths) for row in everything]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _rich(
    headers: Sequence[str], rows: Sequence[Sequence[str]], with_headers: bool, width: int
) -> Table:
    table = Table(box=None, show_header=with_headers, header_style="bold", pad_edge=False)
    others = [i for i, header in enumerate(headers) if header != "MESSAGE"]
    needed = sum(max(len(row[i]) for row in [headers, *rows]) + 2 for i in others)
    # Messages are what gives way, as long as some of them is left.
    messages = [len(cell) for row in rows for i, cell in enumerate(row) if i not in others]
    least = min(_LEAST_MESSAGE, max(messages, default=0))
    is_wide_enough = needed + least <= width or len(others) == len(headers)
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=is_wide_enough and header != "MESSAGE")
    for row in rows:
        table.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return table


def _style(cell: str) -> str:
    if cell in _GOOD:
        return "green"
    if cell in _BAD:
        return "red"
    return "yellow" if cell in _PENDING else ""
