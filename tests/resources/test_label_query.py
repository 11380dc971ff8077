"""Label selectors as text, by the grammar of Kubernetes."""

from __future__ import annotations

import pytest

from pointsman.resources.label_query import LabelQuery, LabelQueryError

LABELS = {"app": "web", "tier": "a", "example.com/rank": "7", "empty": ""}


@pytest.mark.parametrize(
    ("text", "is_match"),
    [
        ("", True),
        ("app=web", True),
        ("app == web", True),
        ("app!=web", False),
        ("none!=web", True),
        ("app in(web,db)", True),
        ("app in (db)", False),
        ("app notin (db)", True),
        ("none notin (db)", True),
        ("app", True),
        ("none", False),
        ("!none", True),
        ("!app", False),
        ("empty=", True),
        ("empty in ()", True),
        ("example.com/rank>6", True),
        ("example.com/rank > 7", False),
        ("example.com/rank<8", True),
        ("app>1", False),
        ("none<1", False),
        ("app=web,tier in (a, b),!none", True),
        ("app=web,tier in (b)", False),
    ],
)
def test_what_a_selector_means(text: str, is_match: bool) -> None:
    assert LabelQuery.of(text).matches(LABELS) is is_match


@pytest.mark.parametrize(
    "text",
    ["a b", "a in b", "=x", "a=b=c", "a in (b", "(a)", "a>b", "a>", "a=b c", "-a", "a=_", "a/b/c"],
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(LabelQueryError, match="unable to parse"):
        LabelQuery.of(text)
