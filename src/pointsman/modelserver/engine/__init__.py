"""A model of vLLM's engine: pure, driven by a clock that is handed in.

`Engine` is fed with sequences and with the time, and says which tokens came out when. The same
code runs in real time behind the HTTP server, faster than real time, and inside a discrete-event
simulation.

>>> engine = Engine(PROFILES["cpu-tiny"].timing, PROFILES["cpu-tiny"].capacity)
>>> request = Sequence("one", prompt=token_array([1, 2, 3]), answer=token_array([4, 5]))
>>> engine.submit(request, now_s=10.0)
>>> while (due_s := engine.next_s) is not None:
...     for step in engine.advance(due_s):
...         print(f"{step.end_s:.4f} s: {len(step.emitted)} token of {step.batch.tokens} computed")
10.0241 s: 1 token of 3 computed
10.0301 s: 1 token of 1 computed
>>> request.state.value, request.generated
('finished', 2)
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
