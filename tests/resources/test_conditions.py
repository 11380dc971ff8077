from __future__ import annotations

from pointsman.resources.conditions import Condition, find, merge

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
ACCEPTED = Condition("Accepted", "True", "Accepted", "fine", 1)
PROGRAMMED = Condition("Programmed", "False", "Pending", "wait", 1)


def test_a_new_condition_has_the_time_of_now() -> None:
    assert merge([], [ACCEPTED], EARLY) == [
        {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "fine",
            "observedGeneration": 1,
            "lastTransitionTime": EARLY,
        }
    ]


def test_nothing_changes_when_nothing_changed_whatever_the_order() -> None:
    before = merge([], [ACCEPTED, PROGRAMMED], EARLY)

    assert merge(before, [PROGRAMMED, ACCEPTED], LATE) == before


def test_the_time_stays_while_the_status_stays() -> None:
    before = merge([], [ACCEPTED], EARLY)
    changed = Condition("Accepted", "True", "Other", "otherwise", 2)

    after = merge(before, [changed], LATE)

    assert after[0]["lastTransitionTime"] == EARLY
    assert (after[0]["reason"], after[0]["observedGeneration"]) == ("Other", 2)


def test_the_time_changes_with_the_status() -> None:
    before = merge([], [ACCEPTED], EARLY)

    after = merge(before, [Condition("Accepted", "False", "Invalid")], LATE)

    assert after[0]["lastTransitionTime"] == LATE


def test_a_condition_that_is_no_longer_claimed_goes() -> None:
    before = merge([], [ACCEPTED, PROGRAMMED], EARLY)

    assert [item["type"] for item in merge(before, [PROGRAMMED], LATE)] == ["Programmed"]


def test_a_message_is_cut_where_the_api_server_would_refuse_it() -> None:
    long = Condition("Accepted", "True", "Accepted", "x" * 40_000)

    assert len(merge([], [long], EARLY)[0]["message"]) == 32768


def test_a_condition_is_found_by_its_type() -> None:
    written = merge([], [ACCEPTED, PROGRAMMED], EARLY)

    assert find(written, "Programmed") is written[1]
    assert find(written, "Ready") is None
    assert ACCEPTED.is_true
    assert not PROGRAMMED.is_true
