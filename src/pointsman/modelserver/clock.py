"""Engine time: real time, run faster or slower by a factor that may change while it runs."""

from __future__ import annotations

from collections.abc import Callable


class ScaledClock:
    """Seconds of engine time, derived from a monotonic clock in real seconds.

    A `scale` of 10 makes ten engine seconds pass in a real one.
    """

    def __init__(self, real: Callable[[], float], scale: float = 1.0) -> None:
        self._real = real
        self._scale = _checked(scale)
        self._real_base = real()
        self._base = 0.0

    @property
    def scale(self) -> float:
        """Engine seconds per real second."""
        return self._scale

    @scale.setter
    def scale(self, scale: float) -> None:
        _checked(scale)
        self._base = self.now()
        self._real_base = self._real()
        self._scale = scale

    def now(self) -> float:
        """Engine seconds since this clock was made."""
        return self._base + (self._real() - self._real_base) * self._scale

    def real_delay_s(self, until_s: float) -> float:
        """Real seconds until an engine time; 0 if it has passed."""
        return max(0.0, (until_s - self.now()) / self._scale)


def _checked(scale: float) -> float:
    if not 0 < scale <= 1e9:
        raise ValueError(f"a time scale is above 0 and at most 1e9, not {scale}")
    return scale
