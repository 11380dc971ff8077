"""What a status becomes when ours is put in: what other controllers say of the object stays.

Rules (Gateway API): in the lists `parents` and `ancestors` an entry is its controller's, and nobody
else touches it; conditions are told apart by their type. An entry of ours for what we no longer
serve goes. Of an InferencePool an entry may lack the controller's name: then it is ours if it names
a Gateway of ours. The older generation of pools starts with an entry for nobody, which goes too.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from pointsman.gateway.conditions import with_times

ENTRY_LISTS = ("parents", "parent", "ancestors")
OWN_CONDITIONS = frozenset(
    {
        "Accepted",
        "Conflicted",
        "InsecureFrontendValidationMode",
        "Programmed",
        "ResolvedRefs",
        "SupportedVersion",
        "Warning",
    }
)
"""The types that Pointsman sets where an object has conditions of its own."""
OWN_KEYS = frozenset({"addresses", "attachedListenerSets", "listeners", "supportedFeatures"})
MAX_ENTRIES = 16
"""Of `ancestors`; the API takes no more."""

Status = Mapping[str, Any]
GatewayKey = tuple[str, str]
"""Namespace and name."""


def merged_status(
    old: Status | None,
    new: Status,
    *,
    namespace: str,
    controllers: Container[str],
    gateways: Container[GatewayKey],
    now: str,
) -> dict[str, Any]:
    """The whole status of an object, from what it is and what we say.

    Args:
        old: the status as it is.
        new: ours, without times.
        namespace: the object's own, which parentRefs without one mean.
        controllers: the names that are ours.
        gateways: the Gateways that are ours.
        now: an RFC 3339 text.
    """
    before = dict(old or {})
    result = {key: value for key, value in before.items() if key not in OWN_KEYS}
    timed = with_times(new, before, now)
    for key, value in timed.items():
        if key in ENTRY_LISTS:

            def is_ours(entry: Any) -> bool:
                return _is_ours(entry, namespace, controllers, gateways)

            entries = _entries(before.get(key), value, is_ours, key)
            # Where nobody has said anything, nothing is said of that either.
            if entries or key in before:
                result[key] = entries
        elif key == "conditions":
            result[key] = _conditions(before.get(key), value)
        else:
            result[key] = value
    return result


def has_entries(status: Status | None, controllers: Container[str]) -> bool:
    """Whether there is an entry of ours in a status."""
    return any(
        entry.get("controllerName") in controllers
        for key in ENTRY_LISTS
        for entry in (status or {}).get(key) or ()
        if isinstance(entry, Mapping)
    )


def without_entries(status: Status) -> dict[str, Any]:
    """What we say of an object that we no longer serve: nothing, in each of its lists."""
    return {key: [] for key in ENTRY_LISTS if key in status}


def merge_patch(old: Status | None, new: Status) -> dict[str, Any]:
    """The merge patch (RFC 7396) that makes `new` of `old`: what is gone is null."""
    gone = {key: None for key in (old or {}) if key not in new}
    return {**gone, **{key: value for key, value in new.items() if (old or {}).get(key) != value}}


def _entries(old: Any, ours: list[Any], is_ours: Callable[[Any], bool], key: str) -> list[Any]:
    others = [entry for entry in old or () if not is_ours(entry)]
    if key != "ancestors":
        return [*others, *ours]
    return [*others, *ours[: max(0, MAX_ENTRIES - len(others))]]


def _is_ours(
    entry: Any, namespace: str, controllers: Container[str], gateways: Container[GatewayKey]
) -> bool:
    if not isinstance(entry, Mapping):
        return False
    controller = entry.get("controllerName")
    if controller:
        return controller in controllers
    parent = entry.get("parentRef") or {}
    if (parent.get("kind"), parent.get("name")) == ("Status", "default"):
        return True
    return (parent.get("namespace") or namespace, parent.get("name")) in gateways


def _conditions(old: Any, ours: list[Any]) -> list[Any]:
    said = {item["type"] for item in ours}
    others = [
        item
        for item in old or ()
        if isinstance(item, Mapping) and item.get("type") not in said | OWN_CONDITIONS
    ]
    return [*ours, *others]
