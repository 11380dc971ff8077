"""Which fields differ between two states of an object."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from pointsman.resources.base import Resource
from pointsman.resources.fields import Where
from pointsman.resources.problems import field_text

_SHOWN = 3


def changed_fields(old: Resource, new: Resource, limit: int = _SHOWN) -> list[str]:
    """The fields in which a user's two versions differ, as texts; at most `limit` of them.

    What the store keeps beside (uid, generation, status and the like) does not count.
    """
    before, after = _as_written(old), _as_written(new)
    return [field_text(where) for where in islice(_differences(before, after, ()), limit)]


def same_content(old: Resource, new: Resource) -> bool:
    """Whether all but metadata and status is the same: then the generation stays."""
    return old.model_copy(update=_REST) == new.model_copy(update=_REST | {"metadata": old.metadata})


def same_input(old: Resource, new: Resource) -> bool:
    """Whether two states of an object are the same to whoever reads it as input.

    The status counts only where it is input (`Resource.STATUS_IS_INPUT`), and what every write
    changes (the resource version) never does.
    """
    if old.KIND != new.KIND or (old.STATUS_IS_INPUT and old.status != new.status):
        return False
    before, after = old.metadata, new.metadata
    if before is not after and before.model_copy(update=_VERSION) != after.model_copy(
        update=_VERSION
    ):
        return False
    rest = (name for name in type(old).model_fields if name not in ("metadata", "status"))
    return all(getattr(old, name) == getattr(new, name) for name in rest)


_VERSION: dict[str, Any] = {"resource_version": ""}
_REST: dict[str, Any] = {"status": None}


def _as_written(item: Resource) -> dict[str, Any]:
    data = item.to_dict()
    data.pop("status", None)
    kept = ("labels", "annotations", "deletionTimestamp", "ownerReferences")
    data["metadata"] = {key: data["metadata"][key] for key in kept if key in data["metadata"]}
    return data


def _differences(old: Any, new: Any, where: Where) -> Iterator[Where]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if key not in old or key not in new:
                yield (*where, key)
            else:
                yield from _differences(old[key], new[key], (*where, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, (*where, index))
    elif old != new:
        yield where
