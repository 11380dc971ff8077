"""Which routes attach to which listeners, and what those that do not are told."""

from __future__ import annotations

import pytest

from tests.conformance.judgement import CLASS, Judgement, gateway, namespace, route
from tests.conformance.test_gateways import FRONT

LISTENERS = """[
  {name: http, port: 80, protocol: HTTP},
  {name: named, port: 80, protocol: HTTP, hostname: "*.named.example"},
  {name: other, port: 8080, protocol: HTTP},
  {name: calls, port: 8081, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}]"""
ACCEPTED = ("True", "Accepted")


def refused(reason: str) -> tuple[str, str]:
    return ("False", reason)


@pytest.mark.parametrize(
    ("parent", "more", "expected"),
    [
        ("{name: front}", "", ACCEPTED),
        ("{name: front, sectionName: other, port: 8080}", "", ACCEPTED),
        ("{name: front, port: 8080}", "", ACCEPTED),
        ("{name: front, sectionName: gone}", "", refused("NoMatchingParent")),
        ("{name: front, port: 81}", "", refused("NoMatchingParent")),
        ("{name: front, sectionName: http, port: 8080}", "", refused("NoMatchingParent")),
        ("{name: front, sectionName: calls}", "", refused("NotAllowedByListeners")),
        ("{name: gone}", "", refused("NoMatchingParent")),
        (
            "{name: front, sectionName: named}",
            "hostnames: [named.example]",
            refused("NoMatchingListenerHostname"),
        ),
        ("{name: front, sectionName: named}", "hostnames: [a.named.example]", ACCEPTED),
    ],
)
def test_a_route_is_told_why_it_does_not_attach(
    parent: str, more: str, expected: tuple[str, str]
) -> None:
    found = Judgement(CLASS + gateway(LISTENERS) + route(parents=f"[{parent}]", more=more))
    assert found.parent("HTTPRoute default/route")["Accepted"] == expected
    is_attached = expected == ACCEPTED
    counts = [item["attachedRoutes"] for item in found.statuses[FRONT]["listeners"]]
    assert bool(sum(counts)) == is_attached


def test_a_route_of_another_namespace_is_refused_unless_it_is_allowed() -> None:
    text = CLASS + namespace("far", kind="test") + gateway(LISTENERS)
    away = route("away", "[{name: front, namespace: default, sectionName: http}]", "far")
    found = Judgement(text + away)
    accepted = found.parent("HTTPRoute far/away")["Accepted"]
    assert accepted == refused("NotAllowedByListeners")
    selected = (
        "name: http, allowedRoutes: {namespaces: {from: Selector, selector: "
        "{matchLabels: {kind: test}}}}"
    )
    found = Judgement(text.replace("name: http", selected) + away)
    assert found.parent("HTTPRoute far/away")["Accepted"] == ACCEPTED


def test_each_parent_has_an_entry_of_its_own() -> None:
    parents = "[{name: front, sectionName: http}, {name: front, sectionName: gone}]"
    found = Judgement(CLASS + gateway(LISTENERS) + route(parents=parents))
    entries = found.statuses["HTTPRoute default/route"]["parents"]
    assert [item["parentRef"]["sectionName"] for item in entries] == ["http", "gone"]
    assert found.parent("HTTPRoute default/route", 0)["Accepted"] == ACCEPTED
    assert found.parent("HTTPRoute default/route", 1)["Accepted"] == refused("NoMatchingParent")
