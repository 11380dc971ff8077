"""Quantities of bytes as Kubernetes writes them: a number, perhaps with a suffix."""

from __future__ import annotations

import re

_SUFFIXES: dict[str, int] = {
    **{letter: 1000**power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(r"([0-9]+)([EPTGMK]i|[EPTGMk])?", re.ASCII)


def quantity_bytes(value: int | str) -> int:
    """Bytes of a quantity; ValueError when it is none.

    >>> quantity_bytes("32Ki"), quantity_bytes("10M"), quantity_bytes("512"), quantity_bytes(7)
    (32768, 10000000, 512, 7)
    """
    if isinstance(value, int):
        return value
    found = _QUANTITY.fullmatch(value)
    if found is None:
        raise ValueError(f"not a quantity like '32Ki' or '10Mi': {value[:32]!r}")
    factor: int = _SUFFIXES.get(found[2] or "", 1)
    return int(found[1]) * factor
