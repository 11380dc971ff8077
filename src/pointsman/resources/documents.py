"""YAML (and JSON) to plain data, with the line of every field.

Built from the parser's events and not from its node tree, so that depth, size and aliases are
bounded while reading: a document can neither exhaust the stack nor unfold into gigabytes. Each
document of a file is read by itself; a syntax error in one leaves the others alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
import yaml
from yaml import events

from pointsman.resources import scalars
from pointsman.resources.fields import Where
from pointsman.resources.problems import Problem, shown

MAX_CHARACTERS = 16 * 2**20
"""Of one file; an etcd holds objects of 1.5 MB, so that a file may carry some dozens of those."""
MAX_DEPTH = 100
"""Levels of mappings and lists; the deepest CRD has fewer than 30."""
MAX_ALIASED = 100_000
"""Nodes that the aliases of one document may stand for, all together."""

_START = re.compile(r"^---(?=\s|$)", re.MULTILINE)
# libyaml where PyYAML was built with it, ten times as fast as PyYAML's own scanner.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Mark:
    """The line of a value, and the marks of what is inside it."""

    line: int
    parts: dict[str | int, Mark] = field(default_factory=dict)
    nodes: int = 1
    """How many values it is, unfolded."""

    def line_of(self, where: Where) -> int:
        """The line of a field, or of the nearest thing around it that is written down."""
        mark = self
        for part in where:
            inner = mark.parts.get(part)
            if inner is None:
                break
            mark = inner
        return mark.line


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file."""

    file: str
    data: Any
    mark: Mark


def read(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """All documents of a text that can be read, and what is wrong with the others."""
    parts, problems = split(text, file)
    documents: list[Document] = []
    for part in parts:
        found, problem = read_part(part, file)
        documents += found
        problems += problem
    return documents, problems


class Part(NamedTuple):
    """A piece of a text that is read by itself."""

    first_line: int
    text: str


def split(text: str, file: str) -> tuple[list[Part], list[Problem]]:
    """The parts of a text, one for each `---`; [] and a problem when it is too large."""
    if len(text) > MAX_CHARACTERS:
        message = f"is too large: {len(text)} characters, at most {MAX_CHARACTERS} are read"
        return [], [Problem("error", file, 0, "", message)]
    return list(_split(text)), []


def read_part(part: Part, file: str) -> tuple[list[Document], list[Problem]]:
    """The documents of a part (most have one), or what is wrong with it."""
    try:
        return [Document(file, *found) for found in _read_part(part.text, part.first_line)], []
    except UnreadableError as error:
        return [], [Problem("error", file, error.line, "", str(error))]


class UnreadableError(Exception):
    """A document that cannot be read, and the line where reading stopped."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _split(text: str) -> Iterator[Part]:
    # `---` at the start of a line always starts a document: inside a block scalar it is indented.
    starts = [0, *(found.start() for found in _START.finditer(text) if found.start() > 0)]
    line = 1
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        part = text[start:end]
        if not _is_preamble(part):
            yield Part(line, part)
        line += part.count("\n")


def _is_preamble(part: str) -> bool:
    lines = (line.strip() for line in part.removeprefix("---").splitlines())
    return all(not line or line[0] in "#%" for line in lines)


def _read_part(text: str, first_line: int) -> list[tuple[Any, Mark]]:
    try:
        return list(_Builder(first_line).build(text))
    except UnreadableError:
        # JSON has escapes that YAML lacks (surrogate pairs).
        if text.lstrip().startswith("{"):
            try:
                data = orjson.loads(text)
            except orjson.JSONDecodeError:
                pass  # the YAML error has the better place
            else:
                if _is_shallow(data):
                    return [(data, Mark(first_line))]
        raise


def _is_shallow(data: Any) -> bool:
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return True
    return False


class _Builder:
    """Data and marks from the events of one part of a file."""

    def __init__(self, first_line: int) -> None:
        self._first_line = first_line
        self._anchors: dict[str, tuple[Any, Mark]] = {}
        self._aliased = 0
        self._line = first_line

    def build(self, text: str) -> Iterator[tuple[Any, Mark]]:
        try:
            loader = _LOADER(text)
        except (yaml.YAMLError, UnicodeError) as error:
            raise self._unreadable(error) from error
        try:
            yield from self._documents(loader)
        except (yaml.YAMLError, UnicodeError) as error:
            raise self._unreadable(error) from error
        finally:
            loader.dispose()

    def _documents(self, loader: Any) -> Iterator[tuple[Any, Mark]]:
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, events.DocumentStartEvent):
                self._anchors, self._aliased = {}, 0
                data, mark = self._value(loader, loader.get_event(), 1)
                if data is not None:
                    yield data, mark

    def _value(self, loader: Any, event: Any, depth: int) -> tuple[Any, Mark]:
        line = self._line = event.start_mark.line + self._first_line
        if depth > MAX_DEPTH:
            raise UnreadableError(f"is nested more than {MAX_DEPTH} levels deep", line)
        if isinstance(event, events.AliasEvent):
            return self._alias(event, line)
        if isinstance(event, events.ScalarEvent):
            found: tuple[Any, Mark] = self._scalar(event, line), Mark(line)
        elif isinstance(event, events.SequenceStartEvent):
            found = self._sequence(loader, line, depth)
        else:
            found = self._mapping(loader, line, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = found
        return found

    def _alias(self, event: Any, line: int) -> tuple[Any, Mark]:
        found = self._anchors.get(event.anchor)
        if found is None:
            raise UnreadableError(f"the alias *{event.anchor} has no anchor before it", line)
        data, mark = found
        self._aliased += mark.nodes
        if self._aliased > MAX_ALIASED:
            raise UnreadableError(f"its aliases stand for more than {MAX_ALIASED} values", line)
        return data, Mark(line, mark.parts, mark.nodes)

    def _scalar(self, event: Any, line: int) -> scalars.Scalar:
        try:
            if event.tag is not None:
                return scalars.tagged(event.tag, event.value)
            return scalars.plain(event.value) if event.implicit[0] else event.value
        except ValueError as error:
            raise UnreadableError(str(error), line) from error

    def _sequence(self, loader: Any, line: int, depth: int) -> tuple[list[Any], Mark]:
        items: list[Any] = []
        mark = Mark(line)
        while not isinstance(event := loader.get_event(), events.SequenceEndEvent):
            item, inner = self._value(loader, event, depth + 1)
            mark.parts[len(items)] = inner
            mark.nodes += inner.nodes
            items.append(item)
        return items, mark

    def _mapping(self, loader: Any, line: int, depth: int) -> tuple[dict[str, Any], Mark]:
        data: dict[str, Any] = {}
        mark = Mark(line)
        merged: list[tuple[Any, Mark]] = []
        while not isinstance(event := loader.get_event(), events.MappingEndEvent):
            key_line = event.start_mark.line + self._first_line
            key = self._key(event, key_line)
            value, inner = self._value(loader, loader.get_event(), depth + 1)
            if key == "<<" and event.implicit[0]:
                merged += _mappings(value, inner, key_line)
                continue
            if key in data:
                first = mark.parts[key].line
                raise UnreadableError(f"the key {key!r} stands here and on line {first}", key_line)
            data[key] = value
            mark.parts[key] = Mark(key_line, inner.parts, inner.nodes)
            mark.nodes += inner.nodes
        for other, inner in merged:
            for key, value in other.items():
                if key not in data:
                    data[key] = value
                    mark.parts[key] = inner.parts[key]
                    mark.nodes += inner.parts[key].nodes
        return data, mark

    def _key(self, event: Any, line: int) -> str:
        if not isinstance(event, events.ScalarEvent):
            raise UnreadableError("a key must be a text, is a mapping, a list or an alias", line)
        value = self._scalar(event, line)
        if value is None:
            raise UnreadableError("a key must be a text, is null", line)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, Mark(line)
        # A number keeps the digits that the user wrote.
        return event.value.lower() if isinstance(value, bool) else str(event.value)

    def _unreadable(self, error: Exception) -> UnreadableError:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + self._first_line if mark is not None else self._line
        if isinstance(error, yaml.MarkedYAMLError):
            text = "; ".join(part for part in (error.context, error.problem) if part)
        else:
            text = getattr(error, "reason", None) or str(error)
        return UnreadableError(
            f"is not YAML: {text.splitlines()[0] if text else 'unreadable'}", line
        )


def _mappings(value: Any, mark: Mark, line: int) -> Iterator[tuple[dict[str, Any], Mark]]:
    if isinstance(value, dict):
        yield value, mark
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        # Earlier ones win, as the merge key's definition has it.
        yield from ((item, mark.parts[index]) for index, item in enumerate(value))
    else:
        raise UnreadableError(
            f"'<<' takes a mapping or a list of mappings, is {shown(value)}", line
        )
