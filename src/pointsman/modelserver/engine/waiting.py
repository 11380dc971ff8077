"""The waiting queue: by arrival, or by (priority, arrival) where the policy says so."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator

from pointsman.modelserver.engine.sequences import Sequence


def _rank_by_arrival(sequence: Sequence) -> tuple[int, int]:
    return (0, sequence.order)


def _rank_by_priority(sequence: Sequence) -> tuple[int, int]:
    return (sequence.priority, sequence.order)


class WaitingQueue:
    """Sequences that wait, best first. Its bound is the engine's queue limit.

    A preempted sequence goes back to the place that its arrival gives it, which under arrival
    order is the front, since everything that still waits came later.
    """

    def __init__(self, *, by_priority: bool = False) -> None:
        self.rank = _rank_by_priority if by_priority else _rank_by_arrival
        self._sequences: list[Sequence] = []
        self.tokens = 0
        """Tokens that the waiting sequences would have to compute without any cache."""

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def add(self, sequence: Sequence) -> None:
        """Puts a sequence in its place."""
        self.tokens += sequence.tokens
        entries = self._sequences
        if not entries or self.rank(entries[-1]) < self.rank(sequence):
            entries.append(sequence)
        else:
            insort(entries, sequence, key=self.rank)

    def remove(self, sequence: Sequence) -> None:
        """Takes out one sequence, wherever it stands."""
        self._sequences.remove(sequence)
        self.tokens -= sequence.tokens

    def take(self, admitted: set[int]) -> None:
        """Takes out the sequences with these `order` numbers."""
        if not admitted:
            return
        kept = []
        for sequence in self._sequences:
            if sequence.order in admitted:
                self.tokens -= sequence.tokens
            else:
                kept.append(sequence)
        self._sequences = kept
