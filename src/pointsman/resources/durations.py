"""Durations as texts: those of the Gateway API (GEP-2257) and those of Go.

Both are a row of numbers with units. The Gateway API's are stricter: whole numbers of at most five
digits, at most four of them, units h, m, s and ms, no sign.
"""

from __future__ import annotations

import re
from decimal import Decimal

_UNIT_SECONDS = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
    "us": Decimal("0.000001"),
    "µs": Decimal("0.000001"),
    "μs": Decimal("0.000001"),
    "ns": Decimal("0.000000001"),
}
_GATEWAY = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}", re.ASCII)
_GO = re.compile(r"[-+]?(([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns))+", re.ASCII)
_PART = re.compile(r"([0-9.]+)(h|ms|m|s|us|µs|μs|ns)", re.ASCII)
_LONGEST = 64
"""Characters; no sensible duration is longer, and a longer one is not worth reading."""


def gateway_seconds(text: str) -> float:
    """Seconds of a Gateway API duration; ValueError when it is none.

    >>> gateway_seconds("1h30m"), gateway_seconds("500ms")
    (5400.0, 0.5)
    """
    if not _GATEWAY.fullmatch(text):
        raise ValueError(f"not a duration like '10s', '1h30m' or '500ms': {text[:_LONGEST]!r}")
    return float(_total(text))


def go_seconds(text: str) -> float:
    """Seconds of a Go duration; ValueError when it is none.

    >>> go_seconds("1000s"), go_seconds("1.5h"), go_seconds("-2us"), go_seconds("0")
    (1000.0, 5400.0, -2e-06, 0.0)
    """
    if text in ("0", "+0", "-0"):
        return 0.0
    if len(text) > _LONGEST or not _GO.fullmatch(text):
        raise ValueError(f"not a duration like '10s', '1.5h' or '500ms': {text[:_LONGEST]!r}")
    seconds = float(_total(text))
    return -seconds if text.startswith("-") else seconds


def _total(text: str) -> Decimal:
    parts = (Decimal(number) * _UNIT_SECONDS[unit] for number, unit in _PART.findall(text))
    return sum(parts, Decimal(0))
