"""The label selectors of command lines and of the API: `app=web,tier!=test,zone in (a,b),!draft`.

The grammar is that of Kubernetes: terms by commas, all of which must hold; a term is a key, `!key`,
or a key with `=`, `==`, `!=`, `>`, `<`, `in (...)` or `notin (...)`. Where a label is absent, `!=`
and `notin` hold, `>` and `<` do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pointsman.resources.fields import LABEL_KEY, LABEL_VALUE

_SET = re.compile(r"(\S+?)\s+(in|notin)\s*\(([^()]*)\)")
_SIGN = re.compile(r"([^\s=!<>]+)\s*(==|=|!=|>|<)\s*([^\s=!<>]*)")
_KEY = re.compile(r"(!?)\s*([^\s=!(),<>]+)")
_INTEGER = re.compile(r"[+-]?\d{1,18}")


class LabelQueryError(ValueError):
    """A selector that cannot be read."""


@dataclass(frozen=True, slots=True)
class _Term:
    key: str
    sign: str
    """in, notin, exists, !, > or <."""
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return _SIGNS[self.sign](labels.get(self.key), self.values)


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and _INTEGER.fullmatch(value) else None


def _is_above(value: str | None, limits: tuple[str, ...]) -> bool:
    number = _number(value)
    return number is not None and number > int(limits[0])


def _is_below(value: str | None, limits: tuple[str, ...]) -> bool:
    number = _number(value)
    return number is not None and number < int(limits[0])


_SIGNS: Mapping[str, Callable[[str | None, tuple[str, ...]], bool]] = {
    "in": lambda value, values: value in values,
    "notin": lambda value, values: value not in values,
    "exists": lambda value, _: value is not None,
    "!": lambda value, _: value is None,
    ">": _is_above,
    "<": _is_below,
}


@dataclass(frozen=True, slots=True)
class LabelQuery:
    """All terms must hold; without terms everything is meant."""

    terms: tuple[_Term, ...] = ()
    text: str = ""
    """As it was written."""

    @classmethod
    def of(cls, text: str) -> LabelQuery:
        """Raises LabelQueryError when `text` is no selector."""
        # Commas inside parentheses part values, the others part terms.
        parts = [part.strip() for part in re.split(r",(?![^(]*\))", text)]
        return cls(tuple(_term(part) for part in parts if part), text.strip())

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return all(term.matches(labels) for term in self.terms)


def _term(text: str) -> _Term:
    found = _parsed(text)
    if found is None or not re.match(LABEL_KEY, found.key):
        raise LabelQueryError(
            f"unable to parse the selector {text!r} (write it like app=web,tier!=x)"
        )
    for value in found.values:
        if len(value) > 63 or not re.match(LABEL_VALUE, value):
            raise LabelQueryError(f"unable to parse the selector {text!r}: {value!r} is no label")
        if found.sign in "<>" and not _INTEGER.fullmatch(value):
            raise LabelQueryError(f"unable to parse the selector {text!r}: {value!r} is no integer")
    return found


def _parsed(text: str) -> _Term | None:
    if found := _SET.fullmatch(text):
        values = tuple(value.strip() for value in found[3].split(","))
        return _Term(found[1], found[2], values)
    if found := _SIGN.fullmatch(text):
        sign = {"!=": "notin", "=": "in", "==": "in"}.get(found[2], found[2])
        return _Term(found[1], sign, (found[3],))
    if found := _KEY.fullmatch(text):
        return _Term(found[2], "!" if found[1] else "exists")
    return None
