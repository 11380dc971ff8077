"""What scheduling knows of a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request as scheduling sees it."""

    model: str | None = None
    """The target: a base model or an adapter, as the model server names it."""
    priority: int = 0
    prompt_tokens: int = 0
