"""Tokens, prose and values that nobody computed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.modelserver.jsonvalues import value_for
from pointsman.modelserver.prose import Prose, cut_at_stop, natural_length, pieces_of
from pointsman.modelserver.tokens import VOCABULARY_SIZE, Tokenizer

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@given(texts)
def test_every_text_survives_a_round_trip(text: str) -> None:
    tokenizer = Tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert "".join(pieces_of(ids)) == text
    assert all(0 <= token < VOCABULARY_SIZE for token in ids)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_any_token_ids_have_a_text(ids: list[int]) -> None:
    assert isinstance(Tokenizer().decode(ids), str)


def test_english_takes_about_as_many_tokens_as_with_real_vocabularies() -> None:
    text = "The pointsman reads the timetable and sets the track before the train arrives."
    assert 1.0 < len(Tokenizer().encode(text)) / len(text.split()) < 2.0


def test_a_generated_text_has_the_tokens_it_was_made_of() -> None:
    tokenizer = Tokenizer()
    ids, pieces = Prose(tokenizer).write(1234, 200)
    assert len(ids) == len(pieces) == 200
    assert tokenizer.encode("".join(pieces)) == ids


def test_prose_depends_on_the_seed_and_on_nothing_else() -> None:
    first, second = Prose(Tokenizer()), Prose(Tokenizer())
    assert first.write(5, 50) == second.write(5, 50)
    assert first.write(5, 50) != first.write(6, 50)


def test_an_answer_that_ends_by_itself_ends_with_a_sentence() -> None:
    _ids, pieces = Prose(Tokenizer()).write(77, 30, ends_sentence=True)
    assert "".join(pieces).endswith(".")


def test_natural_lengths_spread_around_the_median() -> None:
    lengths = sorted(natural_length(seed, 100) for seed in range(999))
    assert 90 < lengths[500] < 110
    assert lengths[0] < 40 < 250 < lengths[-1]


@pytest.mark.parametrize(("keeps_stop", "expected"), [(False, "one two "), (True, "one two three")])
def test_a_stop_string_across_tokens_cuts_the_text(keeps_stop: bool, expected: str) -> None:
    pieces = ["one ", "two th", "re", "e four", " five"]
    assert cut_at_stop(pieces, ["three", "five"], keeps_stop=keeps_stop) == (4, "three")
    assert "".join(pieces) == expected


@given(texts, st.text("ab. ", min_size=1, max_size=3))
def test_a_stop_string_is_found_wherever_the_text_has_it(text: str, stop: str) -> None:
    pieces = pieces_of(Tokenizer().encode(text))
    found = cut_at_stop(pieces, [stop], keeps_stop=False)
    assert (found is not None) == (stop in text)
    if found is not None:
        assert "".join(pieces) == text[: text.find(stop)]


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string", "minLength": 30}, str),
        ({"type": "integer", "minimum": 3, "maximum": 4}, int),
        ({"type": "number"}, float),
        ({"type": "boolean"}, bool),
        ({"type": ["null", "array"], "items": {"type": "string"}}, list),
        ({"enum": ["a", "b"]}, str),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "object", "properties": {}}}}, dict),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, int),
        (None, str),
    ],
)
def test_a_schema_gets_a_value_of_its_type(schema: Any, kind: type) -> None:
    assert type(value_for(schema, 12345)) is kind


def test_a_schema_that_contains_itself_ends() -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    assert isinstance(value_for(schema, 1), dict)
