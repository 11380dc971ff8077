from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.cli.output import as_yaml
from pointsman.resources.documents import read

TEXTS = st.text(max_size=8) | st.text(alphabet="0123456789eExo.+-_:~nulTrueyso", max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXTS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_what_is_printed_as_yaml_is_read_back_the_same(value: dict[str, Any]) -> None:
    documents, problems = read(as_yaml(value), "f.yaml")

    assert not problems
    assert [document.data for document in documents] == [value]


def test_a_text_that_looks_like_a_number_is_quoted() -> None:
    assert as_yaml({"version": "12e5", "mode": "0644", "name": "a"}) == (
        "mode: '0644'\nname: a\nversion: '12e5'\n"
    )
