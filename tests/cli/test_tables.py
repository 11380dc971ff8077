from __future__ import annotations

import io

import pytest
from rich.console import Console

from pointsman.cli import tables

HEADERS = ["NAME", "READY", "MESSAGE"]
ROWS = [["a-rather-long-name", "True", "words " * 12], ["b", "False", ""]]


def test_in_a_pipe_columns_are_as_wide_as_their_cells() -> None:
    assert tables.plain_lines(["NAME", "READY"], [["long-name", "yes"], ["b", "no"]]) == [
        "NAME        READY",
        "long-name   yes",
        "b           no",
    ]
    assert tables.plain_lines(["NAME"], [["a"]], with_headers=False) == ["a"]
    assert tables.plain_lines(["NAME", "AGE"], []) == ["NAME   AGE"]


def terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> io.StringIO:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system="standard")
    monkeypatch.setattr(tables, "Console", lambda: console)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    return out


def test_on_a_terminal_words_have_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch, 120)

    tables.show(HEADERS, ROWS)

    assert "\x1b[32mTrue" in out.getvalue()
    assert "\x1b[31mFalse" in out.getvalue()


def test_messages_give_way_and_names_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(monkeypatch, 60)

    tables.show(HEADERS, ROWS)

    lines = out.getvalue().splitlines()
    assert any("a-rather-long-name" in line for line in lines)
    assert len(lines) > 3


def test_where_there_is_no_room_everything_is_folded_and_nothing_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = terminal(monkeypatch, 30)

    tables.show(HEADERS, ROWS)

    assert out.getvalue().count("words") == 12
