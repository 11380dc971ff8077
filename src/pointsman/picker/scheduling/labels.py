"""Filters and scorers by the labels of pods and the headers of requests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.scorers import Scores
from pointsman.resources.selectors import LabelSelector

ROLE_LABEL = "llm-d.ai/role"
DECODES = frozenset({"decode", "prefill-decode", "both", "encode-prefill-decode"})
PREFILLS = frozenset(
    {"prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"}
)
ENCODES = frozenset({"encode", "encode-prefill", "encode-prefill-decode"})

CONTEXT_LABEL = "llm-d.ai/context-length-range"


def by_selector(
    endpoints: Sequence[Loaded], _wanted: Wanted, *, selector: LabelSelector
) -> Sequence[Loaded]:
    """The endpoints whose pod's labels match a selector; may leave none."""
    return [endpoint for endpoint in endpoints if selector.matches(endpoint.labels)]


def by_label(
    endpoints: Sequence[Loaded],
    _wanted: Wanted,
    *,
    label: str,
    values: frozenset[str],
    allows_none: bool = False,
) -> Sequence[Loaded]:
    """The endpoints whose label has one of these values; may leave none.

    Missing label: kept only with `allows_none`.
    """
    return [
        endpoint
        for endpoint in endpoints
        if ((value := endpoint.labels.get(label)) in values or (value is None and allows_none))
    ]


TEST_HEADER = "test-epp-endpoint-selection"
"""By which the inference extension's conformance suite names the servers that it wants."""


def named_by_test(endpoints: Sequence[Loaded], wanted: Wanted) -> Sequence[Loaded]:
    """The endpoints that the header `test-epp-endpoint-selection` names, in its order.

    Each as `ip` or `ip:port`, with commas between them. No header: none.
    """
    found: dict[str, Loaded] = {}
    for item in wanted.headers.get(TEST_HEADER, "").split(","):
        name = item.strip()
        for endpoint in endpoints:
            host = endpoint.address.rpartition(":")[0]
            if name and name in (endpoint.address, host, host.strip("[]")):
                found[endpoint.address] = endpoint
    return list(found.values())


def header_label_affinity(
    endpoints: Sequence[Loaded], wanted: Wanted, *, header: str, label: str
) -> Scores:
    """1 where the pod's label equals the request's header, else 0. Missing: 0."""
    value = wanted.headers.get(header)
    return [1.0 if value is not None and e.labels.get(label) == value else 0.0 for e in endpoints]


def context_length(
    endpoints: Sequence[Loaded], wanted: Wanted, *, label: str = CONTEXT_LABEL
) -> Scores:
    """How well the prompt's length fits the range (or list of ranges) that a pod's label names.

    In range: `0.3 + 0.7 * (0.7 / (1 + width / 10000) + 0.3 * (max - n) / width)`, 1 for a width
    of 0; out of range: `0.3 / (1 + distance / 1000)`. n: estimated tokens of the prompt. No label:
    0.5; a label that cannot be read: 0.
    """
    return [_context_score(e.labels.get(label), wanted.prompt_tokens) for e in endpoints]


def in_context_length(
    endpoints: Sequence[Loaded], wanted: Wanted, *, label: str = CONTEXT_LABEL
) -> Sequence[Loaded]:
    """The endpoints whose range holds the prompt's length, or that name none; all if none does."""
    length = wanted.prompt_tokens
    fitting = [
        endpoint
        for endpoint in endpoints
        if (text := endpoint.labels.get(label)) is None
        or any(low <= length <= high for low, high in ranges(text))
    ]
    return fitting or endpoints


_RANGE = re.compile(r"\s*(\d{1,12})\s*-\s*(\d{1,12})\s*")


def ranges(text: str) -> list[tuple[int, int]]:
    """`"0-100"` or `"0-100,200-300"`, as pairs; [] where it cannot be read.

    >>> ranges("0-100, 200-300"), ranges("5-1"), ranges("x")
    ([(0, 100), (200, 300)], [], [])
    """
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or int(match[1]) > int(match[2]):
            return []
        found.append((int(match[1]), int(match[2])))
    return found


def _context_score(text: str | None, length: int) -> float:
    if text is None:
        return 0.5
    return max((_range_score(low, high, length) for low, high in ranges(text)), default=0.0)


def _range_score(low: int, high: int, length: int) -> float:
    if low <= length <= high:
        width = high - low
        if not width:
            return 1.0
        return 0.3 + 0.7 * (0.7 / (1 + width / 10_000) + 0.3 * (high - length) / width)
    distance = low - length if length < low else length - high
    return 0.3 / (1 + distance / 1_000)
