from __future__ import annotations

import time
from textwrap import dedent
from typing import Any

import pytest

from pointsman.resources.documents import MAX_CHARACTERS, MAX_DEPTH, read


def data_of(text: str) -> list[Any]:
    documents, problems = read(dedent(text), "f.yaml")
    assert not problems
    return [document.data for document in documents]


def refusal_of(text: str) -> str:
    _, problems = read(dedent(text), "f.yaml")
    assert len(problems) == 1
    return str(problems[0])


def test_every_field_has_its_line() -> None:
    documents, _ = read("# first\na: 1\nb:\n- c: x\n  d: y\n- e\nf: {g: 1,\n  h: 2}\n", "f.yaml")
    mark = documents[0].mark

    assert mark.line == 2
    assert mark.line_of(("b",)) == 3
    assert mark.line_of(("b", 0, "d")) == 5
    assert mark.line_of(("b", 1)) == 6
    assert mark.line_of(("f", "h")) == 8


def test_a_field_that_is_not_there_has_the_line_of_what_is_around_it() -> None:
    documents, _ = read("a:\n  b: 1\n", "f.yaml")

    assert documents[0].mark.line_of(("a", "x", "y")) == 1


def test_lines_count_on_over_documents() -> None:
    documents, _ = read("---\na: 1\n--- \nb: 2\n---\n# nothing\n---\nc: 3\n", "f.yaml")

    assert [d.data for d in documents] == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert [d.mark.line for d in documents] == [2, 4, 8]


def test_a_document_may_start_on_the_line_of_its_marker() -> None:
    assert data_of("%YAML 1.2\n--- {a: 1}\n--- text\n...\n") == [{"a": 1}, "text"]


def test_a_broken_document_leaves_the_others_alone() -> None:
    documents, problems = read("a: 1\n---\nb: [\n---\nc: 3\n", "f.yaml")

    assert [d.data for d in documents] == [{"a": 1}, {"c": 3}]
    assert [p.line for p in problems] == [4]
    assert "is not YAML" in str(problems[0])


def test_a_marker_inside_a_text_is_text() -> None:
    assert data_of("a: |\n  ---\n  b\n") == [{"a": "---\nb\n"}]


def test_json_is_read_too() -> None:
    assert data_of('{"a": [1, null, "x\\u00e9"],\n\t"b": true}') == [
        {"a": [1, None, "xé"], "b": True}
    ]
    assert data_of('{"smile": "\\ud83d\\ude00", "slash": "a\\/b"}') == [
        {"smile": "\U0001f600", "slash": "a/b"}
    ]


def test_keys_are_texts() -> None:
    assert data_of("{8080: a, true: b, 1.5: c, x: d}") == [
        {"8080": "a", "true": "b", "1.5": "c", "x": "d"}
    ]


@pytest.mark.parametrize("key", ["? [a]\n: 1", "? {a: 1}\n: 1", "~: 1"])
def test_other_keys_are_refused(key: str) -> None:
    assert "a key must be a text" in refusal_of(key)


def test_a_key_that_stands_twice_is_refused_with_both_places() -> None:
    assert refusal_of("a: 1\nb: 2\na: 3\n") == "f.yaml:3: the key 'a' stands here and on line 1"


def test_aliases_and_merge_keys_are_unfolded() -> None:
    text = """
        base: &base {x: 1, y: 2}
        more: &more {z: 9}
        one: {<<: *base, y: 3}
        two: {<<: [*base, *more]}
        three: *base
        "<<": plain
    """
    (data,) = data_of(text)

    assert data["one"] == {"y": 3, "x": 1}
    assert data["two"] == {"x": 1, "y": 2, "z": 9}
    assert data["three"] == {"x": 1, "y": 2}
    assert data["<<"] == "plain"


@pytest.mark.parametrize("text", ["a: *nowhere", "a: &a [*a]"])
def test_an_alias_needs_an_anchor_before_it(text: str) -> None:
    assert "has no anchor before it" in refusal_of(text)


def test_a_document_that_unfolds_into_billions_is_refused_at_once() -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 20)]
    began = time.monotonic()

    message = refusal_of("\n".join(["l0: &l0 [x, x, x]", *levels]))

    assert "aliases stand for more than" in message
    assert time.monotonic() - began < 1


def test_merge_keys_do_not_get_around_the_bound() -> None:
    levels = [f"l{i}: &l{i} {{a: *l{i - 1}, b: *l{i - 1}, <<: *l{i - 1}}}" for i in range(1, 30)]

    assert "aliases stand for more than" in refusal_of("\n".join(["l0: &l0 {x: 1}", *levels]))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_and_does_not_exhaust_the_stack(opening: str) -> None:
    assert f"more than {MAX_DEPTH} levels" in refusal_of(opening * 50_000)


def test_a_file_that_is_too_large_is_refused() -> None:
    assert "is too large" in refusal_of("#" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize(
    "text",
    [
        "a: \x00",
        "a: \ud800",
        "\tb: 1",
        "a: 'x",
        "a: !!binary aGk=",
        "@",
        "a: b: c",
        "&a &b x",
        '{"a": "\\ud800"}',
        '{"a": "\\ud83d\\ude00", "b": ' + "[" * 200 + "]" * 200 + "}",
    ],
)
def test_what_is_not_yaml_is_a_problem_with_a_line(text: str) -> None:
    _, problems = read(text, "f.yaml")

    assert [problem.line for problem in problems] == [1]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "---\n---\n", "~"])
def test_nothing_is_no_document(text: str) -> None:
    assert read(text, "f.yaml") == ([], [])
