"""The approximate prefix index."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.picker.prefix.blocks import (
    BLOCK_ENDS,
    BLOCK_TOKENS,
    TOKENS_UP_TO,
    chain,
    prompt_bytes,
    prompt_chain,
)
from pointsman.picker.prefix.index import PrefixIndex


def test_blocks_grow_with_their_position_and_cover_everything() -> None:
    assert BLOCK_ENDS[:2] == (256, 512)
    assert BLOCK_ENDS[-1] == 512 * 1024
    assert sum(BLOCK_TOKENS) == TOKENS_UP_TO[-1] == 131_072
    assert len(BLOCK_ENDS) == 32 + 120 + 96


def test_a_common_beginning_is_a_common_chain() -> None:
    one, two = b"a" * 1000 + b"b" * 1000, b"a" * 1000 + b"c" * 1000
    first, second = chain(b"m", one), chain(b"m", two)
    assert first[:3] == second[:3]
    assert not set(first[3:]) & set(second[3:])
    assert not set(chain(b"other", one)) & set(first)
    assert len(chain(b"m", b"a" * 255)) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": "x" * 600}, {"role": "user", "content": "a"}]},
        {"system": "x" * 600, "messages": [{"role": "user", "content": "a"}]},
        {"prompt": "x" * 600},
        {"prompt": list(range(600))},
        {"instructions": "x" * 600, "input": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 600}]}]},
    ],
)
def test_prompts_of_all_shapes_have_a_chain(fields: dict[str, Any]) -> None:
    assert len(prompt_chain("m", fields)) >= 2
    assert prompt_chain("m", fields) == prompt_chain("m", fields)
    assert prompt_chain("m", {**fields, "cache_salt": "s"}) != prompt_chain("m", fields)
    assert prompt_chain("m", {**fields, "tools": [{"a": 1}]}) != prompt_chain("m", fields)


def test_a_conversation_goes_on_where_it_stopped() -> None:
    turn = {"role": "user", "content": "x" * 3000}
    reply = {"role": "assistant", "content": "y" * 3000}
    before = prompt_chain("m", {"messages": [turn]})
    after = prompt_chain("m", {"messages": [turn, reply, turn]})
    assert after[: len(before)] == before
    assert prompt_bytes({"messages": [turn]}).startswith(b"user\0xxx")


def hashes(text: str) -> list[int]:
    return list(map(ord, text))


def test_a_match_ends_at_the_first_missing_block() -> None:
    index = PrefixIndex()
    index.add("a", hashes("12345"))
    index.add("b", hashes("12"))
    index.add("c", hashes("9345"))
    assert index.match(hashes("12345")) == {"a": TOKENS_UP_TO[4], "b": TOKENS_UP_TO[1]}
    assert index.match(hashes("1x345")) == {"a": TOKENS_UP_TO[0], "b": TOKENS_UP_TO[0]}
    assert index.match(hashes("x")) == {}
    assert index.match([]) == {}


def test_the_least_recent_goes_first_and_of_a_chain_its_end() -> None:
    index = PrefixIndex()
    room = 4 * BLOCK_TOKENS[0]
    index.add("a", hashes("123"), room)
    index.add("a", hashes("xy"), room)
    assert index.match(hashes("123")) == {"a": TOKENS_UP_TO[1]}
    index.add("a", hashes("12"), room)
    index.add("a", hashes("z"), room)
    assert index.match(hashes("12")) == {"a": TOKENS_UP_TO[1]}
    assert index.match(hashes("xy")) == {"a": TOKENS_UP_TO[0]}


def test_a_server_that_is_gone_holds_nothing_and_its_place_is_used_again() -> None:
    index = PrefixIndex()
    index.add("a", hashes("12"))
    index.add("b", hashes("1"))
    index.remove("a")
    assert index.match(hashes("12")) == {"b": TOKENS_UP_TO[0]}
    index.add("c", hashes("12"))
    assert index.match(hashes("12")) == {"b": TOKENS_UP_TO[0], "c": TOKENS_UP_TO[1]}
    index.remove("b")
    index.remove("c")
    index.remove("c")
    assert index.blocks == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.text("1234", max_size=6), st.integers(0, 9)),
        max_size=40,
    )
)
def test_it_never_holds_more_than_the_caches_do(steps: list[tuple[str, str, int]]) -> None:
    index = PrefixIndex()
    for name, text, room in steps:
        # A chain's hash depends on what is before it, as real ones do.
        values = [hash(text[: place + 1]) for place in range(len(text))]
        if room == 0:
            index.remove(name)
            assert name not in index.match(values)
            continue
        index.add(name, values, room * BLOCK_TOKENS[0])
        assert index.match(values).get(name, 0) == min(len(text), room) * BLOCK_TOKENS[0]
    for name in "abc":
        index.remove(name)
    assert index.blocks == 0
