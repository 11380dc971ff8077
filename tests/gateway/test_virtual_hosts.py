"""Which virtual host a route ends up in, where listeners share a port."""

from __future__ import annotations

from typing import Any

from pointsman.cli.translate import shown
from pointsman.gateway.translate import translate
from tests.gateway.test_golden import OPTIONS, loaded

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners:
    - {name: all, protocol: HTTP, port: 80}
    - {name: wide, protocol: HTTP, port: 80, hostname: "*.a.example"}
    - {name: narrow, protocol: HTTP, port: 80, hostname: b.a.example}
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: front{section}}}]
  hostnames: [{hosts}]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: c.example}}}}]}}]
"""


def hosts(*routes: tuple[str, str, str]) -> dict[str, list[str]]:
    """The routes of each virtual host, by its domain."""
    text = GATEWAY + "".join(
        ROUTE.format(name=name, section=section and f", sectionName: {section}", hosts=named)
        for name, section, named in routes
    )
    found = translate(loaded(text), OPTIONS).snapshot
    (config,) = shown(found, ("route",))["routes"]
    virtual_hosts: list[dict[str, Any]] = config["virtual_hosts"]
    return {
        item["domains"][0]: [each["name"].split("/")[2] for each in item.get("routes", ())]
        for item in virtual_hosts
    }


def test_a_request_belongs_to_the_narrowest_listener_that_takes_its_host() -> None:
    assert hosts(
        ("all", "all", "'*.a.example', x.a.example, b.a.example, d.example"),
        ("wide", "wide", "x.a.example, b.a.example"),
        ("narrow", "narrow", "b.a.example"),
    ) == {
        "b.a.example": ["narrow"],
        "x.a.example": ["wide"],
        "d.example": ["all"],
        "*.a.example": [],
        "*": [],
    }


def test_a_route_that_meets_several_listeners_is_there_once() -> None:
    found = hosts(("one", "", "x.a.example, b.a.example"))
    assert (found["x.a.example"], found["b.a.example"]) == (["one"], ["one"])
