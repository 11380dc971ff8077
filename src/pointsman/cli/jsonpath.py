r"""The JSONPath templates of kubectl: text with `{...}` in it.

    {.items[*].metadata.name}                      every name, a space between
    {.status.conditions[?(@.type=="Ready")].status}
    {range .items[*]}{.metadata.name}{"\n"}{end}    once for each

Inside braces stand paths, quoted texts, `range PATH` and `end`. A path has `.key`, `['key']`,
`.*`, `..key`, `[0]`, `[-1]`, `[1:3]`, `[0,2]`, `['a','b']`, `[*]` and filters `[?(@.a=="b")]` with
== != < <= > >= or nothing (the field is there). A dot inside a key is written `\.`. A path that
leads nowhere gives nothing, as with kubectl.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_TEMPLATE = 10_000
MAX_DEPTH = 20
"""Of ranges inside ranges and filters inside filters."""

_NAME = re.compile(r"(?:\\.|[^\s.\[\]{}()'\"=!<>,\\*@$|&?:])+")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class JSONPathError(ValueError):
    """A template that cannot be read; the text says why and where."""


class _Missing:
    """Stands for the value of a path that leads nowhere."""


MISSING = _Missing()

Step = Callable[[Any], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class _Path:
    from_root: bool
    steps: tuple[Step, ...]

    def values(self, root: Any, current: Any) -> list[Any]:
        found = [root if self.from_root else current]
        for step in self.steps:
            found = [value for item in found for value in step(item)]
        return found


@dataclass(frozen=True, slots=True)
class _Range:
    over: _Path
    body: tuple[Any, ...]


class Template:
    """A template that was read once, for any number of values."""

    def __init__(self, text: str) -> None:
        """Raises JSONPathError when `text` is no template."""
        if len(text) > MAX_TEMPLATE:
            raise JSONPathError(f"the template is longer than {MAX_TEMPLATE} characters")
        if "{" not in text and text[:1] in (".", "$"):
            text = f"{{{text}}}"  # a bare path, as `kubectl wait` takes it
        self._parts = _Reader(text).template()

    def render(self, value: Any) -> str:
        """The template filled in."""
        return "".join(_rendered(self._parts, value, value))

    def values(self, value: Any) -> list[Any]:
        """What the first path of the template leads to, unrendered."""
        path = next((part for part in self._parts if isinstance(part, _Path)), None)
        return path.values(value, value) if path is not None else []


def text_of(value: Any) -> str:
    """A value as a template shows it: texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _rendered(parts: Sequence[Any], root: Any, current: Any) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, _Path):
            yield " ".join(text_of(value) for value in part.values(root, current))
        else:
            for item in part.over.values(root, current):
                yield from _rendered(part.body, root, item)


class _Reader:
    """Reads a template from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def template(self) -> tuple[Any, ...]:
        parts, ended = self._parts(0)
        if ended:
            raise self._error("an {end} without a {range}")
        return parts

    def _parts(self, depth: int) -> tuple[tuple[Any, ...], bool]:
        """The parts up to the end of the text or of the range; whether an `{end}` was met."""
        if depth > MAX_DEPTH:
            raise self._error("ranges are nested too deep")
        parts: list[Any] = []
        in_braces = depth > 0
        while True:
            if not in_braces:
                start = self._text.find("{", self._at)
                if start < 0:
                    parts.append(self._text[self._at :])
                    self._at = len(self._text)
                    return tuple(parts), False
                parts.append(self._text[self._at : start])
                self._at = start + 1
                in_braces = True
            self._skip_space()
            if self._take("}"):
                in_braces = False
            elif self._take_word("end"):
                return tuple(parts), True
            elif self._take_word("range"):
                parts.append(self._range(depth))
            else:
                parts.append(self._expression())

    def _range(self, depth: int) -> _Range:
        self._skip_space()
        over = self._path(depth)
        body, ended = self._parts(depth + 1)
        if not ended:
            raise self._error("a {range} without an {end}")
        return _Range(over, body)

    def _expression(self) -> str | _Path:
        if self._peek() in ("'", '"'):
            return self._quoted()
        if self._peek() == "":
            raise self._error("a { without a }")
        return self._path(0)

    def _path(self, depth: int) -> _Path:
        start = self._at
        from_root = self._take("$")
        if not from_root:
            self._take("@")
        steps: list[Step] = []
        while (step := self._step(depth, is_first=self._at == start)) is not None:
            steps.append(step)
        if self._at == start:
            raise self._error(f"unexpected {self._peek()!r}")
        # A path that starts with neither $ nor @ means the thing at hand, the root outside ranges.
        return _Path(from_root, tuple(steps))

    def _step(self, depth: int, *, is_first: bool) -> Step | None:
        if self._take(".."):
            return self._descent(depth)
        if self._take("["):
            return self._brackets(depth)
        if self._take("."):
            if self._take("*"):
                return _children
            if self._peek() == "[":
                return _itself
            name = self._name()
            # `{.}` is the thing at hand.
            return _key(name) if name else _itself
        if is_first and (name := self._name()):
            return _key(name)
        return None

    def _descent(self, depth: int) -> Step:
        if self._take("*"):
            return _everything
        if self._take("["):
            step = self._brackets(depth)
        else:
            step = _key(self._name() or self._fail("a name is missing after '..'"))
        return lambda value: (found for inner in _within(value) for found in step(inner))

    def _brackets(self, depth: int) -> Step:
        self._skip_space()
        if self._take("*"):
            step: Step = _children
        elif self._take("?"):
            step = self._filter(depth)
        else:
            step = self._choices()
        self._skip_space()
        if not self._take("]"):
            raise self._error("a [ without a ]")
        return step

    def _choices(self) -> Step:
        choices: list[Step] = []
        while True:
            self._skip_space()
            if self._peek() in ("'", '"'):
                choices.append(_key(self._quoted()))
            else:
                choices.append(self._position())
            self._skip_space()
            if not self._take(","):
                break
        if len(choices) == 1:
            return choices[0]
        return lambda value: (found for choice in choices for found in choice(value))

    def _position(self) -> Step:
        numbers: list[int | None] = [self._integer()]
        while self._take(":") and len(numbers) < 3:
            numbers.append(self._integer())
        if len(numbers) == 1:
            return _index(numbers[0] if numbers[0] is not None else self._fail("an empty []"))
        if len(numbers) == 3 and numbers[2] is not None and numbers[2] <= 0:
            raise self._error("the step of a slice must be at least 1")
        return _slice(slice(*numbers))

    def _filter(self, depth: int) -> Step:
        if depth >= MAX_DEPTH:
            raise self._error("filters are nested too deep")
        self._skip_space()
        if not self._take("("):
            raise self._error("a filter is written [?(...)]")
        self._skip_space()
        left = self._operand(depth + 1)
        self._skip_space()
        sign = next((sign for sign in _COMPARISONS if self._take(sign)), None)
        self._skip_space()
        right = self._operand(depth + 1) if sign is not None else None
        self._skip_space()
        if not self._take(")"):
            raise self._error("a filter compares two things: ) is missing")
        return _filter(left, sign, right)

    def _operand(self, depth: int) -> Any:
        if self._peek() in ("'", '"'):
            return self._quoted()
        if found := _NUMBER.match(self._text, self._at):
            self._at = found.end()
            return float(found[0]) if "." in found[0] else int(found[0][:20])
        for word, value in (("true", True), ("false", False), ("null", None)):
            if self._take_word(word):
                return value
        return self._path(depth)

    def _integer(self) -> int | None:
        self._skip_space()
        found = re.compile(r"-?[0-9]{1,9}").match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        return int(found[0])

    def _quoted(self) -> str:
        quote = self._text[self._at]
        start = self._at
        self._at += 1
        text: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            self._at += 1
            if char == quote:
                return "".join(text)
            if char == "\\" and self._at < len(self._text):
                following = self._text[self._at]
                self._at += 1
                char = _ESCAPES.get(following, f"\\{following}")
            text.append(char)
        self._at = start
        raise self._error("a quote is not closed")

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return re.sub(r"\\(.)", r"\1", found[0])

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _take_word(self, word: str) -> bool:
        after = self._text[self._at + len(word) : self._at + len(word) + 1]
        return not (after.isalnum() or (after in "_-.[" and after)) and self._take(word)

    def _skip_space(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _error(self, message: str) -> JSONPathError:
        return JSONPathError(f"{message} at character {self._at + 1} of {self._text!r}")

    def _fail(self, message: str) -> Any:
        raise self._error(message)


def _itself(value: Any) -> Iterator[Any]:
    yield value


def _key(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _within(value: Any) -> Iterator[Any]:
    yield value
    for child in _children(value):
        yield from _within(child)


def _everything(value: Any) -> Iterator[Any]:
    for child in _children(value):
        yield from _within(child)


def _index(position: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= position < len(value):
            yield value[position]

    return step


def _slice(part: slice) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[part]

    return step


def _filter(left: Any, sign: str | None, right: Any) -> Step:
    def holds(item: Any) -> bool:
        first = _operand_value(left, item)
        if sign is None:
            return not isinstance(first, _Missing)
        second = _operand_value(right, item)
        if isinstance(first, _Missing) or isinstance(second, _Missing):
            return False
        try:
            return _COMPARISONS[sign](first, second)
        except TypeError:  # a text and a number have no order
            return False

    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from (item for item in value if holds(item))

    return step


def _operand_value(operand: Any, item: Any) -> Any:
    if not isinstance(operand, _Path):
        return operand
    found = operand.values(item, item)
    return found[0] if found else MISSING
