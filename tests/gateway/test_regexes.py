"""Regular expressions are judged as Envoy judges them."""

from __future__ import annotations

import asyncio

import pytest
from envoy.config.route.v3 import route_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.gateway import snapshot
from pointsman.gateway.routes.regexes import problem
from pointsman.gateway.snapshot import EnvoyResource, Key, Snapshot
from pointsman.gateway.translate import translate
from pointsman.xds.dry_run import check
from tests.gateway.test_golden import GOLDEN, OPTIONS, loaded

GOOD = (
    "a", "/v[0-9]+/(?:chat|completions)", "(?i)abc", "a(?i)b", r"\Qa(b\E", r"\p{Greek}+", r"\pL",
    "[[:alpha:]_-]", "[]a]", "[a-]", "(?P<n>a)(?<m>b)", "a{2,3}?", "a{,2}", "{", "x*?", r"\x41\_",
    "é+", "[à-ü]", "(?:a{30}){33}", ".{900}",
)  # fmt: skip
BAD = (
    "", "(", ")", "[", "a**", "*", "|*", "(?=a)", "(?!a)", "(?<=a)", r"(a)\1", r"\Z", "a++",
    "a{1001}", "(?:a{30}){34}", "a{3,2}", "[z-a]", "[[:foo:]]", r"\p{Foo}", "(?P=n)", "(?>a)",
    "(?P<n>a)(?P<n>b)", "\\", r"[\b]", r"\x{100}", "(?#x)", "\ud800", "(" * 600,
    "(?:[^a]{1000}[^b]{1000}[^c]{1000})|" * 20,
)  # fmt: skip
PIECES = st.sampled_from(
    ["a", "é", "(", ")", "[", "]", "*", "+", "?", "{2}", "{2,", "|", "^", "$", ".", r"\d", r"\pL",
     r"\Q", r"\E", r"\b", r"\x41", "(?i)", "(?:", "(?-s:", "[^", "[:alpha:]", "a-z", "z-a", "-",
     r"\-", r"\0", r"\12", "{1000}", "}", ",", "(?P<n>"]
)  # fmt: skip


def served(expressions: list[str]) -> Snapshot:
    """A listener that matches on every expression."""
    name = "default/front/any"
    found = translate(loaded((GOLDEN / "routes" / "in.yaml").read_text()), OPTIONS).snapshot
    listener = found.names(snapshot.LISTENER)[name]
    routes = [
        {"match": {"safe_regex": {"regex": item}}, "direct_response": {"status": 200}}
        for item in expressions
    ]
    host = {"name": "all", "domains": ["*"], "routes": routes}
    message = route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])
    return Snapshot.of(
        [listener, EnvoyResource.of(Key(snapshot.ROUTE_CONFIGURATION, name), message)]
    )


@pytest.mark.parametrize("text", GOOD)
def test_what_re2_can_read_has_no_problem(text: str) -> None:
    assert problem(text) is None


@pytest.mark.parametrize("text", BAD)
def test_what_re2_cannot_read_is_told(text: str) -> None:
    assert problem(text)


@given(st.text(max_size=40))
def test_no_text_raises(text: str) -> None:
    problem(text)


@pytest.mark.e2e
@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(PIECES, min_size=1, max_size=6).map("".join), max_size=60))
def test_the_real_envoy_takes_what_has_no_problem(found: list[str]) -> None:
    good = [item for item in (*GOOD, *found) if problem(item) is None]
    asyncio.run(check(served(good)))
