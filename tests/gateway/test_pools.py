"""Pools where the gateway has no picker of its own: each must bring one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pointsman.cli.translate import TYPES, shown
from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import translate
from pointsman.resources.base import Ref
from tests.gateway.test_golden import loaded

OPTIONS = Options(bind_address="127.0.0.1", advertised_address="127.0.0.1")

OBJECTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate}
spec:
  gatewayClassName: ours
  listeners: [{name: http, protocol: HTTP, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: way}
spec:
  parentRefs: [{name: gate}]
  rules: [{backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec:
  selector: {matchLabels: {app: pool}}
  targetPorts: [{number: 8000}]
  REFERENCE
---
apiVersion: v1
kind: Service
metadata: {name: epp}
spec: {selector: {app: epp}, ports: [{port: 9002}]}
"""

ACCEPTED = ("True", "Accepted")
GOOD = {"Accepted": ACCEPTED, "ResolvedRefs": ("True", "ResolvedRefs")}


def outcome(reference: str, options: Options = OPTIONS) -> tuple[dict[str, tuple[str, str]], bool]:
    """The pool's conditions by type, and whether requests go on without a pick."""
    store = loaded(OBJECTS.replace("REFERENCE", reference))
    found = translate(store, options)
    told = statuses(store, found, EnvoyFacts(), options)
    ref = Ref("inference.networking.k8s.io", "InferencePool", "default", "pool")
    (entry,) = told[ref]["parents"]
    (cluster,) = (
        item
        for item in shown(found.snapshot, tuple(TYPES))["clusters"]
        if item["name"] == "inferencepool/default/pool"
    )
    (policy,) = cluster["load_balancing_policy"]["policies"]
    value: Any = policy["typed_extension_config"]["typed_config"]["value"]
    (fallback,) = value["fallback_policy"]["policies"]
    conditions = {item["type"]: (item["status"], item["reason"]) for item in entry["conditions"]}
    return conditions, "least_request" in fallback["typed_extension_config"]["name"]


@pytest.mark.parametrize(
    ("reference", "conditions", "goes_on"),
    [
        ("endpointPickerRef: {name: epp, port: {number: 9002}}", GOOD, False),
        ("endpointPickerRef: {name: epp, port: {number: 9002}, failureMode: FailOpen}", GOOD, True),
        (
            "endpointPickerRef: {name: gone, port: {number: 9002}}",
            {"Accepted": ACCEPTED, "ResolvedRefs": ("False", "InvalidExtensionRef")},
            False,
        ),
        (
            "endpointPickerRef: {name: gone, port: {number: 9002}, failureMode: FailOpen}",
            {"Accepted": ACCEPTED, "ResolvedRefs": ("False", "InvalidExtensionRef")},
            True,
        ),
        (
            "",
            {
                "Accepted": ("False", "EndpointPickerRefMissing"),
                "ResolvedRefs": ("True", "ResolvedRefs"),
            },
            False,
        ),
    ],
    ids=["closed", "open", "gone", "gone and open", "none"],
)
def test_a_pool_is_told_who_picks_for_it(
    reference: str, conditions: dict[str, tuple[str, str]], goes_on: bool
) -> None:
    assert outcome(reference) == (conditions, goes_on)


@pytest.mark.parametrize(
    ("name", "port", "resolved"),
    [
        ("gone", 9002, ("True", "ResolvedRefs")),
        ("epp", 9009, ("False", "InvalidExtensionRef")),
    ],
    ids=["no Service", "no such port"],
)
def test_our_picker_stands_in_for_a_service_that_is_not_there_and_for_no_other(
    name: str, port: int, resolved: tuple[str, str]
) -> None:
    options = replace(OPTIONS, own_picker_socket="/run/picker.sock")
    reference = f"endpointPickerRef: {{name: {name}, port: {{number: {port}}}}}"
    conditions, _ = outcome(reference, options)
    assert conditions["ResolvedRefs"] == resolved
