"""How a replica behaves apart from its engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Conduct:
    """What a replica answers with besides tokens; all of it can be changed while it runs."""

    is_healthy: bool = True
    """False: `/health` answers 503."""
    refuses_with: int = 0
    """Status with which new requests are refused; 0: they are served."""
    answer_median_tokens: float = 0.0
    echoes: bool = False
    names_itself: bool = False
