"""Validation errors in the user's words: where, what was expected, what is there, what was meant.

pydantic finds the errors; here they are turned from its terms into those of the file.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pointsman.resources.base import Model
from pointsman.resources.fields import PATTERN_TEXTS, Where
from pointsman.resources.problems import did_you_mean, shown

M = TypeVar("M", bound=Model)

MAX_FAULTS = 100
"""Of one value, errors and unknown fields each; who has more has other worries than the next."""
_MAX_ROUNDS = 16
"""Each round takes out the unknown fields found so far and looks again."""


class Fault(NamedTuple):
    """One thing that is wrong, by its place in the value."""

    where: Where
    message: str


@dataclass(frozen=True, slots=True)
class Faults(Generic[M]):
    """What came of a value: the model when nothing is really wrong, and all faults."""

    value: M | None
    errors: tuple[Fault, ...] = ()
    unknown: tuple[Fault, ...] = ()
    """Fields that do not exist; `value` is made without them."""


def faults(cls: type[M], data: Any) -> Faults[M]:
    """`data` as a `cls`, leaving out fields it does not know, or why it is none."""
    unknown: list[Fault] = []
    for _ in range(_MAX_ROUNDS):
        try:
            return Faults(cls.model_validate(data), (), tuple(unknown))
        except ValidationError as error:
            details = error.errors(include_url=False)
        except RecursionError:
            return Faults(None, (Fault((), "is nested too deep"),), tuple(unknown))
        extras = [d["loc"] for d in details if d["type"] == "extra_forbidden"]
        if not extras:
            break
        room = MAX_FAULTS - len(unknown)
        unknown += [Fault(where, _unknown_text(cls, where)) for where in extras[:room]]
        data = _without(data, extras)
    told = details[:MAX_FAULTS]
    errors = dict.fromkeys(fault for item in told for fault in _explained(data, item))
    return Faults(None, tuple(_folded(errors)), tuple(unknown))


def _folded(found: typing.Iterable[Fault]) -> Iterator[Fault]:
    # Each branch of a union complains for itself: `must be a string` and `must be a number`.
    by_place: dict[Where, list[str]] = {}
    for fault in found:
        by_place.setdefault(fault.where, []).append(fault.message)
    for where, messages in by_place.items():
        wanted = [m.partition(", is ") for m in messages]
        if len(messages) > 1 and all(m.startswith("must be a") for m in messages):
            kinds = " or ".join(head.removeprefix("must be ") for head, _, _ in wanted)
            yield Fault(where, f"must be {kinds}, is {wanted[0][2]}")
        else:
            yield from (Fault(where, message) for message in messages)


def _explained(data: Any, item: ErrorDetails) -> Iterator[Fault]:
    where = _place(data, item["loc"], missing=item["type"] == "missing")
    context = item.get("ctx") or {}
    if item["type"] == "rules":
        for inner, message in context["problems"]:
            yield Fault((*where, *inner), message)
        return
    given = item["input"]
    if item["type"] == "too_short" and len(given) >= context["min_length"]:
        return  # its entries are wrong, not their number
    explain = _TEXTS.get(item["type"])
    if explain is not None:
        yield Fault(where, explain(context, given))
    else:
        yield Fault(where, f"{item['msg'][:1].lower()}{item['msg'][1:]}, is {shown(given)}")


def _place(data: Any, loc: tuple[int | str, ...], *, missing: bool) -> Where:
    # Behind a scalar, pydantic's place goes on with the names of its own validators.
    where: list[str | int] = []
    for index, part in enumerate(loc):
        is_last = index == len(loc) - 1
        if isinstance(data, Mapping) and isinstance(part, str):
            if part not in data and not (missing and is_last):
                break
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            break
        where.append(part)
    return tuple(where)


def _without(data: Any, places: typing.Iterable[Where]) -> Any:
    """A copy of `data` without the fields at `places`, in one walk over what lies on the way."""
    tree: dict[Any, Any] = {}
    for place in places:
        node: Any = tree
        for part in place[:-1]:
            node = node.setdefault(part, {})
            if node is _GONE:
                break
        else:
            node[place[-1]] = _GONE
    return _pruned(data, tree)


_GONE = object()


def _pruned(data: Any, tree: dict[Any, Any]) -> Any:
    if isinstance(data, Mapping):
        return {
            key: _pruned(value, tree[key]) if key in tree else value
            for key, value in data.items()
            if tree.get(key) is not _GONE
        }
    if isinstance(data, list):
        return [_pruned(v, tree[i]) if i in tree else v for i, v in enumerate(data)]
    return data


def _unknown_text(cls: type[Model], where: Where) -> str:
    known = _fields_at(cls, where[:-1])
    return f"unknown field{did_you_mean(str(where[-1]), known)}"


def _fields_at(cls: type[Model], where: Where) -> list[str]:
    model: type[Model] | None = cls
    for part in where:
        if isinstance(part, int):
            continue
        if model is None:
            return []
        found = [f for n, f in model.model_fields.items() if part in (n, f.alias)]
        model = _model_in(found[0].annotation) if found else None
    return [f.alias or n for n, f in model.model_fields.items()] if model is not None else []


def _model_in(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, Model) else None
    inner = (_model_in(argument) for argument in typing.get_args(annotation))
    return next((model for model in inner if model is not None), None)


def _wrong_type(wanted: str) -> Callable[[Mapping[str, Any], Any], str]:
    def text(_: Mapping[str, Any], given: Any) -> str:
        return f"must be {wanted}, is {shown(given)}{_quotes_hint(wanted, given)}"

    return text


def _quotes_hint(wanted: str, given: Any) -> str:
    if wanted == "a string" and isinstance(given, bool | int | float):
        return " (put it in quotes)"
    if wanted == "a whole number" and isinstance(given, str) and given.strip().isdecimal():
        return " (remove the quotes)"
    if wanted == "true or false" and isinstance(given, str):
        return " (only true and false are, without quotes)"
    return ""


def _one_of(context: Mapping[str, Any], given: Any) -> str:
    expected = str(context.get("expected", "")).replace("'", "")
    choices = expected.replace(" or ", ", ").split(", ")
    hint = did_you_mean(given, choices) if isinstance(given, str) else ""
    lead = "must be one of" if len(choices) > 1 else "must be"
    return f"{lead} {', '.join(choices)}, is {shown(given)}{hint}"


def _pattern(context: Mapping[str, Any], given: Any) -> str:
    pattern = str(context.get("pattern", ""))
    wanted = PATTERN_TEXTS.get(pattern)
    return f"must be {wanted}, is {shown(given)}" if wanted else _no_match(pattern, given)


def _no_match(pattern: str, given: Any) -> str:
    return f"must match {pattern}, is {shown(given)}"


def _bound(lead: str, key: str) -> Callable[[Mapping[str, Any], Any], str]:
    def text(context: Mapping[str, Any], given: Any) -> str:
        return f"must be {lead} {context[key]}, is {shown(given)}"

    return text


def _items(lead: str, key: str) -> Callable[[Mapping[str, Any], Any], str]:
    def text(context: Mapping[str, Any], given: Any) -> str:
        count = context.get("actual_length")
        wanted = context[key]
        things = "entry" if wanted == 1 else "entries"
        has = f", has {count}" if count is not None else ""
        return f"must have {lead} {wanted} {things}{has}"

    return text


def _length(lead: str, key: str) -> Callable[[Mapping[str, Any], Any], str]:
    def text(context: Mapping[str, Any], given: Any) -> str:
        wanted = context[key]
        if given == "":
            return "must not be empty"
        things = "character" if wanted == 1 else "characters"
        return f"must have {lead} {wanted} {things}, has {len(given)}"

    return text


_TEXTS: dict[str, Callable[[Mapping[str, Any], Any], str]] = {
    "missing": lambda _context, _given: "is required",
    "string_type": _wrong_type("a string"),
    "int_type": _wrong_type("a whole number"),
    "int_from_float": _wrong_type("a whole number"),
    "int_parsing": _wrong_type("a whole number"),
    "float_type": _wrong_type("a number"),
    "bool_type": _wrong_type("true or false"),
    "bool_parsing": _wrong_type("true or false"),
    "tuple_type": _wrong_type("a list"),
    "list_type": _wrong_type("a list"),
    "dict_type": _wrong_type("a mapping"),
    "model_type": _wrong_type("a mapping"),
    "model_attributes_type": _wrong_type("a mapping"),
    "literal_error": _one_of,
    "string_pattern_mismatch": _pattern,
    "string_too_short": _length("at least", "min_length"),
    "string_too_long": _length("at most", "max_length"),
    "too_short": _items("at least", "min_length"),
    "too_long": _items("at most", "max_length"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than_equal": _bound("at most", "le"),
}
"""By pydantic's error type; what is not here keeps pydantic's own words."""
