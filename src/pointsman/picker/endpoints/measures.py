"""What a model server says of itself in its metrics, read from the few lines that matter.

The text of a real vLLM is 50 KB and more; it is never parsed as a whole. Which kind of server it is
shows by the names that are found. Each needed name is looked for as bytes at the beginning of a
line, and only its lines are read. The rules:

- Several series of one name (data parallel engines) are added up; of KV cache shares the mean.
- Of `vllm:lora_requests_info` the series with the largest value counts: vLLM keeps one for each
  combination of labels that ever was, and the value is the time at which it held.
- A name that is missing leaves its fact unknown (None); it is not zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pointsman.inference.metrics import ENGINES, EngineMetrics, Metric

MAX_SERIES = 256
"""Of one name; more are not looked at."""
MAX_ADAPTERS = 1_024
MAX_KV_CACHE_TOKENS = 1e15
"""What is said to be larger, or not a number, is not believed."""

_LABEL = re.compile(rb'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Measures:
    """One reading of a server's metrics. None is unknown."""

    at: float
    """Monotonic seconds at which the answer came."""
    waiting: int | None = None
    running: int | None = None
    kv_cache: float | None = None
    """0 to 1."""
    running_adapters: frozenset[str] = frozenset()
    waiting_adapters: frozenset[str] = frozenset()
    max_adapters: int = 0
    base_models: frozenset[str] = frozenset()
    """The `model_name` of the server's own series: what it serves without an adapter."""
    kv_cache_tokens: int | None = None
    """How many tokens the KV cache holds."""
    own_requests: int = 0
    """Our own requests in flight at that moment, to know what has changed since."""
    custom: Mapping[str, float] = field(default_factory=dict)
    """What the configuration names beside these, by the names that it gives."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """What is read beside what is known anyway."""

    engines: tuple[EngineMetrics, ...] = ()
    """Looked for before the others."""
    custom: Mapping[str, Metric] = field(default_factory=dict)
    """Names of one's own to the series that they stand for; the last value counts."""


NOTHING_MORE = Extraction()


class Series:
    """One line of metrics: labels on demand, and a value."""

    __slots__ = ("_labels", "value")

    def __init__(self, labels: bytes, value: float) -> None:
        self._labels = labels
        self.value = value

    def label(self, name: bytes) -> str | None:
        """The value of a label."""
        for key, value in _LABEL.findall(self._labels):
            if key == name:
                text: bytes = value
                return _unescaped(text)
        return None


def _unescaped(text: bytes) -> str:
    if b"\\" in text:
        text = text.replace(b"\\n", b"\n").replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    return text.decode("utf-8", "replace")


def series(text: bytes, name: bytes) -> Iterator[Series]:
    """The series of a metric name, in the order of the text."""
    needle = b"\n" + name
    # The first line has no line end before it.
    at = 0 if text.startswith(name) else _after(text.find(needle))
    seen = 0
    while at >= 0 and seen < MAX_SERIES:
        end = text.find(b"\n", at)
        line = text[at : end if end >= 0 else len(text)]
        parsed = _parsed(line, len(name))
        if parsed is not None:
            seen += 1
            yield parsed
        if end < 0:
            return
        at = end + 1 if text.startswith(name, end + 1) else _after(text.find(needle, end))


def _after(found: int) -> int:
    return found + 1 if found >= 0 else -1


def _parsed(line: bytes, name_bytes: int) -> Series | None:
    rest = line[name_bytes:]
    labels = b""
    if rest.startswith(b"{"):
        close = rest.rfind(b"}")
        if close < 0:
            return None
        labels, rest = rest[1:close], rest[close + 1 :]
    elif not rest.startswith((b" ", b"\t")):
        return None  # a longer name that begins alike
    fields = rest.split()
    if not fields:
        return None
    try:
        value = float(fields[0])
    except ValueError:
        return None
    return Series(labels, value)


def read_measures(
    text: bytes, at: float, own_requests: int = 0, extraction: Extraction = NOTHING_MORE
) -> Measures | None:
    """What a server says; None if none of the known names is there."""
    custom = _custom(text, extraction.custom) if extraction.custom else {}
    for names in (*extraction.engines, *ENGINES):
        waiting = _first(text, names.waiting)
        running = _first(text, names.running)
        kv_cache = _first(text, names.kv_cache)
        if waiting or running or kv_cache:
            break
    else:
        return Measures(at=at, own_requests=own_requests, custom=custom) if custom else None
    running_adapters, waiting_adapters, max_adapters = _adapters(text, names)
    base_models = {item.label(b"model_name") for item in running or waiting or kv_cache}
    return Measures(
        at=at,
        waiting=_count(waiting),
        running=_count(running),
        kv_cache=_share(kv_cache),
        running_adapters=running_adapters,
        waiting_adapters=waiting_adapters,
        max_adapters=max_adapters,
        base_models=frozenset(model for model in base_models if model),
        kv_cache_tokens=_kv_cache_tokens(text, names),
        own_requests=own_requests,
        custom=custom,
    )


def _custom(text: bytes, metrics: Mapping[str, Metric]) -> dict[str, float]:
    found = {key: item.value for key, metric in metrics.items() for item in _selected(text, metric)}
    return {key: value for key, value in found.items() if math.isfinite(value)}


def _first(text: bytes, metrics: tuple[Metric, ...]) -> list[Series]:
    for metric in metrics:
        found = list(_selected(text, metric))
        if found:
            return found
    return []


def _selected(text: bytes, metric: Metric) -> Iterator[Series]:
    label = metric.label.encode()
    for item in series(text, metric.name.encode()):
        if not label or item.label(label) == metric.value:
            yield item


def _count(found: list[Series]) -> int | None:
    values = [item.value for item in found if math.isfinite(item.value)]
    return max(0, int(sum(values))) if values else None


def _share(found: list[Series]) -> float | None:
    values = [item.value for item in found if math.isfinite(item.value)]
    return min(1.0, max(0.0, sum(values) / len(values))) if values else None


def _adapters(text: bytes, names: EngineMetrics) -> tuple[frozenset[str], frozenset[str], int]:
    if names.lora is None:
        return frozenset(), frozenset(), 0
    newest = max(series(text, names.lora.encode()), key=_time, default=None)
    if newest is None:
        return frozenset(), frozenset(), 0
    return (
        _names(newest.label(b"running_lora_adapters")),
        _names(newest.label(b"waiting_lora_adapters")),
        _number(newest.label(b"max_lora")) or 0,
    )


def _time(item: Series) -> float:
    return item.value if math.isfinite(item.value) else -math.inf


def _names(text: str | None) -> frozenset[str]:
    if not text:
        return frozenset()
    names = (name.strip() for name in text.split(",")[:MAX_ADAPTERS])
    return frozenset(name for name in names if name)


def _kv_cache_tokens(text: bytes, names: EngineMetrics) -> int | None:
    if names.cache_config is None:
        return _blocks_times_tokens(text, names)
    total = 0
    for item in series(text, names.cache_config.encode()):
        tokens = _number(item.label(b"kv_cache_size_tokens"))
        if tokens is None:
            tokens = _product(item.label, (b"block_size", b"num_gpu_blocks")) or _product(
                item.label, (b"page_size", b"num_pages")
            )
        total += tokens or 0
    return total or None


def _blocks_times_tokens(text: bytes, names: EngineMetrics) -> int | None:
    """The size where it is in values; of several engines, those of one place belong together."""
    if names.block_tokens is None or names.blocks is None:
        return None
    pairs = zip(_selected(text, names.block_tokens), _selected(text, names.blocks), strict=False)
    sizes = [tokens.value * blocks.value for tokens, blocks in pairs]
    return sum(int(size) for size in sizes if 0 < size < MAX_KV_CACHE_TOKENS) or None


def _product(label: Callable[[bytes], str | None], names: tuple[bytes, bytes]) -> int | None:
    first, second = (_number(label(name)) for name in names)
    return first * second if first is not None and second is not None else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 16 else None
