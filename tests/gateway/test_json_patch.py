"""JSON patches: the operations, the parents that `add` makes, and errors that help."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.gateway.patches.json_patch import PatchError, apply_operation, select

DOCUMENT = {"name": "x", "filters": [{"name": "a"}, {"name": "b"}], "a/b": {"m~n": 1}}


@pytest.mark.parametrize(
    ("op", "path", "value", "source", "expected"),
    [
        ("add", "/port", 80, None, {**DOCUMENT, "port": 80}),
        ("add", "/filters/0", {}, None, {**DOCUMENT, "filters": [{}, *DOCUMENT["filters"]]}),
        ("add", "/filters/-", {}, None, {**DOCUMENT, "filters": [*DOCUMENT["filters"], {}]}),
        ("add", "/new/deep/key", 1, None, {**DOCUMENT, "new": {"deep": {"key": 1}}}),
        ("add", "/list/0/key", 1, None, None),
        ("add", "/list/-", 1, None, {**DOCUMENT, "list": [1]}),
        ("replace", "/name", "y", None, {**DOCUMENT, "name": "y"}),
        ("replace", "/filters/1/name", "c", None, None),
        ("remove", "/name", None, None, {k: v for k, v in DOCUMENT.items() if k != "name"}),
        ("remove", "/filters/0", None, None, {**DOCUMENT, "filters": [{"name": "b"}]}),
        ("copy", "/copied", None, "/a~1b/m~0n", {**DOCUMENT, "copied": 1}),
        ("move", "/moved", None, "/name", None),
        ("test", "/a~1b", {"m~n": 1}, None, DOCUMENT),
    ],
)
def test_an_operation_does_what_its_name_says(
    op: str, path: str, value: Any, source: str | None, expected: Any
) -> None:
    before = repr(DOCUMENT)
    if (op, path) == ("add", "/list/0/key"):
        with pytest.raises(PatchError):
            apply_operation(DOCUMENT, op, path, value, source)
        return
    result = apply_operation(DOCUMENT, op, path, value, source)
    if op == "move":
        assert result["moved"] == "x"
        assert "name" not in result
    elif expected is None:
        assert result["filters"][1]["name"] == "c"
    else:
        assert result == expected
    assert repr(DOCUMENT) == before


@pytest.mark.parametrize(
    ("op", "path", "said"),
    [
        ("replace", "/nmae", "did you mean name?"),
        ("replace", "/filters/7/name", "ends at /filters, a list of 2"),
        ("remove", "/name/inner", "which is 'x'"),
        ("remove", "", "cannot be removed"),
        ("add", "filters", "must start with '/'"),
        ("test", "/name", "test failed"),
    ],
)
def test_an_error_says_how_far_the_path_goes_and_what_is_there(
    op: str, path: str, said: str
) -> None:
    with pytest.raises(PatchError, match=r".*") as caught:
        apply_operation(DOCUMENT, op, path, "wrong")
    assert said in str(caught.value)


def test_a_value_cannot_be_moved_into_itself() -> None:
    with pytest.raises(PatchError, match="into itself"):
        apply_operation(DOCUMENT, "move", "/filters/0/name", None, "/filters")


def test_a_jsonpath_selects_places() -> None:
    assert select(DOCUMENT, "$.filters[?(@.name == 'b')]") == ["/filters/1"]
    assert select(DOCUMENT, "..name") == ["/name", "/filters/0/name", "/filters/1/name"]
    with pytest.raises(PatchError, match="no jsonPointers were found"):
        select(DOCUMENT, "$.nothing")
    with pytest.raises(PatchError, match="cannot be read"):
        select(DOCUMENT, "$.filters[?(")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(
    document=st.dictionaries(st.text(max_size=3), JSON, max_size=3),
    op=st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
    path=st.text(alphabet="/ab01-~", max_size=8),
    source=st.text(alphabet="/ab01-~", max_size=8),
    value=JSON,
)
def test_no_patch_raises_anything_but_a_patch_error(
    document: Any, op: str, path: str, source: str, value: Any
) -> None:
    assert outcome(document, op, path, value, source)


def outcome(document: Any, op: str, path: str, value: Any, source: str) -> str:
    try:
        apply_operation(document, op, path, value, source)
    except PatchError as error:
        return str(error)
    return "applied"
