"""`pointsman migrate`: manifests of the older generations in, those of today out."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from pointsman.cli.output import as_yaml
from pointsman.gateway import names
from pointsman.inference.migration.migrate import Migration, migrate
from pointsman.resources.documents import Document, Part, read_part, split
from pointsman.resources.parse import is_list, unpacked
from pointsman.resources.problems import Problem
from pointsman.sources.folders import STDIN, read_text, scan, text_of

STDIN_NAME = "<stdin>"

Objects = tuple[dict[str, Any], ...]

_COMMENT = re.compile(r"(?m)(?:^|\s)#")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file as it is written, with what stands in it."""

    file: str
    part: Part
    documents: tuple[Document, ...]


@click.command("migrate")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
@click.pass_context
def migrate_command(context: click.Context, paths: tuple[str, ...], output: str) -> None:
    """Turn InferencePools and InferenceModels of v1alpha2 into the objects of today.

    PATH is a file, a folder with everything below it, or - for standard input. All objects are
    printed, in their order; those that need no change as they are written, with their comments.
    What is not carried over goes to standard error, a line for each. The exit code is 1 when
    something could not be read or stays of the older generation; what cannot be read is left out.

    \b
      pointsman migrate manifests/ > migrated.yaml
      kubectl get inferencepools,inferencemodels,httproutes -A -o yaml | pointsman migrate -
    """  # noqa: D301  # click reads the escape
    pieces, problems = read(paths)
    documents = [item for piece in pieces for whole in piece.documents for item in unpacked(whole)]
    found = migrate(documents, names.pool)
    after = _by_document(pieces, found)
    for text in _as_json(pieces, after) if output == "json" else _as_yaml(pieces, after):
        click.echo(text, nl=False)
    for note in found.notes:
        click.echo(str(note), err=True)
    for place in _lost_comments(pieces, after) if output == "yaml" else ():
        click.echo(f"{place}: comments of objects that are written anew are left out", err=True)
    problems += found.problems
    for problem in problems:
        click.echo(str(problem), err=True)
    if not found.found_older and not problems:
        click.echo("nothing here is of an older generation", err=True)
    if any(problem.is_error for problem in problems):
        context.exit(1)


def read(paths: Sequence[str]) -> tuple[list[Piece], list[Problem]]:
    """All parts of all files in their order, and what cannot be read."""
    scanned = scan(paths)
    problems = list(scanned.problems)
    pieces: list[Piece] = []
    files = [*scanned.files, *([STDIN] if STDIN in paths else [])]
    for path in files:
        name = STDIN_NAME if path == STDIN else path
        try:
            text = text_of(sys.stdin.buffer) if path == STDIN else read_text(path)
        except OSError as error:
            message = f"cannot be read: {error.strerror or error}"
            problems.append(Problem("error", name, 0, "", message))
            continue
        except ValueError as error:
            problems.append(Problem("error", name, 0, "", str(error)))
            continue
        parts, faults = split(text, name)
        problems += faults
        for part in parts:
            documents, faults = read_part(part, name)
            problems += faults
            if documents:
                pieces.append(Piece(name, part, tuple(documents)))
    if not files and not problems:
        message = "no file with a name ending in .yaml, .yml or .json is here"
        problems.append(Problem("error", " ".join(paths), 0, "", message))
    return pieces, problems


def _by_document(pieces: Sequence[Piece], found: Migration) -> list[list[Objects | None]]:
    """For each piece and document in it what takes its place; None where it stays."""
    replacements = iter(found.replacements)
    return [[_new(whole, replacements) for whole in piece.documents] for piece in pieces]


def _new(whole: Document, replacements: Iterator[Objects | None]) -> Objects | None:
    items = list(unpacked(whole))
    after = [next(replacements) for _ in items]
    if all(each is None for each in after):
        return None
    objects = tuple(
        one
        for item, each in zip(items, after, strict=True)
        for one in (each if each is not None else (item.data,))
    )
    if not is_list(whole.data):
        return objects
    rest = {key: value for key, value in whole.data.items() if key not in _OF_LISTS}
    return ({"apiVersion": "v1", "kind": "List", **rest, "items": list(objects)},)


_OF_LISTS = ("apiVersion", "kind", "items")


def _as_yaml(pieces: Sequence[Piece], after: Sequence[list[Objects | None]]) -> Iterator[str]:
    for piece, new in zip(pieces, after, strict=True):
        text = _as_written(piece) if all(each is None for each in new) else None
        if text is not None:
            yield text if text.startswith("---") else f"---\n{text}"
            continue
        for document, objects in zip(piece.documents, new, strict=True):
            for one in objects if objects is not None else (document.data,):
                yield f"---\n{as_yaml(one, is_sorted=False)}"


def _as_written(piece: Piece) -> str | None:
    """The text of a part as it can stand among others; None where that would change it."""
    text = piece.part.text
    if text.lstrip().startswith("{"):
        return None  # JSON may have escapes that are none in YAML
    if text.endswith("\n"):
        return text
    # What ends with a block of text may end otherwise with another line break.
    ended = f"{text}\n"
    again, _ = read_part(piece.part._replace(text=ended), piece.file)
    same = [item.data for item in again] == [item.data for item in piece.documents]
    return ended if same else None


def _as_json(pieces: Sequence[Piece], after: Sequence[list[Objects | None]]) -> Iterator[str]:
    items: list[Any] = []
    for piece, new in zip(pieces, after, strict=True):
        for document, objects in zip(piece.documents, new, strict=True):
            whole = [document] if objects is None else [replace(document, data=o) for o in objects]
            items += [item.data for each in whole for item in unpacked(each)]
    value = {"apiVersion": "v1", "kind": "List", "items": items}
    yield json.dumps(value, indent=4, ensure_ascii=False) + "\n"


def _lost_comments(pieces: Sequence[Piece], after: Sequence[list[Objects | None]]) -> list[str]:
    """Where the first comment stands that is not printed; only that is told."""
    for piece, new in zip(pieces, after, strict=True):
        changed = any(each is not None for each in new)
        found = _COMMENT.search(piece.part.text) if changed else None
        if found is not None:
            line = piece.part.first_line + piece.part.text.count("\n", 0, found.end())
            return [f"{piece.file}:{line}"]
    return []
