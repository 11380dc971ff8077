"""JSON patches (RFC 6902) on plain data, with parents made where `add` needs them.

Errors name the longest part of the path that exists and what is there beside the missing key:
users patch generated resources, and a path that worked for one version may end early in another.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Sequence
from typing import Any

import jsonpath

MAX_MATCHES = 1000
"""A JSONPath that selects more places than this is taken for a mistake."""

SHOWN_KEYS = 12


class PatchError(ValueError):
    """A patch that does not apply; the message says why and what is there instead."""


def select(document: Any, path: str) -> list[str]:
    """The places that a JSONPath selects, as JSON pointers; at least one."""
    try:
        found = [
            str(match.pointer())
            for _, match in zip(range(MAX_MATCHES), jsonpath.finditer(path, document), strict=False)
        ]
    except jsonpath.JSONPathError as error:
        raise PatchError(f"jsonPath {path!r} cannot be read: {error}") from error
    if not found:
        raise PatchError(
            f"no jsonPointers were found while evaluating the jsonPath: '{path}'. Ensure the "
            "elements you are trying to select with the jsonPath exist in the document. If you "
            "need to add a non-existing property, use the 'path' attribute"
        )
    return found


def apply_operation(
    document: Any, op: str, path: str, value: Any = None, source: str | None = None
) -> Any:
    """The document after one operation; the one given stays as it was."""
    result = copy.deepcopy(document)
    parts = _parts(path)
    if op == "test":
        if _get(result, parts) != value:
            raise PatchError(f"test failed: {path} is not {value!r}")
        return result
    if op in ("move", "copy"):
        from_parts = _parts(source or "")
        moved = copy.deepcopy(_get(result, from_parts))
        if op == "move":
            if parts[: len(from_parts)] == from_parts and len(parts) > len(from_parts):
                raise PatchError(f"cannot move {source} into itself")
            result = _remove(result, from_parts)
        return _add(result, parts, moved)
    if op == "remove":
        return _remove(result, parts)
    if op == "replace":
        _get(result, parts)
        return _set(result, parts, value)
    return _add(result, parts, copy.deepcopy(value))


def _parts(pointer: str) -> list[str]:
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise PatchError(f"path {pointer!r} must start with '/'")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]


def _get(document: Any, parts: Sequence[str]) -> Any:
    here = document
    for depth, part in enumerate(parts):
        if isinstance(here, dict) and part in here:
            here = here[part]
        elif isinstance(here, list) and _is_index(part) and int(part) < len(here):
            here = here[int(part)]
        else:
            raise _missing(parts, depth, here)
    return here


def _set(document: Any, parts: Sequence[str], value: Any) -> Any:
    if not parts:
        return value
    parent = _get(document, parts[:-1])
    if isinstance(parent, list):
        parent[int(parts[-1])] = value
    else:
        parent[parts[-1]] = value
    return document


def _remove(document: Any, parts: Sequence[str]) -> Any:
    if not parts:
        raise PatchError("the whole resource cannot be removed")
    _get(document, parts)
    parent = _get(document, parts[:-1])
    if isinstance(parent, list):
        del parent[int(parts[-1])]
    else:
        del parent[parts[-1]]
    return document


def _add(document: Any, parts: Sequence[str], value: Any) -> Any:
    if not parts:
        return value
    here = document
    for depth, part in enumerate(parts[:-1]):
        if isinstance(here, dict):
            here = here.setdefault(part, [] if _starts_list(parts[depth + 1]) else {})
        elif isinstance(here, list) and _is_index(part) and int(part) < len(here):
            here = here[int(part)]
        else:
            raise _missing(parts, depth, here)
    last = parts[-1]
    if isinstance(here, dict):
        here[last] = value
    elif isinstance(here, list) and last == "-":
        here.append(value)
    elif isinstance(here, list) and _is_index(last) and int(last) <= len(here):
        here.insert(int(last), value)
    else:
        raise _missing(parts, len(parts) - 1, here)
    return document


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdigit() and (part == "0" or not part.startswith("0"))


def _starts_list(part: str) -> bool:
    return part == "-" or part == "0"


def _missing(parts: Sequence[str], depth: int, here: Any) -> PatchError:
    """What to say of a path that ends before its last part."""
    path = "/" + "/".join(parts)
    exists = "/" + "/".join(parts[:depth])
    if isinstance(here, list):
        beside = f"a list of {len(here)}"
    elif isinstance(here, dict):
        keys = sorted(here)
        shown = ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
        near = difflib.get_close_matches(parts[depth], keys, 1)
        beside = f"with {shown or 'nothing in it'}"
        if near:
            beside += f" (did you mean {near[0]}?)"
    else:
        beside = f"which is {here!r}"
    return PatchError(f"{path} does not exist; the path ends at {exists}, {beside}")
