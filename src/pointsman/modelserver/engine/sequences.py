"""One sequence on its way through the engine: a prompt, the answer planned for it, and its state.

The engine does not invent text. Whoever submits a sequence says which tokens will come out of it
(`answer`), so that the engine only decides *when* they come. A request with `n` choices is `n`
sequences.
"""

from __future__ import annotations

import enum
from array import array
from dataclasses import dataclass, field

ID_TYPE = "I"
"""Array type of token ids: unsigned, 32 bits."""


class State(enum.Enum):
    """Where a sequence stands."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and its planned answer, with what the engine knows of it.

    `answer` may be empty: the sequence then ends with its prefill (embeddings). Sequences with
    different adapters or salts share no blocks.
    """

    id: str
    prompt: array[int]
    answer: array[int]
    adapter: str | None = None
    adapter_path: str = ""
    priority: int = 0
    finish_reason: str = "stop"
    salt: str = ""
    allowed_tokens: int = 0
    """The `max_tokens` that the client set, for the metrics; 0: none."""

    state: State = State.WAITING
    arrival_s: float = 0.0
    queued_s: float = 0.0
    """When it reached the waiting queue."""
    order: int = 0
    """Position in the order of arrival, set by the engine."""
    computed: int = 0
    """Tokens whose KV entries are in blocks (including those of the step under way)."""
    generated: int = 0
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    """Chained hashes of the full blocks, as far as they were needed."""
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache at the first admission."""
    preemptions: int = 0
    is_deferred: bool = False
    """True while it waits for an adapter slot rather than for room."""
    first_scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    finished_s: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens known so far: the prompt and what was generated."""
        return len(self.prompt) + self.generated

    @property
    def pending(self) -> int:
        """Tokens that are known and not yet computed: 1 while decoding, more while prefilling."""
        return len(self.prompt) + self.generated - self.computed

    @property
    def is_done(self) -> bool:
        """True when every planned token came out and the prompt is computed."""
        return self.generated >= len(self.answer) and self.computed >= len(self.prompt)

    def slice(self, start: int, stop: int) -> array[int]:
        """Token ids `start` to `stop` of prompt and answer as one row."""
        length = len(self.prompt)
        if stop <= length:
            return self.prompt[start:stop]
        if start >= length:
            return self.answer[start - length : stop - length]
        return self.prompt[start:] + self.answer[: stop - length]


def token_array(ids: list[int]) -> array[int]:
    """Token ids in the engine's form.

    Raises:
        OverflowError: if an id does not fit in 32 bits.
    """
    return array(ID_TYPE, ids)
