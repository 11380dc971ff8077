from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.resources.scalars import NotInJSONError, plain, tagged


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_nulls(text: str) -> None:
    assert plain(text) is None


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("TRUE", True)])
def test_only_true_and_false_are_bools(text: str, value: bool) -> None:
    assert plain(text) is value


@pytest.mark.parametrize(
    "text",
    ["yes", "on", "off", "y", "n", "12:30:45", "2026-01-31", "2026-01-31T10:00:00Z", "1_000", "=",
     "1.2.3", "0x", "1e", "-", "+", ".", "..", "09a", "nul", "tru", "~x", "a b"],
)  # fmt: skip
def test_what_older_yaml_took_for_something_else_is_text(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-7", -7), ("+5", 5), ("0644", 420), ("0o17", 15), ("0xFF", 255), ("-0x10", -16),
     ("9223372036854775807", 2**63 - 1)],
)  # fmt: skip
def test_whole_numbers(text: str, value: int) -> None:
    assert plain(text) == value
    assert type(plain(text)) is int


@pytest.mark.parametrize("text", ["9" * 20, "-" + "9" * 20, "0x1" + "0" * 16])
def test_whole_numbers_beyond_64_bits_are_fractions(text: str) -> None:
    assert isinstance(plain(text), float)


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-2.5E-1", -0.25)]
)
def test_fractions(text: str, value: float) -> None:
    assert plain(text) == value


@pytest.mark.parametrize("text", [".inf", "-.Inf", ".NaN", "1e999", "9" * 400])
def test_numbers_that_json_lacks_are_refused(text: str) -> None:
    with pytest.raises(NotInJSONError):
        plain(text)


def test_tags_say_what_a_scalar_is() -> None:
    assert tagged("tag:yaml.org,2002:str", "12") == "12"
    assert tagged("!", "true") == "true"
    assert tagged("tag:yaml.org,2002:int", "12") == 12
    for tag, text in (("tag:yaml.org,2002:int", "x"), ("!python/name:os", "system")):
        with pytest.raises(ValueError, match="tag"):
            tagged(tag, text)


@given(st.text(alphabet="0123456789xoabcdefEINn+-._~", max_size=40))
def test_any_text_has_a_value_or_is_refused(text: str) -> None:
    with contextlib.suppress(NotInJSONError):
        assert plain(text) is None or isinstance(plain(text), str | int | float | bool)
