"""What scheduling knows of a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def attribute_header(name: str) -> str:
    """Under which name `Wanted.headers` has what a plugin found; no client can send it."""
    return f":attribute:{name}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as scheduling sees it."""

    model: str | None = None
    """The target: a base model or an adapter, as the model server names it."""
    priority: int = 0
    prompt_tokens: int = 0
    max_tokens: int | None = None
    """The limit that the request sets on its answer."""
    cached_tokens: Mapping[str, int] = field(default_factory=dict)
    """Address to the tokens of this prompt that the server probably holds; absent: none."""
    hashed_tokens: int = 0
    """Tokens of the prompt that were looked for; 0 where there is no prompt to look for."""
    draw: float = 1.0
    """A number from [0, 1) that is drawn once for each request: what explores, explores by it."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The request's headers, where the configuration schedules by headers; else empty."""
    media: tuple[int, ...] = ()
    """A number for each image, sound and film, where the configuration schedules by them."""
    gives_way: bool = False
    """Whether it is turned away while the pool is saturated."""
    objective: str = ""
    """The objective that its priority is from, if it is from one."""
    new_block: int | None = None
    """The hash of the prompt's first block that nobody is known to hold, the same at every picker;
    None where most of the prompt is held."""

    def uncached_tokens(self, address: str) -> int:
        """What a server would have to read of the prompt."""
        return max(0, self.prompt_tokens - self.cached_tokens.get(address, 0))
