"""The times of conditions: kept while a status stays, new when it changes."""

from __future__ import annotations

from typing import Any

from pointsman.gateway.conditions import with_times

THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"


def condition(status: str, message: str = "", **more: str) -> dict[str, Any]:
    return {"type": "Accepted", "status": status, "message": message, **more}


def test_a_condition_that_keeps_its_status_keeps_its_time() -> None:
    old = {"conditions": [condition("True", lastTransitionTime=THEN)]}
    new = with_times({"conditions": [condition("True", "new words")]}, old, NOW)
    assert new["conditions"][0]["lastTransitionTime"] == THEN
    changed = with_times({"conditions": [condition("False")]}, old, NOW)
    assert changed["conditions"][0]["lastTransitionTime"] == NOW


def test_conditions_inside_lists_are_matched_by_what_they_are_about() -> None:
    old = {
        "listeners": [
            {"name": "a", "conditions": [condition("True", lastTransitionTime=THEN)]},
        ]
    }
    new = {
        "listeners": [
            {"name": "b", "conditions": [condition("True")]},
            {"name": "a", "conditions": [condition("True")]},
        ]
    }
    times = [
        item["conditions"][0]["lastTransitionTime"]
        for item in with_times(new, old, NOW)["listeners"]
    ]
    assert times == [NOW, THEN]


def test_a_status_that_did_not_change_stays_equal() -> None:
    first = with_times({"conditions": [condition("True")], "x": [1]}, None, THEN)
    assert with_times({"conditions": [condition("True")], "x": [1]}, first, NOW) == first


def test_entries_are_the_same_however_their_references_are_ordered() -> None:
    old = {"parentRef": {"group": "g", "name": "front"}, "conditions": [condition("True")]}
    new = {"parentRef": {"name": "front", "group": "g"}, "conditions": [condition("True")]}
    written = with_times({"parents": [old]}, None, THEN)
    assert with_times({"parents": [new]}, written, NOW) == written
