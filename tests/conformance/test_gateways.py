"""Conditions of classes, Gateways and their listeners, as the conformance suite asks for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pointsman.gateway import snapshot
from pointsman.gateway.snapshot import Key
from pointsman.gateway.statuses.facts import Fleet
from pointsman.resources.base import Ref
from tests.conformance.judgement import (
    AUTHORITY,
    CERTIFICATE,
    CLASS,
    FAR_CERTIFICATE,
    IN_A_CLUSTER,
    Judgement,
    gateway,
    grant,
    namespace,
    route,
)

GOOD = {
    "Accepted": ("True", "Accepted"),
    "Programmed": ("True", "Programmed"),
    "ResolvedRefs": ("True", "ResolvedRefs"),
    "Conflicted": ("False", "NoConflicts"),
}
HTTP = "{name: http, port: 80, protocol: HTTP}"
FRONT = "Gateway default/front"


def https(certificate: str, name: str = "https", more: str = "") -> str:
    return (
        f"{{name: {name}, port: 443, protocol: HTTPS{more}, "
        f"tls: {{certificateRefs: [{certificate}]}}}}"
    )


def test_every_condition_tells_the_generation_that_it_is_about() -> None:
    found = Judgement(CLASS + gateway(f"[{HTTP}]") + route())
    generations = {"GatewayClass any": 3, FRONT: 5, "HTTPRoute default/route": 7}
    for name, generation in generations.items():
        status = found.statuses[name]
        nested = [*status.get("listeners", ()), *status.get("parents", ())]
        conditions = [
            *status.get("conditions", ()),
            *(each for item in nested for each in item["conditions"]),
        ]
        assert {item["observedGeneration"] for item in conditions} == {generation}


def test_a_class_lists_the_features_that_are_served_in_order() -> None:
    found = Judgement(CLASS).statuses["GatewayClass any"]
    names = [item["name"] for item in found["supportedFeatures"]]
    assert names == sorted(names)
    assert {"Gateway", "HTTPRoute", "GRPCRoute", "ListenerSet", "BackendTLSPolicy"} <= set(names)


def test_in_a_cluster_a_class_lists_what_becomes_of_infrastructure_too() -> None:
    alone, cluster = (
        [item["name"] for item in found.statuses["GatewayClass any"]["supportedFeatures"]]
        for found in (Judgement(CLASS), Judgement(CLASS, IN_A_CLUSTER))
    )
    assert cluster == sorted(cluster)
    assert "GatewayInfrastructure" in set(cluster) - set(alone)


def test_where_routes_cannot_ask_for_retries_a_class_does_not_list_them() -> None:
    def listed(channel: str) -> set[str]:
        definition = f"""
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gatewayclasses.gateway.networking.k8s.io
  annotations: {{gateway.networking.k8s.io/channel: {channel}}}
"""
        found = Judgement(CLASS + definition, IN_A_CLUSTER).statuses["GatewayClass any"]
        return {item["name"] for item in found["supportedFeatures"]}

    lacking = listed("experimental") - listed("standard")
    assert "HTTPRouteRetry" in lacking
    assert all(name.startswith("HTTPRouteRetry") for name in lacking)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1.6.1", ("True", "SupportedVersion")),
        ("v0.8.0", ("False", "UnsupportedVersion")),
        ("", ("False", "UnsupportedVersion")),
    ],
)
def test_a_class_tells_whether_the_installed_version_is_supported(
    version: str, expected: tuple[str, str]
) -> None:
    definition = f"""
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gatewayclasses.gateway.networking.k8s.io
  annotations: {{gateway.networking.k8s.io/bundle-version: "{version}"}}
"""
    found = Judgement(CLASS + definition).of("GatewayClass any")
    assert found["SupportedVersion"] == expected
    assert found["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize(
    "parameters",
    [
        "{group: example.com, kind: Odd, name: a, namespace: default}",
        "{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: gone, namespace: default}",
        "{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: gone}",
    ],
)
def test_a_class_with_parameters_that_lead_nowhere_is_not_accepted(parameters: str) -> None:
    text = CLASS.replace("spec: {", f"spec: {{parametersRef: {parameters}, ")
    found = Judgement(text + gateway(f"[{HTTP}]"))
    assert found.of("GatewayClass any")["Accepted"] == ("False", "InvalidParameters")
    assert found.of(FRONT)["Accepted"] == ("Unknown", "Pending")


def test_a_gateway_with_parameters_that_lead_nowhere_is_not_accepted() -> None:
    more = (
        "infrastructure: "
        "{parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: gone}}"
    )
    found = Judgement(CLASS + gateway(f"[{HTTP}]", more)).of(FRONT)
    assert found["Accepted"] == ("False", "InvalidParameters")
    assert found["Programmed"][0] == "False"


def test_labels_of_the_infrastructure_leave_a_gateway_accepted() -> None:
    more = "infrastructure: {labels: {a: b}, annotations: {example.com/c: d}}"
    found = Judgement(CLASS + gateway(f"[{HTTP}]", more))
    assert found.of(FRONT)["Accepted"] == ("True", "Accepted")
    assert "have no effect" in found.conditions(FRONT)["Accepted"]["message"]


@pytest.mark.parametrize(
    ("kinds", "supported"),
    [("[{kind: Odd}]", []), ("[{kind: Odd}, {kind: HTTPRoute}]", ["HTTPRoute"])],
)
def test_a_kind_of_route_that_nobody_knows_is_told(kinds: str, supported: list[str]) -> None:
    listener = f"{{name: http, port: 80, protocol: HTTP, allowedRoutes: {{kinds: {kinds}}}}}"
    found = Judgement(CLASS + gateway(f"[{listener}]"))
    assert found.listener(FRONT, "http")["ResolvedRefs"] == ("False", "InvalidRouteKinds")
    kinds_told = [item["kind"] for item in found.entry(FRONT, "http")["supportedKinds"]]
    assert kinds_told == supported


@pytest.mark.parametrize(
    "certificate",
    [
        "{name: gone}",
        "{name: cert, kind: ConfigMap}",
        "{name: cert, group: example.com}",
        "{name: malformed}",
    ],
)
def test_a_certificate_that_is_none_is_told(certificate: str) -> None:
    malformed = (
        "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: malformed}\n"
        "type: kubernetes.io/tls\nstringData: {tls.crt: no, tls.key: no}\n"
    )
    found = Judgement(CLASS + CERTIFICATE + malformed + gateway(f"[{https(certificate)}, {HTTP}]"))
    listener = found.listener(FRONT, "https")
    assert listener["ResolvedRefs"] == ("False", "InvalidCertificateRef")
    assert listener["Programmed"][0] == "False"
    assert found.listener(FRONT, "http") == GOOD


def test_a_protocol_that_is_not_served_is_told_and_costs_no_other_listener() -> None:
    odd = "{name: odd, port: 81, protocol: example.com/Odd}"
    found = Judgement(CLASS + gateway(f"[{odd}]"))
    assert found.of(FRONT)["Accepted"] == ("False", "ListenersNotValid")
    assert found.listener(FRONT, "odd")["Accepted"] == ("False", "UnsupportedProtocol")
    assert found.entry(FRONT, "odd")["supportedKinds"] == []
    found = Judgement(CLASS + gateway(f"[{odd}, {HTTP}]"))
    assert found.of(FRONT)["Accepted"] == ("True", "ListenersNotValid")
    assert found.listener(FRONT, "http") == GOOD
    assert found.listener(FRONT, "odd")["Accepted"] == ("False", "UnsupportedProtocol")


@pytest.mark.parametrize(
    ("grants", "expected"),
    [
        ("", ("False", "RefNotPermitted")),
        (grant("Gateway", "Secret", "other"), ("False", "RefNotPermitted")),
        (grant("HTTPRoute", "Secret"), ("False", "RefNotPermitted")),
        (grant("Gateway", "Service"), ("False", "RefNotPermitted")),
        (grant("Gateway", "Secret", name="another"), ("False", "RefNotPermitted")),
        (grant("Gateway", "Secret"), ("True", "ResolvedRefs")),
        (grant("Gateway", "Secret", name="far-cert"), ("True", "ResolvedRefs")),
    ],
)
def test_a_certificate_of_another_namespace_needs_a_grant(
    grants: str, expected: tuple[str, str]
) -> None:
    listener = https("{name: far-cert, namespace: far}")
    found = Judgement(CLASS + FAR_CERTIFICATE + grants + gateway(f"[{listener}]"))
    assert found.listener(FRONT, "https")["ResolvedRefs"] == expected
    assert found.listener(FRONT, "https")["Programmed"][0] == expected[0]


@pytest.mark.parametrize("port", [80, 8080])
def test_routes_are_counted_on_each_listener(port: int) -> None:
    listeners = f"""[
      {{name: all, port: {port}, protocol: HTTP, allowedRoutes: {{namespaces: {{from: All}}}}}},
      {{name: some, port: {port}, protocol: HTTP, hostname: some.example, allowedRoutes:
        {{namespaces: {{from: Selector, selector: {{matchLabels: {{kind: test}}}}}}}}}},
      {{name: none, port: {port}, protocol: HTTP, hostname: none.example, allowedRoutes:
        {{kinds: [{{kind: GRPCRoute}}]}}}}]"""
    text = (
        CLASS
        + namespace("far", kind="test")
        + gateway(listeners)
        + route("near")
        + route("narrow", "[{name: front, sectionName: all}]")
        + route("away", "[{name: front, namespace: default}]", "far")
    )
    found = Judgement(text)
    counts = {item["name"]: item["attachedRoutes"] for item in found.statuses[FRONT]["listeners"]}
    assert counts == {"all": 3, "some": 1, "none": 0}


def test_what_is_wrong_with_a_listener_keeps_no_route_from_being_attached() -> None:
    odd = "{name: odd, port: 81, protocol: example.com/Odd}"
    found = Judgement(CLASS + gateway(f"[{https('{name: gone}')}, {odd}]") + route())
    assert found.entry(FRONT, "https")["attachedRoutes"] == 1
    assert found.entry(FRONT, "odd")["attachedRoutes"] == 0
    assert found.parent("HTTPRoute default/route")["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("{name: a, port: 80, protocol: HTTP}", "", "HostnameConflict"),
        (
            "{name: a, port: 80, protocol: HTTP, hostname: a.example}",
            "{name: b, port: 80, protocol: HTTP, hostname: a.example}",
            "HostnameConflict",
        ),
        ("{name: a, port: 80, protocol: HTTP}", https("{name: cert}", "b"), "ProtocolConflict"),
        (
            "{name: a, port: 80, protocol: HTTP}",
            "{name: b, port: 80, protocol: TCP}",
            "ProtocolConflict",
        ),
    ],
)
def test_of_two_gateways_at_one_port_the_older_keeps_what_both_want(
    first: str, second: str, reason: str
) -> None:
    other = (second or first).replace("port: 443", "port: 80")
    text = CLASS + CERTIFICATE + gateway(f"[{first}]", name="a") + gateway(f"[{other}]", name="b")
    found = Judgement(text)
    assert found.listener("Gateway default/a", "a") == GOOD
    conflicted = found.statuses["Gateway default/b"]["listeners"][0]["name"]
    listener = found.listener("Gateway default/b", conflicted)
    assert listener["Conflicted"] == ("True", reason)
    assert listener["Accepted"] == ("False", reason)
    assert listener["Programmed"] == ("False", reason)


def test_a_port_of_udp_is_another_one() -> None:
    found = Judgement(CLASS + gateway(f"[{HTTP}, {{name: odd, port: 80, protocol: UDP}}]"))
    listener = found.listener(FRONT, "odd")
    assert listener["Accepted"] == ("False", "UnsupportedProtocol")
    assert listener["Conflicted"][0] == "False"


def test_in_a_cluster_each_gateway_has_its_ports_for_itself() -> None:
    listeners = "[{name: a, port: 80, protocol: HTTP, hostname: a.example}]"
    text = CLASS + gateway(listeners, name="a") + gateway(listeners, name="b")
    found = Judgement(text, IN_A_CLUSTER)
    for name in ("a", "b"):
        assert found.listener(f"Gateway default/{name}", "a") == GOOD
    names = {item.key.name for item in found.translation.snapshot.of_type(snapshot.LISTENER)}
    assert names == {"default/a/a", "default/b/a"}


def test_listeners_whose_hostnames_meet_say_so() -> None:
    listeners = [
        https("{name: cert}", "wide", ', hostname: "*.example"'),
        https("{name: cert}", "narrow", ", hostname: a.example"),
        https("{name: cert}", "apart", ", hostname: a.other"),
    ]
    found = Judgement(CLASS + CERTIFICATE + gateway(f"[{', '.join(listeners)}]"))
    for name in ("wide", "narrow"):
        overlap = found.listener(FRONT, name)["OverlappingTLSConfig"]
        assert overlap == ("True", "OverlappingHostnames")
    assert "OverlappingTLSConfig" not in found.listener(FRONT, "apart")


@pytest.mark.parametrize(
    ("addresses", "accepted", "programmed", "told"),
    [
        ("[{type: Hostname, value: a.example}]", "UnsupportedAddress", "Invalid", []),
        ("[{type: example.com/odd, value: a}]", "UnsupportedAddress", "Invalid", []),
        ("[{value: 192.0.2.1}]", "Accepted", "AddressNotUsable", []),
        ("[{value: 192.0.2.1}, {value: 127.0.0.7}]", "Accepted", "AddressNotUsable", ["127.0.0.7"]),
        ("[{value: 127.0.0.7}]", "Accepted", "Programmed", ["127.0.0.7"]),
        ("[{type: IPAddress}]", "Accepted", "Programmed", ["127.0.0.1"]),
    ],
)
def test_a_gateway_gets_the_addresses_that_it_asks_for_where_they_can_be_had(
    addresses: str, accepted: str, programmed: str, told: list[str]
) -> None:
    found = Judgement(CLASS + gateway(f"[{HTTP}]", f"addresses: {addresses}"))
    conditions = found.of(FRONT)
    assert conditions["Accepted"][1] == accepted
    assert conditions["Programmed"][1] == programmed
    listed = [item["value"] for item in found.statuses[FRONT].get("addresses", [])]
    assert listed == told


@pytest.mark.parametrize(
    ("asked", "had", "programmed"),
    [
        ("{value: 192.0.2.1}", (), "AddressNotUsable"),
        ("{value: 192.0.2.1}", ("192.0.2.9",), "AddressNotUsable"),
        ("{value: 192.0.2.1}", ("192.0.2.1",), "Programmed"),
        ("{type: IPAddress}", (), "AddressNotAssigned"),
        ("{type: IPAddress}", ("192.0.2.9",), "Programmed"),
    ],
)
def test_in_a_cluster_a_gateway_has_the_addresses_that_its_service_has(
    asked: str, had: tuple[str, ...], programmed: str
) -> None:
    front = Ref("gateway.networking.k8s.io", "Gateway", "default", "front")
    text = CLASS + gateway(f"[{HTTP}]", f"addresses: [{asked}]")
    options = replace(IN_A_CLUSTER, advertised_address="")
    found = Judgement(text, options, fleets={front: Fleet(ready=1, addresses=had)})
    assert found.of(FRONT)["Accepted"] == ("True", "Accepted")
    assert found.of(FRONT)["Programmed"][1] == programmed
    assert [item["value"] for item in found.statuses[FRONT].get("addresses", [])] == list(had)


@pytest.mark.parametrize(
    ("words", "accepted", "programmed"),
    [
        (
            "cannot bind '127.0.0.7:80': Cannot assign requested address",
            ("True", "Accepted"),
            ("False", "AddressNotUsable"),
        ),
        (
            "cannot bind '127.0.0.7:80': Address already in use",
            ("False", "PortUnavailable"),
            ("False", "Invalid"),
        ),
        ("Proto constraint validation failed", ("True", "Accepted"), ("False", "Invalid")),
    ],
)
def test_what_envoy_refuses_is_told_on_the_listener(
    words: str, accepted: tuple[str, str], programmed: tuple[str, str]
) -> None:
    refused = {Key(snapshot.LISTENER, "default/front/http"): words}
    other = gateway("[{name: other, port: 81, protocol: HTTP}]", name="other")
    found = Judgement(CLASS + gateway(f"[{HTTP}]") + other, refused=refused)
    listener = found.listener(FRONT, "http")
    assert (listener["Accepted"], listener["Programmed"]) == (accepted, programmed)
    assert found.of(FRONT)["Programmed"] == programmed
    assert found.of("Gateway default/other")["Programmed"] == ("True", "Programmed")


@pytest.mark.parametrize(
    ("ref", "grants", "expected"),
    [
        ("{name: cert}", "", ("True", "ResolvedRefs")),
        ("{name: gone}", "", ("False", "InvalidClientCertificateRef")),
        ("{name: cert, kind: ConfigMap}", "", ("False", "InvalidClientCertificateRef")),
        ("{name: far-cert, namespace: far}", "", ("False", "RefNotPermitted")),
        (
            "{name: far-cert, namespace: far}",
            grant("Gateway", "Secret"),
            ("True", "ResolvedRefs"),
        ),
    ],
)
def test_the_certificate_that_backends_are_shown_must_be_there_and_allowed(
    ref: str, grants: str, expected: tuple[str, str]
) -> None:
    more = f"tls: {{backend: {{clientCertificateRef: {ref}}}}}"
    text = CLASS + CERTIFICATE + FAR_CERTIFICATE + grants + gateway(f"[{HTTP}]", more)
    found = Judgement(text)
    assert found.of(FRONT)["ResolvedRefs"] == expected
    assert found.of(FRONT)["Accepted"] == ("True", "Accepted")
    assert found.listener(FRONT, "http") == GOOD


def trusting(ref: str, mode: str = "AllowValidOnly") -> str:
    validation = f"{{mode: {mode}, caCertificateRefs: [{ref}]}}"
    return f"tls: {{frontend: {{default: {{validation: {validation}}}}}}}"


@pytest.mark.parametrize(
    ("ref", "grants", "reason"),
    [
        ('{group: "", kind: ConfigMap, name: gone}', "", "InvalidCACertificateRef"),
        ("{group: example.com, kind: Odd, name: clients}", "", "InvalidCACertificateKind"),
        ('{group: "", kind: ConfigMap, name: clients, namespace: far}', "", "RefNotPermitted"),
        (
            '{group: "", kind: ConfigMap, name: clients, namespace: far}',
            grant("Gateway", "ConfigMap"),
            "",
        ),
        ('{group: "", kind: ConfigMap, name: clients}', "", ""),
    ],
)
def test_authorities_of_clients_must_be_there_and_concern_https_alone(
    ref: str, grants: str, reason: str
) -> None:
    authorities = AUTHORITY.config_map("clients") + AUTHORITY.config_map("clients", "far")
    listeners = f"[{HTTP}, {https('{name: cert}')}]"
    text = CLASS + CERTIFICATE + authorities + grants + gateway(listeners, trusting(ref))
    found = Judgement(text)
    assert found.listener(FRONT, "http") == GOOD
    if not reason:
        assert found.listener(FRONT, "https") == GOOD
        return
    listener = found.listener(FRONT, "https")
    assert listener["ResolvedRefs"] == ("False", reason)
    assert listener["Accepted"] == ("False", "NoValidCACertificate")
    assert listener["Programmed"][0] == "False"


def test_in_a_cluster_every_class_of_our_controllers_counts() -> None:
    second = CLASS.replace("name: any", "name: second")
    found = Judgement(CLASS + second + gateway(f"[{HTTP}]"), IN_A_CLUSTER)
    assert found.of("GatewayClass any")["Accepted"] == ("True", "Accepted")
    assert found.of("GatewayClass second")["Accepted"] == ("True", "Accepted")
    assert found.of(FRONT)["Accepted"] == ("True", "Accepted")
