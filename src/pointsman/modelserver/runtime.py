"""What can be changed while the server runs, over `/admin/config`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pointsman.modelserver.conduct import Conduct
from pointsman.modelserver.engine import StepTiming
from pointsman.modelserver.failures import checked_kinds

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica


_MEDIAN_LIMIT = 1_000_000
_CONSTANT_LIMIT = 1e9
"""A step that takes longer than this many seconds would not end."""


def settings_of(replica: Replica) -> dict[str, Any]:
    """Everything that can be changed, as it is now."""
    return {
        **dataclasses.asdict(replica.conduct),
        "time_scale": replica.driver.scale,
        "failure_rate": replica.failures.rate,
        "failure_types": list(replica.failures.kinds),
        "timing": dataclasses.asdict(replica.driver.engine.timing),
    }


def change(replica: Replica, wanted: dict[str, Any]) -> None:
    """Applies the settings that are given, all or none.

    Raises:
        ValueError: if one is unknown or has a wrong value; nothing has changed then.
    """
    known = settings_of(replica)
    for name, value in wanted.items():
        if name not in known:
            raise ValueError(f"unknown setting {name!r}: one of {', '.join(known)}")
        _check(name, value, known[name])
    kinds = checked_kinds(tuple(wanted.get("failure_types", replica.failures.kinds)))
    rate = float(wanted.get("failure_rate", replica.failures.rate))
    if not 0 <= rate <= 1:
        raise ValueError(f"failure_rate is a share from 0 to 1, not {rate}")
    scale = float(wanted.get("time_scale", replica.driver.scale))
    if not 0 < scale <= 1e9:
        raise ValueError(f"time_scale is above 0 and at most 1e9, not {scale}")
    refusal = wanted.get("refuses_with", 0)
    if refusal and not 400 <= refusal <= 599:
        raise ValueError(f"refuses_with is a status from 400 to 599, or 0, not {refusal}")
    median = wanted.get("answer_median_tokens", 1)
    if not 1 <= median <= _MEDIAN_LIMIT:
        raise ValueError(f"answer_median_tokens is from 1 to {_MEDIAN_LIMIT}, not {median}")
    timing = _changed_timing(replica.driver.engine.timing, wanted.get("timing", {}))
    for field in dataclasses.fields(Conduct):
        if field.name in wanted:
            setattr(replica.conduct, field.name, wanted[field.name])
    replica.failures.kinds, replica.failures.rate = kinds, rate
    replica.driver.engine.timing = timing
    replica.driver.scale = scale


def _check(name: str, value: Any, present: Any) -> None:
    """A new value has the type of the present one; whole numbers are fine as fractions."""
    expected = type(present)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, expected) or (expected is float and is_number):
        if expected is int and isinstance(value, bool):
            raise ValueError(f"{name}: expected a whole number, got {value!r}")
        return
    raise ValueError(f"{name}: expected {expected.__name__}, got {value!r}")


def _changed_timing(timing: StepTiming, wanted: dict[str, Any]) -> StepTiming:
    known = dataclasses.asdict(timing)
    for name, value in wanted.items():
        if name not in known:
            raise ValueError(f"unknown constant timing.{name}: one of {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"timing.{name}: expected a number, got {value!r}")
        if not 0 <= value <= _CONSTANT_LIMIT:
            raise ValueError(f"timing.{name}: expected 0 to {_CONSTANT_LIMIT:.0e}, got {value!r}")
    changed = dataclasses.replace(timing, **wanted)
    if changed.prefill_tokens_per_s <= 0:
        raise ValueError("timing.prefill_tokens_per_s has to be above 0")
    return changed
