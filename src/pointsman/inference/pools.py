"""All pools of a store, in the newest generation."""

from __future__ import annotations

from typing import Protocol, TypeVar

from pointsman.resources.base import Resource
from pointsman.resources.inference_extension import InferencePool, InferencePoolV1Alpha2

R = TypeVar("R", bound=Resource)


class Objects(Protocol):
    """What has the objects: the store does."""

    def list(self, cls: type[R], namespace: str | None = None) -> list[R]:
        """All objects of that class."""


def pools(store: Objects) -> dict[tuple[str, str], InferencePool]:
    """(namespace, name) to the pool as v1.

    While users migrate, both generations may exist under one name; the newer one counts.
    """
    older = (pool.to_v1() for pool in store.list(InferencePoolV1Alpha2))
    newer = store.list(InferencePool)
    return {(pool.metadata.namespace, pool.metadata.name): pool for pool in (*older, *newer)}
