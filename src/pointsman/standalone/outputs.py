"""The kept output of every process of an instance, by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from pointsman.standalone.processes import Output

MAX_PROCESSES = 500
"""Processes whose output is kept; the one that was started longest ago goes first."""


class Outputs:
    """Gives and keeps the output of processes. A container's name is `namespace/pod/container`."""

    def __init__(self, echo: Callable[[str, str], None] | None = None) -> None:
        """With `echo` every line is also handed to it, after the name of its process."""
        self._outputs: OrderedDict[str, Output] = OrderedDict()
        self._echo = echo

    def of(self, name: str) -> Output:
        """The output of that process, empty at first."""
        found = self._outputs.get(name)
        if found is None:
            echo = partial(self._echo, name) if self._echo is not None else None
            found = self._outputs[name] = Output(echo)
        while len(self._outputs) > MAX_PROCESSES:
            self._outputs.popitem(last=False)
        return found

    def names(self) -> Sequence[str]:
        """Every process that has output."""
        return tuple(self._outputs)

    def tail(self, name: str, lines: int) -> Sequence[str] | None:
        """The last lines of a process; None where nobody has that name."""
        found = self._find(name)
        if found is None:
            return None
        return found.lines[-lines:] if lines > 0 else ()

    def follow(self, name: str) -> AsyncIterator[str]:
        """The lines of a process from now on.

        Raises:
            KeyError: no process has that name.
        """
        found = self._find(name)
        if found is None:
            raise KeyError(name)
        return found.follow()

    def _find(self, name: str) -> Output | None:
        """By full name, or by a part of it: a pod or its Deployment, a container, or both.

        Of several that fit the one that was started last is meant.
        """
        if name in self._outputs:
            return self._outputs[name]
        parts = name.split("/")
        fitting = [key for key in self._outputs if _fits(parts, key.split("/"))]
        return self._outputs[fitting[-1]] if fitting else None


def _fits(parts: list[str], key: list[str]) -> bool:
    """Whether `parts` name consecutive parts of `key`; a pod may go by its Deployment's name."""
    return any(
        all(
            have == want or have.startswith(f"{want}-")
            for want, have in zip(parts, key[start:], strict=False)
        )
        for start in range(len(key) - len(parts) + 1)
    )
