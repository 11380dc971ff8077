"""What a status becomes when ours is put in."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.cluster.merging import has_entries, merge_patch, merged_status, without_entries

OURS, THEIRS = "example.com/ours", "example.com/theirs"
OLD, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"


def condition(kind: str, value: str = "True", at: str | None = OLD) -> dict[str, Any]:
    found = {"type": kind, "status": value, "reason": kind, "message": "", "observedGeneration": 1}
    return found if at is None else {**found, "lastTransitionTime": at}


def entry(controller: str | None, gateway: str, *conditions: dict[str, Any]) -> dict[str, Any]:
    parent = {"kind": "Gateway", "namespace": "apps", "name": gateway}
    named = {} if controller is None else {"controllerName": controller}
    return {"parentRef": parent, **named, "conditions": list(conditions)}


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    return merged_status(
        old,
        new,
        namespace="apps",
        controllers={OURS},
        gateways={("apps", "front")},
        now=NOW,
    )


def test_entries_of_others_stay_as_they_are_and_ours_follow() -> None:
    theirs = entry(THEIRS, "front", condition("Accepted", "False"))
    stale = entry(OURS, "gone", condition("Accepted"))
    new = {"parents": [entry(OURS, "front", condition("Accepted", at=None))]}
    found = merged({"parents": [stale, theirs]}, new)
    assert found["parents"][0] == theirs
    assert found["parents"][1:] == [entry(OURS, "front", condition("Accepted", at=NOW))]


def test_a_condition_that_keeps_its_status_keeps_its_time() -> None:
    old = {"parents": [entry(OURS, "front", condition("Accepted"), condition("ResolvedRefs"))]}
    new = {
        "parents": [
            entry(
                OURS,
                "front",
                condition("Accepted", at=None),
                condition("ResolvedRefs", "False", at=None),
            )
        ]
    }
    (found,) = merged(old, new)["parents"]
    assert [item["lastTransitionTime"] for item in found["conditions"]] == [OLD, NOW]


def test_what_is_said_twice_changes_nothing() -> None:
    new = {"parents": [entry(OURS, "front", condition("Accepted", at=None))]}
    once = merged({"parents": [entry(THEIRS, "front", condition("Accepted"))]}, new)
    assert merged(once, new) == once
    assert merge_patch(once, merged(once, new)) == {}


def test_an_older_pools_entries_are_ours_by_their_gateway() -> None:
    """They have no controller's name, and begin with an entry that is for nobody."""
    nobody = {"parentRef": {"kind": "Status", "name": "default"}, "conditions": []}
    theirs = entry(None, "other", condition("Accepted"))
    stale = entry(None, "front", condition("Accepted", "False"))
    new = {"parent": [entry(None, "front", condition("Accepted", at=None))]}
    found = merged({"parent": [nobody, theirs, stale]}, new)
    assert found["parent"] == [theirs, entry(None, "front", condition("Accepted", at=NOW))]


def test_where_nobody_has_said_anything_nothing_is_said() -> None:
    assert merged(None, {"parents": []}) == {}
    assert merged({"parents": []}, {"parents": []}) == {"parents": []}


def test_conditions_of_other_types_stay_and_ours_that_no_longer_hold_go() -> None:
    foreign = condition("example.com/Audited")
    old = {"conditions": [condition("Accepted"), condition("Warning"), foreign]}
    found = merged(old, {"conditions": [condition("Accepted", at=None)]})
    assert found["conditions"] == [condition("Accepted"), foreign]


def test_what_is_ours_goes_when_we_no_longer_say_it() -> None:
    old = {"addresses": [{"value": "10.0.0.1"}], "listeners": [], "extra": 1}
    found = merged(old, {"conditions": [], "listeners": []})
    assert found == {"conditions": [], "listeners": [], "extra": 1}
    assert merge_patch(old, found) == {"addresses": None, "conditions": []}


@pytest.mark.parametrize(("others", "kept"), [(0, 16), (10, 6), (16, 0), (20, 0)])
def test_no_more_ancestors_are_written_than_the_api_takes(others: int, kept: int) -> None:
    def ancestor(controller: str, number: int) -> dict[str, Any]:
        ref = {"kind": "Gateway", "namespace": "apps", "name": f"g{number}"}
        return {"ancestorRef": ref, "controllerName": controller, "conditions": []}

    old = {"ancestors": [ancestor(THEIRS, number) for number in range(others)]}
    found = merged(old, {"ancestors": [ancestor(OURS, number) for number in range(20)]})
    ours = [item for item in found["ancestors"] if item["controllerName"] == OURS]
    assert len(ours) == kept
    assert len(found["ancestors"]) - kept == others


def test_an_object_that_is_served_no_more_is_found_by_what_we_said_of_it() -> None:
    status = {"parents": [entry(THEIRS, "front"), entry(OURS, "front")]}
    assert has_entries(status, {OURS})
    assert not has_entries({"parents": [entry(THEIRS, "front")]}, {OURS})
    assert merged(status, without_entries(status)) == {"parents": [entry(THEIRS, "front")]}
