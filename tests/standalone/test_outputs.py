"""The output of processes is found by the names that users have at hand."""

from __future__ import annotations

import pytest

from pointsman.standalone.outputs import MAX_PROCESSES, Outputs

NAMES = ("default/chat-5f-0/vllm", "default/chat-5f-0/syncer", "default/chatty-1a-0/vllm", "envoy")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("envoy", "envoy"),
        ("default/chat-5f-0/vllm", "default/chat-5f-0/vllm"),
        ("chat-5f-0/vllm", "default/chat-5f-0/vllm"),
        ("chat/vllm", "default/chat-5f-0/vllm"),
        ("chat", "default/chat-5f-0/syncer"),
        ("syncer", "default/chat-5f-0/syncer"),
        ("chatty", "default/chatty-1a-0/vllm"),
        ("nobody", None),
        ("vllm/chat", None),
    ],
)
def test_a_process_is_found_by_a_part_of_its_name(asked: str, found: str | None) -> None:
    outputs = Outputs()
    for name in NAMES:
        outputs.of(name).add(name)
    assert outputs.tail(asked, 1) == ((found,) if found is not None else None)
    assert outputs.tail("envoy", 0) == ()


def test_only_so_many_outputs_are_kept() -> None:
    outputs = Outputs()
    for number in range(MAX_PROCESSES + 5):
        outputs.of(str(number))
    assert len(outputs.names()) == MAX_PROCESSES
    assert outputs.tail("0", 1) is None
    with pytest.raises(KeyError):
        outputs.follow("0")


def test_lines_can_be_echoed_with_the_name_of_their_process() -> None:
    said: list[tuple[str, str]] = []
    Outputs(lambda name, line: said.append((name, line))).of("envoy").add("hello")
    assert said == [("envoy", "hello")]
