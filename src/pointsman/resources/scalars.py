"""What a plain YAML scalar means to Kubernetes: null, bool, number or text.

The core schema of YAML 1.2, with the one older habit that Kubernetes keeps: a leading zero means
octal (`defaultMode: 0644`). No `yes` and `on`, no sexagesimal numbers, no dates.
"""

from __future__ import annotations

import math
import re

Scalar = str | int | float | bool | None

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OCTAL = re.compile(r"([-+]?)0o?([0-7]+)")
_HEX = re.compile(r"([-+]?)0x([0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEAST, _MOST = -(2**63), 2**64 - 1
"""Whole numbers beyond 64 bits become floats, as JSON readers have it."""
_LONGEST = 64
"""Characters of a whole number that is looked at as such."""
_MAY_BE_SPECIAL = frozenset("-+.0123456789~nNtTfF")


class NotInJSONError(ValueError):
    """A number that JSON, and so Kubernetes, does not have."""


def plain(text: str) -> Scalar:
    """The value of an unquoted scalar; NotInJSONError for infinities and NaN."""
    if not text:
        return None
    if text[0] not in _MAY_BE_SPECIAL:
        return text
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0].isalpha() or text[0] == "~":
        return text
    return _number(text)


def tagged(tag: str, text: str) -> Scalar:
    """The value of a scalar with a standard tag (`!!str`, ...); ValueError when it has none."""
    if tag in ("!", "tag:yaml.org,2002:str"):
        return text
    kinds: dict[str, tuple[type, ...]] = {
        "tag:yaml.org,2002:int": (int,),
        "tag:yaml.org,2002:float": (int, float),
        "tag:yaml.org,2002:bool": (bool,),
        "tag:yaml.org,2002:null": (type(None),),
    }
    if tag not in kinds:
        raise ValueError(f"the tag {tag} has no meaning here")
    value = plain(text)
    if not isinstance(value, kinds[tag]) or (isinstance(value, bool) and not tag.endswith("bool")):
        raise ValueError(f"the tag {tag} does not fit its value")
    return value


def _number(text: str) -> Scalar:
    whole = _whole_number(text) if len(text) <= _LONGEST else None
    if whole is not None:
        return whole if _LEAST <= whole <= _MOST else float(whole)
    if _NOT_FINITE.fullmatch(text):
        raise NotInJSONError(f"{text} is a number that JSON does not have (quote it if it is text)")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise NotInJSONError(f"{text[:40]} is too large a number")
        return number
    return text


def _whole_number(text: str) -> int | None:
    if _DECIMAL.fullmatch(text):
        return int(text)
    for pattern, base in ((_OCTAL, 8), (_HEX, 16)):
        if found := pattern.fullmatch(text):
            return int(f"{found[1]}{found[2]}", base)
    return None
