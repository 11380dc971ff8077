r"""Where the value of the top-level `"model"` stands in a JSON body, to the byte.

The body is never re-encoded: a rewrite replaces these bytes, and every other byte goes through as
it came (64-bit integers, key order, spaces, duplicate keys). How the span is found:

1. The body is decoded once by orjson, which says whether it is JSON and what its top level holds.
2. If `"model"` occurs once in the bytes and no key can be spelled with `\u00..` escapes, that one
   occurrence is the key, and its value follows. This is nearly every request.
3. Otherwise each occurrence that could be a key is renamed to a name of its own, all at once, and
   the result is decoded again: the names that turn up at the top level are the keys that stand
   there. The last one counts, as with every JSON parser of the model servers.

Both steps cost a few passes in C, whatever the body looks like, so a hostile body costs what its
size costs. Bodies that orjson refuses but model servers accept (invalid UTF-8, lone surrogates,
`NaN`, numbers beyond a double) are decoded from a copy of the same length in which those bytes are
made harmless; spans found there hold in the original. Deeper than 1,024 levels is refused, as
model servers do.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

_BOM = b"\xef\xbb\xbf"
_KEY = b'"model"'
_AFTER_KEY = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*"|[^\s,}\]]*)', re.DOTALL)
_PLAIN_KEYS = re.compile(rb'"model"(?=[ \t\r\n]*:)')
_ESCAPED_KEYS = re.compile(
    rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"(?=[ \t\r\n]*:)'
)
_LONE_SURROGATES = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_NOT_FINITE = re.compile(rb"-?Infinity|NaN")
_HUGE_NUMBERS = re.compile(rb"[eE]\+?[0-9]{3,}")
_ASCII_ONLY = bytes(range(128)) + b"?" * 128


class NotJsonError(ValueError):
    """The body is not a JSON object; the text says why."""


class Body(NamedTuple):
    """A decoded body."""

    fields: dict[str, Any]
    """The top level."""
    model: str | None
    """The value of `model`, if it is a string."""
    span: tuple[int, int] | None
    """Start and end of that string in the bytes, quotes included."""


def read(body: bytes) -> Body:
    """Decode a body and find its model.

    Raises:
        NotJsonError: the body is not a JSON object.
    """
    start = len(_BOM) if body.startswith(_BOM) else 0
    readable, fields = _decoded(body[start:] if start else body)
    model = fields.get("model")
    if not isinstance(model, str):
        return Body(fields, None, None)
    span = _span_of_only_key(readable) or _span_of_last_key(readable, fields)
    if span is None:
        return Body(fields, None, None)
    first, last = span[0] + start, span[1] + start
    if readable is not body:
        model = _text(body[first:last]) or model
    return Body(fields, model, (first, last))


def splice(body: bytes, span: tuple[int, int], model: str) -> bytes:
    """The body with another model's name in the span."""
    return b"".join((body[: span[0]], orjson.dumps(model), body[span[1] :]))


def _decoded(body: bytes) -> tuple[bytes, dict[str, Any]]:
    """The bytes in which spans are looked for (of the same length), and what they hold."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        body = _harmless(body)
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise NotJsonError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise NotJsonError("the body is not a JSON object")
    return body, value


def _harmless(body: bytes) -> bytes:
    """A body of the same length and structure, without what orjson alone refuses."""
    body = body.translate(_ASCII_ONLY)
    body = _LONE_SURROGATES.sub(rb"\\u0020", body)
    body = _NOT_FINITE.sub(lambda found: b"0".ljust(len(found[0])), body)
    return _HUGE_NUMBERS.sub(lambda found: b"e+0".ljust(len(found[0]), b"0"), body)


def _span_of_only_key(body: bytes) -> tuple[int, int] | None:
    """The span where the key's text occurs once; None where that proves nothing."""
    # CPython's rfind is four times as fast as its find on prose.
    at = body.rfind(_KEY)
    if at < 0 or body.find(_KEY) != at or body.rfind(b"\\u00") >= 0:
        return None
    found = _AFTER_KEY.match(body, at + len(_KEY))
    return found.span(1) if found is not None else None


def _span_of_last_key(body: bytes, fields: dict[str, Any]) -> tuple[int, int] | None:
    """The span of the last top-level key, by renaming every candidate and decoding again."""
    pattern = _ESCAPED_KEYS if b"\\u00" in body else _PLAIN_KEYS
    places: list[int] = []
    mark = _unused_mark(fields)
    prefix = mark.encode()

    def rename(found: re.Match[bytes]) -> bytes:
        places.append(found.end())
        return b'"%s%d"' % (prefix, len(places) - 1)

    renamed = pattern.sub(rename, body)
    top = orjson.loads(renamed)
    numbers = [int(key[len(mark) :]) for key in top if key.startswith(mark)]
    if not numbers:
        return None
    found = _AFTER_KEY.match(body, places[max(numbers)])
    return found.span(1) if found is not None else None


def _unused_mark(fields: dict[str, Any]) -> str:
    """A text with which no key of the top level begins."""
    number = 0
    while any(key.startswith(f"~{number}~") for key in fields):
        number += 1
    return f"~{number}~"


def _text(quoted: bytes) -> str | None:
    """The string between these quotes, invalid UTF-8 replaced."""
    try:
        value = orjson.loads(quoted.decode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, str) else None
