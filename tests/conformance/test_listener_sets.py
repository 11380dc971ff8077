"""ListenerSets: who may attach, whose listener counts, and what routes see of them."""

from __future__ import annotations

import pytest

from tests.conformance.judgement import (
    CERTIFICATE,
    CLASS,
    FAR_CERTIFICATE,
    Judgement,
    gateway,
    grant,
    listener_set,
    namespace,
    route,
)
from tests.conformance.test_gateways import FRONT, GOOD, https

OWN = "[{name: own, port: 80, protocol: HTTP, hostname: own.example}]"
MORE = "ListenerSet default/more"
AWAY = "ListenerSet far/more"
REFUSED = ("False", "NotAllowed")
TO_SET = "[{kind: ListenerSet, name: more}]"


def allowing(where: str) -> str:
    return f"allowedListeners: {{namespaces: {{{where}}}}}"


def one(name: str, hostname: str, port: int = 80, more: str = "") -> str:
    return f"{{name: {name}, port: {port}, protocol: HTTP, hostname: {hostname}{more}}}"


@pytest.mark.parametrize(
    ("allowed", "near", "away"),
    [
        ("", False, False),
        (allowing("from: None"), False, False),
        (allowing("from: Same"), True, False),
        (allowing("from: All"), True, True),
        (allowing("from: Selector, selector: {matchLabels: {kind: test}}"), False, True),
    ],
)
def test_a_gateway_takes_sets_from_the_namespaces_that_it_allows(
    allowed: str, near: bool, away: bool
) -> None:
    found = Judgement(
        CLASS
        + namespace("far", kind="test")
        + gateway(OWN, allowed)
        + listener_set(f"[{one('a', 'a.example')}]")
        + listener_set(f"[{one('b', 'b.example')}]", namespace="far")
    )
    for name, listener, is_taken in ((MORE, "a", near), (AWAY, "b", away)):
        if is_taken:
            assert found.of(name) == {
                "Accepted": ("True", "Accepted"),
                "Programmed": ("True", "Programmed"),
            }
            assert found.listener(name, listener) == GOOD
        else:
            assert found.of(name) == {"Accepted": REFUSED, "Programmed": REFUSED}
    assert found.of(FRONT)["Accepted"] == ("True", "Accepted")
    assert found.statuses[FRONT]["attachedListenerSets"] == near + away


def test_a_set_of_a_gateway_that_is_not_accepted_says_so() -> None:
    bad = "[{name: odd, port: 80, protocol: example.com/Odd}]"
    found = Judgement(
        CLASS + gateway(bad, allowing("from: Same")) + listener_set(f"[{one('a', 'a.example')}]")
    )
    assert found.of(MORE)["Accepted"] == ("False", "ParentNotAccepted")
    assert found.of(MORE)["Programmed"][0] == "False"
    assert found.statuses[FRONT]["attachedListenerSets"] == 0


def test_a_set_of_no_gateway_says_so() -> None:
    found = Judgement(CLASS + listener_set(f"[{one('a', 'a.example')}]"))
    assert found.of(MORE)["Accepted"] == ("False", "ParentNotAccepted")


def conflicting(kind: str) -> Judgement:
    """A Gateway and four sets that want what another has."""
    odd = ", protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}"

    def want(name: str, hostname: str, port: int) -> str:
        if kind == "HostnameConflict":
            return one(name, hostname)
        return f"{{name: {name}, port: {port}, hostname: {name}.example{odd}}}"

    own = f"[{one('own', 'own.example', 80)}]"
    second = one("second", "second.example", 81)
    return Judgement(
        CLASS
        + CERTIFICATE
        + gateway(own, allowing("from: Same"))
        + listener_set(f"[{one('a', 'a.example')}, {want('x', 'own.example', 80)}, {second}]")
        + listener_set(f"[{want('x', 'own.example', 80)}]", "lost-to-gateway", made="02")
        + listener_set(
            f"[{one('b', 'b.example')}, {want('y', 'a.example', 81)}]", "partly", made="03"
        )
        + listener_set(f"[{want('y', 'a.example', 81)}]", "lost-to-set", made="04")
    )


@pytest.mark.parametrize("kind", ["HostnameConflict", "ProtocolConflict"])
def test_the_gateway_goes_before_its_sets_and_the_older_set_before_the_younger(kind: str) -> None:
    found = conflicting(kind)
    assert found.listener(FRONT, "own") == GOOD
    assert found.listener(MORE, "a") == GOOD
    assert found.listener("ListenerSet default/partly", "b") == GOOD
    lost = {
        "Accepted": ("False", kind),
        "Programmed": ("False", kind),
        "Conflicted": ("True", kind),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }
    for name, listener in (
        (MORE, "x"),
        ("ListenerSet default/lost-to-gateway", "x"),
        ("ListenerSet default/partly", "y"),
        ("ListenerSet default/lost-to-set", "y"),
    ):
        assert found.listener(name, listener) == lost
    for name in (MORE, "ListenerSet default/partly"):
        assert found.of(name)["Accepted"][0] == "True"
        assert found.of(name)["Programmed"] == ("True", "Programmed")
    for name in ("ListenerSet default/lost-to-gateway", "ListenerSet default/lost-to-set"):
        assert found.of(name) == {
            "Accepted": ("False", "ListenersNotValid"),
            "Programmed": ("False", "ListenersNotValid"),
        }
    assert found.statuses[FRONT]["attachedListenerSets"] == 2


def test_of_two_sets_of_one_age_the_first_by_name_counts() -> None:
    wild = one("w", '"*.wild.example"')
    found = Judgement(
        CLASS
        + gateway(OWN, allowing("from: Same"))
        + listener_set(f"[{wild}]", "set-b")
        + listener_set(f"[{wild}]", "set-a")
    )
    assert found.listener("ListenerSet default/set-a", "w") == GOOD
    assert found.listener("ListenerSet default/set-b", "w")["Conflicted"][0] == "True"


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ("", ("False", "RefNotPermitted")),
        (grant("Gateway", "Secret"), ("False", "RefNotPermitted")),
        (grant("ListenerSet", "Secret"), ("True", "ResolvedRefs")),
    ],
)
def test_grants_for_the_gateway_are_none_for_its_sets(
    grants: str, expected: tuple[str, str]
) -> None:
    found = Judgement(
        CLASS
        + FAR_CERTIFICATE
        + grants
        + gateway(OWN, allowing("from: Same"))
        + listener_set(f"[{https('{name: far-cert, namespace: far}')}]")
    )
    assert found.listener(MORE, "https")["ResolvedRefs"] == expected


def test_routes_attach_to_a_set_by_what_its_listeners_allow() -> None:
    listeners = [
        one("all", "all.example", more=", allowedRoutes: {namespaces: {from: All}}"),
        one("same", "same.example"),
        one("calls", "calls.example", more=", allowedRoutes: {kinds: [{kind: GRPCRoute}]}"),
        one("odd", "odd.example", more=", allowedRoutes: {kinds: [{kind: Odd}]}"),
    ]
    to_set = "[{kind: ListenerSet, name: more, namespace: far}]"
    found = Judgement(
        CLASS
        + gateway(OWN, allowing("from: All"))
        + listener_set(f"[{', '.join(listeners)}]", namespace="far")
        + route("near", to_set, "far")
        + route("away", to_set)
        + route("refused", to_set.replace("more,", "more, sectionName: same,"))
        + route("calls", to_set, "far", kind="GRPCRoute")
    )
    counts = {item["name"]: item["attachedRoutes"] for item in found.statuses[AWAY]["listeners"]}
    assert counts == {"all": 3, "same": 2, "calls": 1, "odd": 0}
    assert found.listener(AWAY, "odd")["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    assert [item["kind"] for item in found.entry(AWAY, "calls")["supportedKinds"]] == ["GRPCRoute"]
    assert found.parent("HTTPRoute far/near")["Accepted"] == ("True", "Accepted")
    assert found.parent("HTTPRoute default/away")["Accepted"] == ("True", "Accepted")
    refused = found.parent("HTTPRoute default/refused")["Accepted"]
    assert refused == ("False", "NotAllowedByListeners")


def test_a_route_of_the_gateway_does_not_attach_to_its_sets() -> None:
    found = Judgement(
        CLASS
        + gateway(OWN, allowing("from: Same"))
        + listener_set(f"[{one('a', 'a.example')}]")
        + route("plain")
        + route("section", "[{name: front, sectionName: a}]")
        + route("both", "[{name: front, sectionName: gone}, {kind: ListenerSet, name: more}]")
    )
    assert found.entry(FRONT, "own")["attachedRoutes"] == 1
    assert found.entry(MORE, "a")["attachedRoutes"] == 1
    no_parent = ("False", "NoMatchingParent")
    assert found.parent("HTTPRoute default/section")["Accepted"] == no_parent
    assert found.parent("HTTPRoute default/both", 0)["Accepted"] == no_parent
    assert found.parent("HTTPRoute default/both", 1)["Accepted"] == ("True", "Accepted")
    assert len(found.statuses["HTTPRoute default/plain"]["parents"]) == 1


def test_a_route_to_a_set_that_is_not_there_or_not_taken_says_so() -> None:
    found = Judgement(
        CLASS
        + gateway(OWN)
        + listener_set(f"[{one('a', 'a.example')}]")
        + route("refused", TO_SET)
        + route("lost", "[{kind: ListenerSet, name: gone}]")
    )
    for name in ("refused", "lost"):
        accepted = found.parent(f"HTTPRoute default/{name}")["Accepted"]
        assert accepted == ("False", "NoMatchingParent")


def test_a_route_to_a_set_of_no_gateway_says_so() -> None:
    found = Judgement(CLASS + listener_set(f"[{one('a', 'a.example')}]") + route("route", TO_SET))
    accepted = found.parent("HTTPRoute default/route")["Accepted"]
    assert accepted == ("False", "NoMatchingParent")


def test_a_route_that_no_hostname_of_a_set_meets_says_so() -> None:
    more = "hostnames: [b.example]"
    found = Judgement(
        CLASS
        + gateway(OWN, allowing("from: Same"))
        + listener_set(f"[{one('a', 'a.example')}]")
        + route("route", TO_SET, more=more)
    )
    accepted = found.parent("HTTPRoute default/route")["Accepted"]
    assert accepted == ("False", "NoMatchingListenerHostname")
