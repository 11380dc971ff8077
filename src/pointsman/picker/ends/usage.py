"""How many tokens an answer says that it cost, as Envoy has read it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pointsman.inference.headers import INPUT_TOKENS_KEY, OUTPUT_TOKENS_KEY, USAGE_NAMESPACE

MAX_TOKENS = 1_000_000_000
"""More than that is no usage but a broken answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request and its answer; None for what the answer does not tell."""

    input_tokens: int | None
    output_tokens: int | None


def usage_of(filter_metadata: Any) -> Usage | None:
    """The usage in a request's dynamic metadata (a map of Structs); None where none is told."""
    if USAGE_NAMESPACE not in filter_metadata:
        return None
    fields = filter_metadata[USAGE_NAMESPACE].fields
    found = Usage(_tokens(fields, INPUT_TOKENS_KEY), _tokens(fields, OUTPUT_TOKENS_KEY))
    if found.input_tokens is None and found.output_tokens is None:
        return None
    return found


def _tokens(fields: Any, key: str) -> int | None:
    if key not in fields:
        return None
    value = fields[key].number_value
    # The number is the model server's word, or whose answer passes for one.
    if not math.isfinite(value) or not 0 <= value <= MAX_TOKENS:
        return None
    return int(value)
