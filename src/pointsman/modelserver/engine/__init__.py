"""A model of vLLM's engine: pure, driven by a clock that is handed in.

`Engine` is fed with sequences and with the time, and says which tokens came out when. The same
code runs in real time behind the HTTP server, faster than real time, and inside a discrete-event
simulation.
"""

from __future__ import annotations

from pointsman.modelserver.engine.blocks import BlockEvent, Cleared, Removed, Stored
from pointsman.modelserver.engine.loop import Engine, QueueFullError, StepResult, TooLongError
from pointsman.modelserver.engine.profiles import (
    DEFAULT_PROFILE,
    PROFILES,
    Capacity,
    Profile,
    StepTiming,
)
from pointsman.modelserver.engine.sequences import Sequence, State, token_array

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILES",
    "BlockEvent",
    "Capacity",
    "Cleared",
    "Engine",
    "Profile",
    "QueueFullError",
    "Removed",
    "Sequence",
    "State",
    "StepResult",
    "StepTiming",
    "Stored",
    "TooLongError",
    "token_array",
]
