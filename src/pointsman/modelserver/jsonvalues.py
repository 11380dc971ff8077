"""Makes a JSON value that fits a JSON schema: arguments of tool calls, structured output.

Covers what people put in tool schemas (types, enums, required and optional properties, arrays,
bounds, local references). A schema that asks for more gets a value of the right type.
"""

from __future__ import annotations

import math
from typing import Any

_DEPTH_LIMIT = 8
"""Nesting at which a value becomes null; schemas may refer to themselves."""

_ITEMS_LIMIT = 16
_LENGTH_LIMIT = 4096
_BOUND_LIMIT = 1e15
"""Items, characters and numbers that a schema can ask for at most."""

_WORDS = ("signal", "platform", "junction", "express", "timetable", "siding", "lantern", "depot")


def value_for(schema: Any, seed: int) -> Any:
    """A value that the schema allows, the same for the same seed."""
    root = schema if isinstance(schema, dict) else {}
    return _value(root, root, seed, 0)


def _value(schema: dict[str, Any], root: dict[str, Any], seed: int, depth: int) -> Any:
    if depth > _DEPTH_LIMIT:
        return None
    schema = _resolved(schema, root)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    options = schema.get("enum")
    if isinstance(options, list) and options:
        return options[seed % len(options)]
    for group in ("anyOf", "oneOf", "allOf"):
        members = schema.get(group)
        if isinstance(members, list) and members and isinstance(members[0], dict):
            return _value(members[0], root, seed, depth + 1)
    return _typed(schema, root, seed, depth)


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return schema
    target: Any = root
    for step in reference[2:].split("/"):
        target = target.get(step) if isinstance(target, dict) else None
    return target if isinstance(target, dict) else {}


def _typed(schema: dict[str, Any], root: dict[str, Any], seed: int, depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((entry for entry in kind if entry != "null"), "null")
    if kind == "object":
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return {}
        return {
            name: _value(entry if isinstance(entry, dict) else {}, root, seed + place, depth + 1)
            for place, (name, entry) in enumerate(properties.items())
        }
    if kind == "array":
        items = schema.get("items")
        count = round(min(max(_bound(schema, "minItems", 1), 1), _ITEMS_LIMIT))
        entry = items if isinstance(items, dict) else {}
        return [_value(entry, root, seed + place, depth + 1) for place in range(count)]
    if kind in ("integer", "number"):
        return _number(schema, seed, is_whole=kind == "integer")
    if kind == "boolean":
        return seed % 2 == 0
    if kind == "null":
        return None
    return _text(schema, seed)


def _number(schema: dict[str, Any], seed: int, *, is_whole: bool) -> int | float:
    least = _bound(schema, "minimum", 0)
    if "exclusiveMinimum" in schema:
        least = _bound(schema, "exclusiveMinimum", 0) + 1
    most = max(least, _bound(schema, "maximum", max(least, 0) + 100))
    if is_whole:
        return math.ceil(least) + seed % max(1, math.floor(most) - math.ceil(least) + 1)
    return round(least + (seed % 1000) / 1000 * (most - least), 3)


def _text(schema: dict[str, Any], seed: int) -> str:
    word = _WORDS[seed % len(_WORDS)]
    least = min(_bound(schema, "minLength", 0), _LENGTH_LIMIT)
    while len(word) < least:
        word += " " + _WORDS[(seed + len(word)) % len(_WORDS)]
    return word[: round(max(0, min(_bound(schema, "maxLength", _LENGTH_LIMIT), _LENGTH_LIMIT)))]


def _bound(schema: dict[str, Any], name: str, default: float) -> float:
    """A number in a schema; what is none, or out of all proportion, counts as absent."""
    value = schema.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _BOUND_LIMIT:
        return default
    return value
