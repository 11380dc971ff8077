from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pointsman.resources.selectors import LabelSelector, labels_match

LABELS = {"app": "web", "tier": "front"}


def expression(operator: str, *values: str, key: str = "app") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


@pytest.mark.parametrize(
    ("selector", "is_match"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "web", "tier": "back"}}, False),
        (expression("In", "web", "api"), True),
        (expression("In", "api"), False),
        (expression("In", "x", key="absent"), False),
        (expression("NotIn", "api"), True),
        (expression("NotIn", "web"), False),
        (expression("NotIn", "x", key="absent"), True),
        (expression("Exists"), True),
        (expression("Exists", key="absent"), False),
        (expression("DoesNotExist"), False),
        (expression("DoesNotExist", key="absent"), True),
        ({"matchLabels": {"app": "web"}, **expression("Exists", key="absent")}, False),
    ],
)
def test_all_labels_and_expressions_must_hold(selector: dict[str, Any], is_match: bool) -> None:
    assert LabelSelector.model_validate(selector).matches(LABELS) is is_match


@pytest.mark.parametrize("selector", [expression("In"), expression("Exists", "x")])
def test_values_stand_only_beside_operators_that_compare(selector: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LabelSelector.model_validate(selector)


def test_an_empty_set_of_wanted_labels_matches_everything() -> None:
    assert labels_match({}, LABELS)
    assert not labels_match({"app": ""}, {})
