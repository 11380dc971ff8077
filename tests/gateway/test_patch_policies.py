"""EnvoyPatchPolicies: in which order they apply, and what they may target."""

from __future__ import annotations

import itertools
from typing import Any

from pointsman.gateway.options import Options
from pointsman.gateway.patches.patch_policies import in_order
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import translate
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.resources.parse import parse_object, parse_text
from pointsman.store import Store
from tests.manifests import switched_on

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
OPTIONS = Options(is_alone=True)

SITE = (
    switched_on("enableEnvoyPatchPolicy")
    + """---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: merged}
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
  parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: proxy, namespace: default}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway}
spec:
  gatewayClassName: merged
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: proxy}
spec: {mergeGateways: MERGED}
"""
)


def policy(name: str, kind: str = "Gateway", **more: Any) -> EnvoyPatchPolicy:
    target = "gateway" if kind == "Gateway" else "merged"
    operation = {"op": "add", "path": "/stat_prefix", "value": name}
    meta: dict[str, Any] = {
        key: more.pop(key) for key in ("namespace", "creationTimestamp") if key in more
    }
    data = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyPatchPolicy",
        "metadata": {"name": name, "namespace": "default", **meta},
        "spec": {
            "type": "JSONPatch",
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": kind, "name": target},
            "jsonPatches": [
                {"type": LISTENER, "name": "default/gateway/http", "operation": operation}
            ],
            **more,
        },
    }
    parsed = parse_object(data)
    assert isinstance(parsed.resource, EnvoyPatchPolicy), parsed.problems
    return parsed.resource


def test_policies_apply_by_priority_then_age_then_name_however_they_come() -> None:
    wanted = [
        policy("first", priority=-1, creationTimestamp="2026-03-01T00:00:00Z"),
        policy("old", creationTimestamp="2026-01-01T00:00:00Z"),
        policy("b", namespace="a", creationTimestamp="2026-02-01T00:00:00Z"),
        policy("a", creationTimestamp="2026-02-01T00:00:00Z"),
        policy("last", priority=7, creationTimestamp="2026-01-01T00:00:00Z"),
    ]
    for order in itertools.permutations(wanted):
        assert in_order(order) == wanted


def conditions(merged: bool, item: EnvoyPatchPolicy) -> dict[str, tuple[str, str]]:
    store = Store()
    text = SITE.replace("MERGED", str(merged).lower())
    parsed = parse_text(text, "site.yaml")
    store.apply([each.resource for each in parsed if each.resource is not None])
    store.apply([item])
    found = translate(store, OPTIONS)
    status = statuses(store, found, EnvoyFacts(), OPTIONS)[item.ref]
    told = status["ancestors"][0]["conditions"]
    return {each["type"]: (each["status"], each["reason"]) for each in told}


def test_a_class_is_a_target_where_its_gateways_are_merged() -> None:
    of_class = policy("p", "GatewayClass")
    assert conditions(True, of_class)["Programmed"] == ("True", "Programmed")
    assert conditions(False, of_class) == {"Accepted": ("False", "Invalid")}
    assert conditions(True, policy("p"))["Programmed"] == ("True", "Programmed")
