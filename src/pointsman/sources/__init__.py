"""Where objects come from and where their conditions go back to.

Every source (files, a Kubernetes API server, another Pointsman process) has the same shape, and a
composition root runs the one that its command is for. Those that own the objects write statuses.
"""

from __future__ import annotations

from typing import Any, Protocol

from pointsman.resources.base import Ref
from pointsman.store import Change, Store

__all__ = ["Source", "StatusWriter", "apply_status"]


class Source(Protocol):
    """Keeps a store as the world is."""

    async def start(self) -> None:
        """Returns when everything that exists now is in the store."""

    async def follow(self) -> None:
        """Keeps the store current until it is cancelled; call after `start`."""


class StatusWriter(Protocol):
    """Takes statuses back to where the objects came from.

    A source of those who own the objects is one too. A feed is not: the process that it comes from
    has the objects, and writes their statuses.
    """

    async def write_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Takes a status back; the object may be gone by then, which is no error."""


def apply_status(store: Store, ref: Ref, status: dict[str, Any]) -> tuple[Change, ...]:
    """Put a status on the object in the store; () when it is gone or had that status before."""
    item = store.find(ref)
    if item is None or item.status == status:
        return ()
    return store.apply([item.with_status(status)])
