"""How a user's patch changes an object that is made.

Sources: RFC 7396 (JSON merge patch), and Kubernetes' strategic merge for what occurs in the objects
made here: lists of named things are merged by name, other lists are replaced, `$patch: delete`
takes a named thing out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman.resources.envoy_infrastructure import ObjectPatch

_NAME = "name"
_DIRECTIVE = "$patch"
_DELETE = "delete"


def patched(item: Mapping[str, Any], patch: ObjectPatch | None) -> dict[str, Any]:
    """The object as the user wants it. What it is and whose it is stays."""
    if patch is None:
        return dict(item)
    changed = merged(item, patch.value, is_strategic=patch.type == "StrategicMerge")
    meta = item["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "ownerReferences") if key in meta}
    labels = {**(changed.get("metadata") or {}).get("labels", {}), **meta.get("labels", {})}
    return {
        **changed,
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "metadata": {**(changed.get("metadata") or {}), **kept, "labels": labels},
    }


def merged(under: Any, over: Any, *, is_strategic: bool) -> Any:
    """`under` with `over` merged in.

    >>> merged({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}}, is_strategic=False)
    {'b': {'c': 2, 'd': 3}}
    >>> merged([{"name": "x", "v": 1}], [{"name": "x", "v": 2}, {"name": "y"}], is_strategic=True)
    [{'name': 'x', 'v': 2}, {'name': 'y'}]
    """
    if isinstance(over, Mapping):
        result = dict(under) if isinstance(under, Mapping) else {}
        for key, value in over.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merged(result.get(key), value, is_strategic=is_strategic)
        return result
    if is_strategic and _is_named(over) and _is_named(under):
        return _merged_lists(under, over)
    return over


def _merged_lists(under: list[Any], over: list[Any]) -> list[Any]:
    result = {item[_NAME]: item for item in under}
    for item in over:
        name = item[_NAME]
        if item.get(_DIRECTIVE) == _DELETE:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), item, is_strategic=True)
    return list(result.values())


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, Mapping) and isinstance(item.get(_NAME), str) for item in value
    )
