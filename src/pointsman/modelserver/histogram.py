"""Prometheus samples, kept so that a scrape costs little more than joining strings."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


def one_two_five(limit: int) -> tuple[float, ...]:
    """Bucket bounds 1, 2, 5, 10, 20, 50 ... up to `limit`, as vLLM has them for token counts.

    >>> one_two_five(60)
    (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
    """
    bounds: list[float] = []
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power > limit:
                return tuple(bounds)
            bounds.append(float(digit * power))
        power *= 10


class Histogram:
    """Counts of observations by bucket."""

    __slots__ = ("bounds", "count", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Adds `times` observations of a value; a bound belongs to the bucket below it."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.count += times
        self.sum += value * times

    def cumulative(self) -> list[int]:
        """Observations up to each bound; the last is all of them."""
        return list(accumulate(self.counts))


def labels_text(labels: dict[str, str]) -> str:
    """A label set in the text format, names in alphabetical order, empty for none."""
    if not labels:
        return ""
    parts = (f'{name}="{_escaped(labels[name])}"' for name in sorted(labels))
    return "{" + ",".join(parts) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class HistogramLines:
    """Writes one histogram of one label set; the label texts are made once."""

    __slots__ = ("_count", "_heads", "_sum", "histogram")

    def __init__(self, name: str, labels: dict[str, str], bounds: tuple[float, ...]) -> None:
        self.histogram = Histogram(bounds)
        limits = [*(repr(bound) for bound in bounds), "+Inf"]
        self._heads = [f"{name}_bucket{labels_text({**labels, 'le': le})} " for le in limits]
        text = labels_text(labels)
        self._count = f"{name}_count{text} "
        self._sum = f"{name}_sum{text} "

    def write(self, lines: list[str]) -> None:
        """Appends the sample lines."""
        histogram = self.histogram
        for head, count in zip(self._heads, histogram.cumulative(), strict=True):
            lines.append(f"{head}{count}.0")
        lines.append(f"{self._count}{histogram.count}.0")
        lines.append(f"{self._sum}{histogram.sum!r}")
