"""Which policy counts where, and how each stands with its targets."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.gateway.policies.targets import Known, Place, Spot, Subject, Targets, standings
from pointsman.gateway.policies.traffic import TrafficPolicies, ignored, merged, problem
from pointsman.gateway.policies.verdicts import Remarks, verdict
from pointsman.resources.base import Ref
from pointsman.resources.client_policies import ClientTrafficPolicy
from pointsman.resources.parse import parse_object
from pointsman.resources.traffic_policies import BackendTrafficPolicy, TrafficPolicySpec
from pointsman.store import Store

GROUP = "gateway.networking.k8s.io"
GATEWAY = Subject(Ref(GROUP, "Gateway", "default", "g"), {"tier": "edge"})
ROUTE = Subject(Ref(GROUP, "HTTPRoute", "default", "r"), {"app": "chat"})
OTHER_ROUTE = Subject(Ref(GROUP, "HTTPRoute", "default", "other"), {"app": "chat"})
HTTP = Place(GATEWAY, GATEWAY, "http")
KNOWN = {
    GATEWAY.ref: Known(GATEWAY, frozenset({"http", "admin"}), (GATEWAY.ref,)),
    ROUTE.ref: Known(ROUTE, frozenset({"chat"}), (GATEWAY.ref,)),
    OTHER_ROUTE.ref: Known(OTHER_ROUTE, frozenset(), (GATEWAY.ref,)),
}


def target(subject: Subject, section: str | None = None) -> dict[str, str]:
    found = {"group": GROUP, "kind": subject.ref.kind, "name": subject.ref.name}
    return found | ({"sectionName": section} if section else {})


def policy(name: str, *targets: dict[str, str], age: int = 0, **spec: Any) -> BackendTrafficPolicy:
    data = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "BackendTrafficPolicy",
        "metadata": {"name": name, "creationTimestamp": f"2026-01-{age + 1:02}T00:00:00Z"},
        "spec": {**({"targetRefs": list(targets)} if targets else {}), **spec},
    }
    parsed = parse_object(data)
    assert isinstance(parsed.resource, BackendTrafficPolicy), parsed.problems
    return parsed.resource


def client(name: str, *targets: dict[str, str]) -> ClientTrafficPolicy:
    parsed = parse_object(
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "ClientTrafficPolicy",
            "metadata": {"name": name},
            "spec": {"targetRefs": list(targets)},
        }
    )
    assert isinstance(parsed.resource, ClientTrafficPolicy), parsed.problems
    return parsed.resource


def counts(targets: Targets[BackendTrafficPolicy], rule: str | None, listener: str) -> str | None:
    found = targets.of_route(ROUTE, rule, Place(GATEWAY, GATEWAY, listener))
    return found.metadata.name if found is not None else None


def test_the_most_specific_target_counts() -> None:
    targets = Targets(
        [
            policy("gateway", target(GATEWAY)),
            policy("listener", target(GATEWAY, "http")),
            policy("route", target(ROUTE)),
            policy("rule", target(ROUTE, "chat")),
        ]
    )
    assert counts(targets, "chat", "http") == "rule"
    assert counts(targets, "another", "http") == "route"
    assert counts(targets, None, "http") == "route"

    without_routes = Targets(targets.policies[:1] + targets.policies[1:2])
    assert counts(without_routes, "chat", "http") == "listener"
    assert counts(without_routes, "chat", "admin") == "gateway"


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_policies_on_one_target_the_older_counts(order: int) -> None:
    both = [policy("young", target(ROUTE), age=1), policy("old", target(ROUTE))]
    assert counts(Targets(both[::order]), None, "http") == "old"


def test_a_selector_finds_what_has_its_labels_and_age_decides_against_names() -> None:
    wanted = [{"kind": "HTTPRoute", "matchLabels": {"app": "chat"}}]
    selector: dict[str, Any] = {"targetSelectors": wanted}
    older = Targets([policy("selects", **selector), policy("names", target(ROUTE), age=1)])
    younger = Targets([policy("selects", age=1, **selector), policy("names", target(ROUTE))])

    assert counts(older, None, "http") == "selects"
    assert counts(younger, None, "http") == "names"
    elsewhere = Subject(OTHER_ROUTE.ref, {"app": "mail"})
    assert older.holder(elsewhere) is None


def test_an_expression_selects_too() -> None:
    wanted = [{"key": "app", "operator": "NotIn", "values": ["chat"]}]
    targets = Targets(
        [policy("p", targetSelectors=[{"kind": "HTTPRoute", "matchExpressions": wanted}])]
    )
    assert targets.holder(ROUTE) is None
    assert targets.holder(Subject(ROUTE.ref, {})) is not None


def test_a_policy_of_another_namespace_finds_nothing() -> None:
    stranger = policy("p", target(ROUTE)).with_metadata(namespace="elsewhere")
    assert Targets([stranger]).holder(ROUTE) is None


def test_what_a_policy_holds_what_it_lost_and_what_is_missing() -> None:
    old = policy("old", target(ROUTE))
    young = policy(
        "young", target(ROUTE), target(OTHER_ROUTE, "chat"), target(GATEWAY, "http"), age=1
    )
    found = standings(Targets([old, young]), KNOWN)

    assert found[old.ref].held == (Spot(ROUTE.ref),)
    assert found[young.ref].conflicts == (Spot(ROUTE.ref),)
    assert found[young.ref].missing == (Spot(OTHER_ROUTE.ref, "chat"),)
    assert found[young.ref].held == (Spot(GATEWAY.ref, "http"),)
    assert found[young.ref].gateways == (GATEWAY.ref,)


def test_a_gateway_policy_says_which_listeners_routes_and_rules_override_it() -> None:
    items = [
        policy("gateway", target(GATEWAY)),
        policy("listener", target(GATEWAY, "http"), age=1),
        policy("route", target(OTHER_ROUTE), age=2),
        policy("rule", target(ROUTE, "chat"), age=3),
    ]
    found = standings(Targets(items), KNOWN)
    told = verdict(items[0], found[items[0].ref], Remarks())

    assert told[-1]["type"] == "Overridden"
    assert told[-1]["message"] == (
        "This policy is being overridden by other backendTrafficPolicies for these listeners: "
        "[default/g/http] and these routes: [default/other] and these rules: [default/r/chat]"
    )


def test_a_policy_without_any_target_of_its_own_is_not_accepted() -> None:
    old, young = policy("old", target(ROUTE)), policy("young", target(ROUTE), age=1)
    lost = policy("lost", {**target(ROUTE), "name": "nobody"})
    found = standings(Targets([old, young, lost]), KNOWN)
    (conflicted,) = verdict(young, found[young.ref], Remarks())
    (missing,) = verdict(lost, found[lost.ref], Remarks())

    assert (conflicted["status"], conflicted["reason"]) == ("False", "Conflicted")
    assert conflicted["message"] == (
        "Unable to target HTTPRoute default/r, another BackendTrafficPolicy has already attached "
        "to it"
    )
    assert (missing["status"], missing["reason"]) == ("False", "TargetNotFound")


def spec(**more: Any) -> TrafficPolicySpec:
    return policy("p", target(ROUTE), **more).spec


def test_a_listener_of_a_listener_set_has_its_own_policy_or_that_of_its_set() -> None:
    owner = Subject(Ref(GROUP, "ListenerSet", "default", "s"), {})
    known = {**KNOWN, owner.ref: Known(owner, frozenset({"a", "b"}), (GATEWAY.ref,))}
    items = [
        client("gateway", target(GATEWAY)),
        client("set", target(owner)),
        client("listener", target(owner, "a")),
    ]
    targets = Targets(items)

    found = [targets.of_listener(Place(GATEWAY, owner, name)) for name in ("a", "b")]
    assert [item and item.metadata.name for item in found] == ["listener", "set"]
    told = verdict(items[0], standings(targets, known)[items[0].ref], Remarks())
    assert told[-1]["message"] == (
        "There are existing ClientTrafficPolicies that are overriding these sections "
        "[default/s default/s/a]"
    )


def test_what_would_change_the_meaning_refuses_the_policy_and_what_tunes_does_not() -> None:
    limited = spec(rateLimit={"type": "Global"}, timeout={"http": {"requestTimeout": "1s"}})
    assert problem(limited) == "Not supported: rateLimit; nothing of this policy is in force"
    tuned = spec(compression=[{"type": "Gzip"}])
    assert problem(tuned) is None
    assert ignored(tuned) == ["compression"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"timeout": {"tcp": {"connectTimeout": "0s"}}}, "timeout.tcp.connectTimeout must be"),
        ({"healthCheck": {"active": {"type": "GRPC", "interval": "0s"}}}, "healthCheck.active.int"),
        ({"healthCheck": {"passive": {"maxEjectionPercent": 101}}}, "healthCheck.passive.maxEj"),
        ({"http2": {"initialStreamWindowSize": "1Ki"}}, "http2.initialStreamWindowSize must be"),
        ({"retry": {"perRetry": {"backOff": {"baseInterval": "2s", "maxInterval": "1s"}}}},
         "retry.perRetry.backOff.maxInterval"),
        ({"connection": {"bufferLimit": "8Gi"}}, "connection.bufferLimit must be from 1"),
        ({"requestBuffer": {"limit": "8Gi"}}, "requestBuffer.limit must be from 1"),
        ({"httpUpgrade": [{"type": "CONNECT"}]}, "httpUpgrade[0]: CONNECT"),
    ],
)  # fmt: skip
def test_what_envoy_would_refuse_is_a_problem_of_the_policy(
    fields: dict[str, Any], text: str
) -> None:
    assert (problem(spec(**fields)) or "").startswith(text)


def test_a_merging_policy_adds_to_that_of_its_gateway() -> None:
    parent = spec(
        timeout={"http": {"requestTimeout": "9s"}, "tcp": {"connectTimeout": "2s"}},
        retry={"numRetries": 5},
    )
    child = spec(timeout={"http": {"requestTimeout": "1s"}}, mergeType="StrategicMerge")
    both = merged(parent, child)

    assert both.timeout is not None
    assert both.timeout.http is not None
    assert both.timeout.http.request_timeout == "1s"
    assert both.timeout.tcp is not None
    assert both.timeout.tcp.connect_timeout == "2s"
    assert both.retry is not None
    assert both.retry.num_retries == 5
    assert both.merge_type is None


def test_only_a_policy_that_says_so_is_merged() -> None:
    store = Store()
    store.apply(
        [
            policy("gateway", target(GATEWAY), retry={"numRetries": 5}),
            policy("route", target(ROUTE), dns={"respectDnsTtl": False}),
            policy("other", target(OTHER_ROUTE), mergeType="JSONMerge"),
        ]
    )
    policies = TrafficPolicies(store)
    alone = policies.of_route(ROUTE, None, HTTP)
    together = policies.of_route(OTHER_ROUTE, None, HTTP)

    assert alone is not None
    assert alone.retry is None
    assert together is not None
    assert together.retry is not None
