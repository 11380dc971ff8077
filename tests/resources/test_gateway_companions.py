"""ListenerSets and BackendTLSPolicies: what is good, and what breaks a rule where."""

from __future__ import annotations

from typing import Any

import pytest

from tests.resources.test_rules import GATEWAY_API, breaks, found

LISTENER = {"name": "a", "port": 80, "protocol": "HTTP"}
SERVICE = {"group": "", "kind": "Service", "name": "web"}
CONFIG_MAP = {"group": "", "kind": "ConfigMap", "name": "ca"}


def tls(**changes: Any) -> dict[str, Any]:
    return {"caCertificateRefs": [CONFIG_MAP], "hostname": "a.example", **changes}


def policy(*targets: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"targetRefs": list(targets or [SERVICE]), "validation": tls(**changes)}


def test_a_good_set_of_listeners() -> None:
    spec = {"parentRef": {"name": "front"}, "listeners": [LISTENER]}
    assert found(GATEWAY_API, "ListenerSet", spec) == set()


@pytest.mark.parametrize(
    ("listeners", "field", "message"),
    [
        ([], "listeners", "at least 1"),
        ([LISTENER, LISTENER], "listeners[1]", "must be unique"),
        ([{**LISTENER, "tls": {"mode": "Passthrough"}}], "listeners[0].tls", "protocol is HTTP"),
    ],
)
def test_what_breaks_a_set_of_listeners(listeners: list[Any], field: str, message: str) -> None:
    spec = {"parentRef": {"name": "front"}, "listeners": listeners}
    assert breaks(GATEWAY_API, "ListenerSet", spec, field, message)


@pytest.mark.parametrize(
    "spec",
    [
        policy(),
        policy(caCertificateRefs=[], wellKnownCACertificates="System"),
        policy({**SERVICE, "sectionName": "a"}, {**SERVICE, "sectionName": "b"}),
        policy(subjectAltNames=[{"type": "Hostname", "hostname": "*.a.example"}]),
        policy(subjectAltNames=[{"type": "URI", "uri": "spiffe://a.example/b"}]),
    ],
)
def test_good_policies(spec: dict[str, Any]) -> None:
    assert found(GATEWAY_API, "BackendTLSPolicy", spec) == set()


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (policy(caCertificateRefs=[]), "validation.caCertificateRefs", "is required"),
        (
            policy(wellKnownCACertificates="System"),
            "validation.wellKnownCACertificates",
            "must not be set",
        ),
        (policy(wellKnownCACertificates="Mine"), "validation.wellKnownCACertificates", ""),
        (policy(SERVICE, SERVICE), "targetRefs[1].sectionName", "is required"),
        (
            policy({**SERVICE, "sectionName": "a"}, {**SERVICE, "sectionName": "a"}),
            "targetRefs[1].sectionName",
            "must be unique",
        ),
        (
            policy(subjectAltNames=[{"type": "URI", "hostname": "a.example"}]),
            "validation.subjectAltNames[0].uri",
            "is required",
        ),
    ],
)
def test_what_breaks_a_policy(spec: dict[str, Any], field: str, message: str) -> None:
    assert breaks(GATEWAY_API, "BackendTLSPolicy", spec, field, message)
