"""GRPCRoute: what is taken and what is refused, and where."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman.resources import kinds
from pointsman.resources.gateway_api import GRPCRoute

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: calls}}
spec:
  rules:
    - {rule}
"""


def test_the_kind_goes_by_its_names() -> None:
    assert kinds.by_name("grpcroutes") == (GRPCRoute,)


@pytest.mark.parametrize(
    "rule",
    [
        "{}",
        "matches: [{method: {service: a.b_C.D, method: Get}}]",
        "matches: [{method: {type: RegularExpression, service: 'a+'}}]",
        "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}}}]",
    ],
)
def test_a_valid_rule_has_no_problems(rule: str, problems_of: Callable[[str], list[str]]) -> None:
    assert problems_of(ROUTE.format(rule=rule)) == []


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ("matches: [{method: {}}]", "matches[0].method"),
        ("matches: [{method: {service: 'a b'}}]", "matches[0].method.service"),
        ("matches: [{method: {method: a.b}}]", "matches[0].method.method"),
        ("filters: [{type: URLRewrite}]", "filters[0].type"),
        ("filters: [{type: RequestMirror}]", "filters[0].requestMirror"),
        ("backendRefs: [{name: a}]", "backendRefs[0].port"),
    ],
)
def test_a_broken_rule_is_told_with_its_place(
    rule: str, where: str, problems_of: Callable[[str], list[str]]
) -> None:
    problems = problems_of(ROUTE.format(rule=rule))
    assert any(f"spec.rules[0].{where}" in item for item in problems), problems
