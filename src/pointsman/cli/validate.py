"""`pointsman validate`: everything that is wrong with manifests, at once, touching nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from pointsman.resources.core import ConfigMap
from pointsman.resources.parse import Parsed, embedded_config
from pointsman.resources.problems import Problem
from pointsman.sources.folders import STDIN, read_text, scan, text_of
from pointsman.sources.ledger import EMPTY, Page, page_of, winners


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-q", "--quiet", is_flag=True, help="Only what is wrong, no summary.")
@click.pass_context
def validate(context: click.Context, paths: tuple[str, ...], quiet: bool) -> None:
    """Check manifests without running anything.

    PATH is a file, a folder with everything below it, or - for standard input. Fields that do not
    exist are errors here. The exit code is 1 when there is an error.

    \b
      pointsman validate manifests/
      kubectl get gtw,httproute -o yaml | pointsman validate -
    """  # noqa: D301  # click reads the escape
    files, objects, problems = check(paths)
    for problem in problems:
        lead, _, rest = str(problem).partition(": ")
        colour = "red" if problem.is_error else "yellow"
        click.echo(f"{click.style(lead, fg=colour, bold=True)}: {rest}")
    errors = sum(problem.is_error for problem in problems)
    if not quiet:
        found = f"{_count(objects, 'object')} in {_count(files, 'file')}"
        warnings = len(problems) - errors
        wrong = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
        click.echo(f"{found}: {wrong if problems else 'all good'}")
    if errors:
        context.exit(1)


def check(paths: Sequence[str]) -> tuple[int, int, list[Problem]]:
    """How many files and good objects there are, and all problems in order of their places."""
    found = scan(paths)
    pages = [_read(name) for name in found.files]
    if STDIN in paths:
        stream = sys.stdin.buffer
        pages.append(page_of(lambda: text_of(stream), "<stdin>", EMPTY, strict=True))
    chosen, problems = winners(pages)
    problems += found.problems
    problems += [problem for item in chosen.values() for problem in _inside(item)]
    if not pages and not found.problems:
        message = "no file with a name ending in .yaml, .yml or .json is here"
        problems.append(Problem("error", " ".join(paths), 0, "", message))
    unique = dict.fromkeys(problems)
    return len(pages), len(chosen), sorted(unique, key=lambda p: (p.file, p.line, p.field))


def _read(name: str) -> Page:
    return page_of(lambda: read_text(name), name, EMPTY, strict=True)


def _inside(item: Parsed) -> list[Problem]:
    if not isinstance(item.resource, ConfigMap):
        return []
    _, problems = embedded_config(item.resource)
    file, line = item.origin
    return [
        Problem(p.severity, file, line, p.field, f"{p.message} (in {p.file}:{p.line})", p.subject)
        for p in problems
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
