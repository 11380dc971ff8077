"""The label selectors of a command line: `app=web,tier!=test,zone in (a,b),!draft`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^()]*)\)")
_EQUAL = re.compile(r"([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)")
_KEY = re.compile(r"(!?)\s*([^\s=!(),]+)")


class LabelQueryError(ValueError):
    """A selector that cannot be read."""


@dataclass(frozen=True, slots=True)
class _Term:
    key: str
    sign: str
    """in, notin, exists or !."""
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.sign == "in":
            return labels.get(self.key) in self.values
        if self.sign == "notin":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.sign == "exists")


@dataclass(frozen=True, slots=True)
class LabelQuery:
    """All terms must hold; without terms everything is meant."""

    terms: tuple[_Term, ...] = ()

    @classmethod
    def of(cls, text: str) -> LabelQuery:
        """Raises LabelQueryError when `text` is no selector."""
        # Commas inside parentheses part values, the others part terms.
        parts = [part.strip() for part in re.split(r",(?![^(]*\))", text)]
        return cls(tuple(_term(part) for part in parts if part))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return all(term.matches(labels) for term in self.terms)


def _term(text: str) -> _Term:
    if found := _SET.fullmatch(text):
        values = tuple(value.strip() for value in found[3].split(","))
        return _Term(found[1], found[2], values)
    if found := _EQUAL.fullmatch(text):
        return _Term(found[1], "notin" if found[2] == "!=" else "in", (found[3],))
    if found := _KEY.fullmatch(text):
        return _Term(found[2], "!" if found[1] else "exists")
    raise LabelQueryError(f"unable to parse the selector {text!r} (write it like app=web,tier!=x)")
