"""What is wrong with what a user wrote: where it stands, and what would be right."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pointsman.resources.fields import Where

Severity = Literal["error", "warning"]

_SHOWN = 60
"""Characters of a value in a message."""
_PLAIN_KEY = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. A warning leaves the object usable, an error does not."""

    severity: Severity
    file: str
    line: int
    """Counted from 1; 0 when there is no line."""
    field: str
    """Like `spec.listeners[1].port`; "" for the object or file as a whole."""
    message: str
    subject: str = ""
    """The object meant, like `Gateway default/web`, where it is known."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        parts = [
            where,
            "warning" if self.severity == "warning" else "",
            self.field or self.subject,
            self.message,
        ]
        return ": ".join(part for part in parts if part)

    @property
    def is_error(self) -> bool:
        """The object (or file) cannot be used as it is."""
        return self.severity == "error"

    def as_error(self) -> Problem:
        """The same, taken seriously."""
        return replace(self, severity="error")


def field_text(where: Where) -> str:
    """A way into a value as text.

    >>> field_text(("spec", "listeners", 1, "port"))
    'spec.listeners[1].port'
    >>> field_text(("metadata", "labels", "example.com/app"))
    'metadata.labels["example.com/app"]'
    """
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part and _PLAIN_KEY.issuperset(part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part[:_SHOWN])}]"
    return text


def shown(value: Any) -> str:
    """A value as it is shown in a message: short, on one line, in YAML's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean X?` when something known is near, else "".

    >>> did_you_mean("listners", ["listeners", "addresses"])
    ", did you mean 'listeners'?"
    """
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word[:_SHOWN].lower(), by_lower, n=1, cutoff=0.6)
    return f", did you mean {by_lower[near[0]]!r}?" if near else ""
