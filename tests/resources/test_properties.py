"""Nothing that a user writes raises: whatever comes in, objects and problems come out."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.resources import kinds
from pointsman.resources.documents import read
from pointsman.resources.parse import Parsed, parse_object, parse_text

YAML_PIECES = st.sampled_from(
    ["a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "&a ", "*a", "!!str ", "'", '"', "|\n",
     ">\n", "---\n", "...\n", "#", "? ", "<<: ", "1", "0x1", "true", "~", "%", "@", "\t", "\\", "é",
     "\ud800", "\x00", "apiVersion: v1\n", "kind: Pod\n", "metadata: {name: a}\n", "spec:\n"]
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.sampled_from(["a", "HTTP", "Service", "gateway.networking.k8s.io", "10s", "/", "*.a.b"])
)  # fmt: skip


def _field_names() -> list[str]:
    names = {"name", "namespace", "labels", "port", "type", "items", "kind", "path", "value"}
    for cls in kinds.USED:
        schema = cls.model_json_schema(by_alias=True)
        for part in (schema, *schema.get("$defs", {}).values()):
            names |= set(part.get("properties", {}))
    return sorted(names)


FIELDS = _field_names()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def check(parsed: Parsed) -> None:
    if parsed.resource is None:
        assert parsed.problems
    for problem in parsed.problems:
        assert problem.message
        assert str(problem).isprintable()
    if parsed.resource is not None:
        written = parsed.resource.to_dict()
        orjson.dumps(written)
        assert parse_object(written).resource == parsed.resource


@given(st.lists(YAML_PIECES, max_size=40).map("".join))
@settings(max_examples=250, deadline=None)
def test_any_text_is_documents_and_problems(text: str) -> None:
    documents, problems = read(text, "f.yaml")
    assert all(problem.line >= 1 for problem in problems)
    assert all(document.mark.line >= 1 for document in documents)
    for parsed in parse_text(text, "f.yaml"):
        check(parsed)


@given(st.text(max_size=200))
@settings(max_examples=250, deadline=None)
def test_any_unicode_is_documents_and_problems(text: str) -> None:
    for parsed in parse_text(text, "f.yaml"):
        check(parsed)


@given(VALUES)
@settings(max_examples=250, deadline=None)
def test_any_value_is_an_object_or_a_problem(value: Any) -> None:
    check(parse_object(value))


@given(st.sampled_from(kinds.ALL), VALUES, VALUES, st.dictionaries(st.sampled_from(FIELDS), VALUES))
@settings(max_examples=250, deadline=None)
def test_any_spec_of_any_kind_is_an_object_or_a_problem(
    cls: Any, spec: Any, metadata: Any, more: dict[str, Any]
) -> None:
    data = {
        **more,
        "apiVersion": cls.KIND.api_version,
        "kind": cls.KIND.kind,
        "metadata": metadata
        if isinstance(metadata, dict) and "name" in metadata
        else {"name": "a"},
        "spec": spec,
    }
    check(parse_object(data))
