"""The migration as a whole: documents in, and for each of them what takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pointsman.inference.migration.references import Naming, References
from pointsman.inference.migration.replacements import Replacements
from pointsman.inference.migration.scene import OLDER, OLDER_KINDS, Item, Note, Scene
from pointsman.resources.documents import Document
from pointsman.resources.parse import parse_document
from pointsman.resources.problems import Problem


@dataclass(frozen=True, slots=True)
class Migration:
    """What becomes of some documents."""

    replacements: tuple[tuple[dict[str, Any], ...] | None, ...]
    """For each document the objects that take its place; None where it stays as it is."""
    notes: tuple[Note, ...]
    """What is not as it was before."""
    problems: tuple[Problem, ...]
    """Older objects that are wrong, and stay as they are."""
    found_older: bool
    """Whether there was an object of an older generation."""


def migrate(documents: Sequence[Document], naming: Naming) -> Migration:
    """Turn objects of older generations into those of today.

    Each document has one object (see `parse.unpacked`), or something that is none, which stays.
    `naming` tells how the Envoy resources of a pool are called, for the patches that name them.
    """
    items = [
        Item(document, parse_document(document)) if isinstance(document.data, dict) else None
        for document in documents
    ]
    scene = Scene.of(item for item in items if item is not None)
    successors, references = Replacements(scene), References(scene, naming)
    replacements: list[tuple[dict[str, Any], ...] | None] = []
    notes: list[Note] = []
    problems: list[Problem] = []
    for item in items:
        if item is None:
            replacements.append(None)
        elif isinstance(item.parsed.resource, OLDER):
            made = successors.of(item)
            notes += made.notes
            problems += made.problems
            replacements.append(None if made.problems else tuple(made.objects))
        elif _kind(item.data) in OLDER_KINDS:
            problems += item.parsed.problems
            replacements.append(None)
        else:
            renewed, told = references.renewed(item)
            notes += told
            replacements.append(None if renewed is None else (renewed,))
    return Migration(tuple(replacements), tuple(notes), tuple(problems), scene.has_older)


def _kind(data: dict[str, Any]) -> tuple[str, str]:
    group, _, _ = str(data.get("apiVersion")).rpartition("/")
    return group, str(data.get("kind"))
