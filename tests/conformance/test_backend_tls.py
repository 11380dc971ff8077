"""What a BackendTLSPolicy is for, and what it makes of the clusters behind routes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pointsman.gateway import snapshot
from pointsman.gateway.patches import typed_json
from tests.conformance.judgement import AUTHORITY, CLASS, Judgement, gateway
from tests.conformance.sites import by_type
from tests.gateway.test_golden import OPTIONS
from tests.manifests import switched_on

SERVICE = '{group: "", kind: Service, name: web}'
BACKEND = "{group: gateway.envoyproxy.io, kind: Backend, name: far}"
POOL = "{group: inference.networking.k8s.io, kind: InferencePool, name: llm}"
PICKER = '{group: "", kind: Service, name: picker}'
AUTHORITIES = 'caCertificateRefs: [{group: "", kind: ConfigMap, name: ca}]'
SYSTEM = "wellKnownCACertificates: System"
NAME = "BackendTLSPolicy default/tls"

OBJECTS = (
    CLASS
    + gateway("[{name: http, port: 80, protocol: HTTP}]")
    + AUTHORITY.config_map("ca")
    + """
---
"""
    + switched_on("enableBackend")
    + """---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: one, port: 80}, {name: two, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: picker}
spec: {selector: {app: picker}, ports: [{port: 9002}]}
---
apiVersion: v1
kind: Service
metadata: {name: idle}
spec: {selector: {app: idle}, ports: [{port: 80}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: far}
spec: {endpoints: [{fqdn: {hostname: far.example, port: 443}}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llm}
spec:
  selector: {matchLabels: {app: llm}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: front}]
  rules:
    - {matches: [{path: {value: /one}}], backendRefs: [{name: web, port: 80}]}
    - {matches: [{path: {value: /two}}], backendRefs: [{name: web, port: 81}]}
    - matches: [{path: {value: /far}}]
      backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: far}]
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}]
    - matches: [{path: {value: /llm}}]
      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llm}]
"""
)


def policy(target: str, trust: str = AUTHORITIES, more: str = "") -> str:
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: tls}}
spec:
  targetRefs: [{target}]
  validation: {{hostname: a.example, {trust}}}
  {more}
"""


def contexts(found: Judgement) -> dict[str, dict[str, Any]]:
    """The TLS of each cluster that checks whom it speaks to, by what the cluster is of."""
    result = {}
    for item in found.translation.snapshot.of_type(snapshot.CLUSTER):
        cluster = typed_json.to_dict(item.message)
        context = cluster.get("transport_socket", {}).get("typed_config", {})
        if context.get("sni"):
            result[cluster["name"]] = context
    return result


@pytest.mark.parametrize(
    ("target", "clusters"),
    [
        (SERVICE, 3),
        (SERVICE.replace("}", ", sectionName: two}"), 1),
        (BACKEND, 1),
        (POOL, 1),
        (PICKER, 1),
    ],
)
def test_a_policy_is_for_every_cluster_of_its_target(target: str, clusters: int) -> None:
    found = Judgement(OBJECTS + policy(target))
    assert found.ancestor(NAME)["Accepted"] == ("True", "Accepted")
    assert found.statuses[NAME]["ancestors"][0]["ancestorRef"]["kind"] == "Gateway"
    assert len(contexts(found)) == clusters
    for context in contexts(found).values():
        names = context["common_tls_context"]["validation_context"]
        assert names["match_typed_subject_alt_names"] == [
            {"san_type": "DNS", "matcher": {"exact": "a.example"}}
        ]


@pytest.mark.parametrize(
    "target",
    [
        SERVICE.replace("web", "gone"),
        SERVICE.replace("}", ", sectionName: three}"),
        BACKEND.replace("}", ", sectionName: one}"),
        "{group: example.com, kind: Odd, name: web}",
    ],
)
def test_a_policy_for_what_is_not_there_says_so_and_changes_nothing(target: str) -> None:
    found = Judgement(OBJECTS + policy(target))
    assert found.ancestor(NAME)["Accepted"] == ("False", "TargetNotFound")
    assert contexts(found) == {}


def test_a_policy_that_no_route_leads_to_is_told_for_its_target() -> None:
    found = Judgement(OBJECTS + policy(SERVICE.replace("web", "idle")))
    assert found.statuses[NAME]["ancestors"][0]["ancestorRef"]["kind"] == "Service"
    assert found.ancestor(NAME)["Accepted"] == ("True", "Accepted")


@pytest.mark.parametrize(
    ("trust", "path", "expected"),
    [
        (SYSTEM, "/etc/authorities.pem", ("True", "Accepted")),
        (SYSTEM, "", ("False", "Invalid")),
        (
            "wellKnownCACertificates: example.com/mine",
            "/etc/authorities.pem",
            ("False", "Invalid"),
        ),
    ],
)
def test_the_well_known_authorities_are_those_of_the_machine(
    trust: str, path: str, expected: tuple[str, str]
) -> None:
    options = replace(OPTIONS, authorities_path=path)
    found = Judgement(OBJECTS + policy(SERVICE, trust), options)
    assert found.ancestor(NAME)["Accepted"] == expected
    trusted = [
        context["common_tls_context"]["validation_context"]["trusted_ca"]
        for context in contexts(found).values()
    ]
    assert trusted == [{"filename": path}] * 3 * (expected[0] == "True")


def test_one_good_authority_is_enough_and_the_other_is_told() -> None:
    trust = AUTHORITIES.replace("]", ', {group: "", kind: ConfigMap, name: gone}]')
    found = Judgement(OBJECTS + policy(SERVICE, trust)).ancestor(NAME)
    assert found["Accepted"] == ("True", "Accepted")
    assert found["ResolvedRefs"] == ("False", "InvalidCACertificateRef")


def test_a_policy_that_an_older_one_robs_of_a_target_says_so() -> None:
    older = policy(SERVICE).replace("name: tls", "name: a-first")
    found = Judgement(OBJECTS + older + policy(f"{SERVICE}, {BACKEND}"))
    accepted = by_type(found.statuses[NAME]["ancestors"][0]["conditions"])["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("True", "Accepted")
    assert "Service default/web" in accepted["message"]
    assert len(contexts(found)) == 4


def test_options_have_no_effect_and_say_so() -> None:
    found = Judgement(OBJECTS + policy(SERVICE, more="options: {example.com/a: b}"))
    assert found.ancestor(NAME)["Warning"] == ("True", "UnsupportedField")
