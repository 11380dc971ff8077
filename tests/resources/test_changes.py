from __future__ import annotations

from typing import Any

import pytest

from pointsman.resources.base import Resource
from pointsman.resources.differences import changed_fields, same_content
from pointsman.resources.parse import parse_object
from pointsman.resources.updates import immutable_changes


def route(spec: dict[str, Any], **metadata: Any) -> Resource:
    data = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": spec}
    parsed = parse_object({**data, "metadata": {"name": "a", **metadata}})
    assert parsed.resource is not None
    return parsed.resource


def test_the_fields_that_differ_are_named() -> None:
    old = route({"rules": [{"timeouts": {"request": "1s"}}], "hostnames": ["a.b"]})
    new = route({"rules": [{"timeouts": {"request": "2s"}}], "hostnames": ["a.b", "c.d"]})

    assert set(changed_fields(old, new)) == {"spec.rules[0].timeouts.request", "spec.hostnames"}
    assert changed_fields(old, old) == []


def test_only_so_many_are_named() -> None:
    old = route({}, labels={})
    new = route({}, labels={f"l{i}": "x" for i in range(9)})

    assert changed_fields(old, new) == ["metadata.labels"]
    relabelled = new.with_metadata(labels={f"l{i}": "y" for i in range(9)})
    assert len(changed_fields(new, relabelled)) == 3


def test_what_the_store_adds_is_no_difference() -> None:
    old = route({})
    new = old.with_metadata(uid="u", generation=7, resource_version="9").with_status({"x": 1})

    assert changed_fields(old, new) == []
    assert same_content(old, new)
    assert not same_content(old, route({"hostnames": ["a.b"]}))


def test_labels_are_metadata_and_no_content() -> None:
    assert same_content(route({}), route({}, labels={"a": "b"}))


MODEL = ("inference.networking.x-k8s.io/v1alpha2", "InferenceModel")
CLASS = ("gateway.networking.k8s.io/v1", "GatewayClass")


@pytest.mark.parametrize(
    ("kind", "old", "new", "field"),
    [
        (MODEL, {"modelName": "a"}, {"modelName": "b"}, "spec.modelName"),
        (MODEL, {"modelName": "a"}, {"modelName": "a", "criticality": "Critical"}, None),
        (CLASS, {"controllerName": "a.b/c"}, {"controllerName": "a.b/d"}, "spec.controllerName"),
        (CLASS, {"controllerName": "a.b/c"}, {"controllerName": "a.b/c", "description": "x"}, None),
    ],
)
def test_some_fields_keep_their_first_value(
    kind: tuple[str, str], old: dict[str, Any], new: dict[str, Any], field: str | None
) -> None:
    pool = {"poolRef": {"name": "p"}} if kind is MODEL else {}
    before, after = (
        parse_object(
            {
                "apiVersion": kind[0],
                "kind": kind[1],
                "metadata": {"name": "a"},
                "spec": {**s, **pool},
            }
        ).resource
        for s in (old, new)
    )
    assert before is not None
    assert after is not None

    assert [change.field for change in immutable_changes(before, after)] == (
        [field] if field else []
    )


def test_objects_of_different_kinds_have_no_rule_in_common() -> None:
    assert immutable_changes(route({}), route({})) == []
