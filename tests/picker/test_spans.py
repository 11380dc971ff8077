"""The model's span is exact, whatever the body looks like."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.picker.requests.spans import NotJsonError, read, splice

MODEL = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LOOKALIKES = st.sampled_from(
    ["model", 'model"', '"model":', '\\"model":"x"', "mod\\u0065l", "Model", "\\", '{"model":"y"}']
)
TEXT = LOOKALIKES | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALAR = st.none() | st.booleans() | st.integers() | TEXT
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def spelled(draw: Any, text: str) -> str:
    """A JSON string, some of its characters spelled with escapes."""
    plain = json.dumps(text, ensure_ascii=draw(st.booleans()))[1:-1]
    if draw(st.booleans()) and "\\" not in plain:
        at = draw(st.integers(0, max(0, len(plain) - 1)))
        if plain and ord(plain[at]) < 128:
            plain = f"{plain[:at]}\\u{ord(plain[at]):04x}{plain[at + 1 :]}"
    return f'"{plain}"'


@st.composite
def bodies(draw: Any) -> tuple[bytes, str]:
    """A body whose last top-level model is known, written by hand to allow duplicates."""
    pairs: list[tuple[str, str]] = [
        (spelled(draw, draw(TEXT.filter(lambda key: key != "model"))), json.dumps(draw(VALUE)))
        for _ in range(draw(st.integers(0, 4)))
    ]
    names = draw(st.lists(MODEL, min_size=1, max_size=3))
    for name in names:
        # Each later than the one before, somewhere among the others.
        pairs.append((spelled(draw, "model"), spelled(draw, name)))
        pairs += [
            (json.dumps(draw(TEXT.filter(lambda key: key != "model"))), json.dumps(draw(VALUE)))
            for _ in range(draw(st.integers(0, 2)))
        ]
    space = draw(st.sampled_from(["", " ", "\n\t"]))
    inner = f"{space},{space}".join(f"{key}{space}:{space}{value}" for key, value in pairs)
    return f"{{{space}{inner}{space}}}".encode(), names[-1]


@given(bodies(), MODEL)
def test_the_last_top_level_model_is_replaced_and_nothing_else(
    body: tuple[bytes, str], new: str
) -> None:
    data, name = body
    found = read(data)
    assert found.model == name
    assert found.span is not None
    start, end = found.span
    assert json.loads(data[start:end]) == name
    changed = splice(data, found.span, new)
    assert changed[:start] == data[:start]
    assert changed[len(changed) - (len(data) - end) :] == data[end:]
    assert json.loads(changed)["model"] == new
    assert {**json.loads(changed), "model": name} == json.loads(data)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    try:
        found = read(data)
    except NotJsonError:
        return
    assert (found.model is None) == (found.span is None)


@given(bodies(), st.integers(0, 300))
def test_a_body_cut_short_is_no_json(body: tuple[bytes, str], at: int) -> None:
    data = body[0]
    cut = data[: min(at, len(data) - 1)]
    with pytest.raises(NotJsonError):
        read(cut.rstrip())


@pytest.mark.parametrize(
    "data",
    [
        b'{"prompt":"\xff\xfe model","model":"m"}',
        b'{"prompt":"\\ud800","model":"m"}',
        b'{"temperature":NaN,"top_p":-Infinity,"model":"m"}',
        b'{"x":1e999,"model":"m"}',
        b'\xef\xbb\xbf{"model":"m"}',
        b'{"model":"other","\xff":1,"model":"m"}',
        b'{"a":{"model":"x"},"b":"\\"model\\":\\"y\\"","model":"m"}',
        b'{"~0~0":{"model":"x"},"model":"m","z":{"model":"y"}}',
        b'{"mod\\u0065l":"m"}',
        b'{"model":"x","\\u006dodel" : "m"}',
    ],
)
def test_bodies_that_model_servers_accept_are_read(data: bytes) -> None:
    found = read(data)
    assert found.model == "m"
    assert found.span is not None
    assert data[slice(*found.span)] == b'"m"'


@pytest.mark.parametrize("data", [b"", b"[]", b'"model"', b"{", b'{"model"}', b"nul", b"\xff"])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(NotJsonError):
        read(data)


def test_nesting_without_end_is_refused_and_not_followed() -> None:
    with pytest.raises(NotJsonError):
        read(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


def test_a_huge_body_full_of_lookalikes_is_read_in_time() -> None:
    inner = b",".join([b'{"model":"no"}'] * 200_000)
    data = b'{"model":"m","a":[' + inner + b"]}"
    found = read(data)
    assert found.span == (9, 12)
    assert splice(data, found.span, "m-lora").startswith(b'{"model":"m-lora","a":[{"model":"no"}')
