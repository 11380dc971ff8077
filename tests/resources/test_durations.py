from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.resources.durations import gateway_seconds, go_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("10ms", 0.01),
        ("24h", 86400),
        ("1h30m", 5400),
        ("1m1m", 120),
        ("99999ms", 99.999),
    ],
)
def test_gateway_durations_are_whole_numbers_with_units(text: str, seconds: float) -> None:
    assert gateway_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "10", "1.5s", "-1s", "1d", "100000s", "1s1s1s1s1s", " 1s", "1s\n", "\u0661s"]
)
def test_other_texts_are_no_gateway_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        gateway_seconds(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1000s", 1000), ("0", 0), ("1.5h", 5400), (".5s", 0.5), ("-1m", -60), ("3us", 3e-6)],
)
def test_go_durations_may_have_fractions_and_signs(text: str, seconds: float) -> None:
    assert go_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "1x", "." * 100, "1s" * 1000])
def test_other_texts_are_no_go_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        go_seconds(text)


@given(st.text(max_size=30))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    for read in (gateway_seconds, go_seconds):
        with contextlib.suppress(ValueError):
            assert isinstance(read(text), float)
