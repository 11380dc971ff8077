"""Names of generated resources do not move when a rule is inserted, unless a patch counts."""

from __future__ import annotations

from pointsman.gateway.snapshot import CLUSTER
from pointsman.gateway.translate import translate
from tests.gateway.test_golden import OPTIONS, loaded
from tests.manifests import switched_on

COMMON = (
    """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners: [{name: all, protocol: HTTP, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: first}
spec: {selector: {app: first}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: second}
spec: {selector: {app: second}, ports: [{port: 80}]}
---
"""
    + switched_on("enableEnvoyPatchPolicy")
    + """---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: front}]
  rules:
"""
)
FIRST = "    - {matches: [{path: {value: /a}}], backendRefs: [{name: first, port: 80}]}\n"
SECOND = "    - {matches: [{path: {value: /b}}], backendRefs: [{name: second, port: 80}]}\n"
NAMED = "    - {name: chat, backendRefs: [{name: second, port: 80}]}\n"
WEIGHTED = """\
    - backendRefs:
        - {name: %s, port: 80}
        - name: %s
          port: 80
          filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}]
"""
PATCH = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {name: patch}
spec:
  type: JSONPatch
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: front}
  jsonPatches:
    - type: type.googleapis.com/envoy.config.cluster.v3.Cluster
      name: httproute/default/r/rule/1
      operation: {op: add, path: /connect_timeout, value: 3s}
"""


def clusters(*parts: str) -> list[str]:
    """The names of the clusters, without what they have in common."""
    found = translate(loaded(COMMON + "".join(parts)), OPTIONS).snapshot
    return [name.removeprefix("httproute/default/r/") for name in found.names(CLUSTER)]


def test_a_rule_that_is_inserted_renames_nothing() -> None:
    (alone,) = clusters(SECOND)
    assert clusters(FIRST, SECOND)[1] == alone
    assert clusters(SECOND, FIRST)[0] == alone


def test_a_rule_that_has_a_name_is_called_by_it() -> None:
    assert clusters(FIRST, NAMED)[1] == "rule/chat"


def test_a_backend_that_is_inserted_renames_nothing() -> None:
    assert (
        clusters(WEIGHTED % ("first", "second")) == clusters(WEIGHTED % ("second", "first"))[::-1]
    )


def test_rules_that_are_alike_are_told_apart() -> None:
    one, two = clusters(FIRST, FIRST)
    assert two == f"{one}~2"


def test_where_a_patch_counts_the_rules_are_counted() -> None:
    assert clusters(FIRST, SECOND, PATCH) == ["rule/0", "rule/1"]
    assert clusters(NAMED, SECOND, PATCH) == ["rule/0", "rule/1"]
