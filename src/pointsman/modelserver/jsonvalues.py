"""Makes a JSON value that fits a JSON schema: arguments of tool calls, structured output.

Covers what people put in tool schemas (types, enums, required and optional properties, arrays,
bounds, local references). A schema that asks for more gets a value of the right type.
"""

from __future__ import annotations

from typing import Any

_DEPTH_LIMIT = 8
"""Nesting at which a value becomes null; schemas may refer to themselves."""

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
    if schema.get("enum"):
        options = schema["enum"]
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
        count = max(int(schema.get("minItems", 1)), 1)
        entry = items if isinstance(items, dict) else {}
        return [_value(entry, root, seed + place, depth + 1) for place in range(min(count, 16))]
    if kind in ("integer", "number"):
        return _number(schema, seed, is_whole=kind == "integer")
    if kind == "boolean":
        return seed % 2 == 0
    if kind == "null":
        return None
    return _text(schema, seed)


def _number(schema: dict[str, Any], seed: int, *, is_whole: bool) -> int | float:
    least = schema.get("minimum", 0)
    most = schema.get("maximum", max(least, 0) + 100)
    if "exclusiveMinimum" in schema:
        least = schema["exclusiveMinimum"] + 1
    if is_whole:
        return int(least) + seed % max(1, int(most) - int(least) + 1)
    return round(float(least) + (seed % 1000) / 1000 * (float(most) - float(least)), 3)


def _text(schema: dict[str, Any], seed: int) -> str:
    word = _WORDS[seed % len(_WORDS)]
    least = int(schema.get("minLength", 0))
    while len(word) < min(least, 4096):
        word += " " + _WORDS[(seed + len(word)) % len(_WORDS)]
    most = schema.get("maxLength")
    return word if most is None else word[: int(most)]
