"""Gateways in a cluster: what is made for them, what they say, and that requests are answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.installation import NAMESPACE, Door, door
from tests.kubernetes.model_servers import model_servers

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: pointsman
  infrastructure:
    labels: {team: serving}
    annotations: {example.com/contact: someone}
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: models}
spec:
  parentRefs: [{name: front}]
  rules:
  - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: models}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata:
  name: models
  annotations: {pointsman.dev/provide-picker: "true"}
spec:
  selector: {matchLabels: {app: models}}
  targetPorts: [{number: 8000}]
---
""" + model_servers("models", "base")


@pytest.fixture(scope="module")
def served(installed: Cluster) -> Iterator[tuple[Cluster, str, Door]]:
    namespace = "served"
    installed.kubectl("create", "namespace", namespace)
    installed.apply(GATEWAY, namespace)
    yield installed, namespace, door(installed, "front", 80, namespace)
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


def conditions(found: list[dict[str, Any]]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in found}


def test_a_request_is_answered_by_a_pod_that_our_picker_chose(
    served: tuple[Cluster, str, Door],
) -> None:
    _, _, front = served
    answer = front.answers("base")
    assert answer.json["model"] == "base"


def test_what_is_made_is_owned_labelled_and_bound_without_privileges(
    served: tuple[Cluster, str, Door],
) -> None:
    cluster, namespace, _ = served
    uid = cluster.get("gateway", "front", namespace)["metadata"]["uid"]
    for kind in ("deployment", "service", "serviceaccount", "configmap", "secret", "pdb"):
        meta = cluster.get(kind, "front-pointsman", namespace)["metadata"]
        assert [owner["uid"] for owner in meta["ownerReferences"]] == [uid], kind
        assert meta["labels"]["gateway.networking.k8s.io/gateway-name"] == "front"
        assert meta["labels"]["team"] == "serving"
        assert meta["annotations"]["example.com/contact"] == "someone"
    pods = cluster.find("pods", namespace, "gateway.networking.k8s.io/gateway-name=front")
    for pod in pods:
        assert pod["metadata"]["labels"]["team"] == "serving"
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True


def test_all_pods_are_such_as_a_restricted_namespace_lets_run(
    served: tuple[Cluster, str, Door],
) -> None:
    """The API server judges: it warns of each pod that would not have been let in."""
    cluster, namespace, _ = served
    label = "pod-security.kubernetes.io/enforce=restricted"
    warned = cluster.warnings("label", "namespace", namespace, label, "--dry-run=server")
    assert "models-" in warned  # the model servers of this test ask for nothing
    assert "front-pointsman" not in warned
    assert "models-picker" not in warned


def test_conditions_say_what_is_so(served: tuple[Cluster, str, Door]) -> None:
    cluster, namespace, front = served
    front.answers("base")
    of_class = cluster.get("gatewayclass", "pointsman")
    assert conditions(of_class["status"]["conditions"])["Accepted"] == "True"
    gateway = cluster.get("gateway", "front", namespace)
    assert conditions(gateway["status"]["conditions"]) == {"Accepted": "True", "Programmed": "True"}
    (listener,) = gateway["status"]["listeners"]
    assert listener["attachedRoutes"] == 1
    (parent,) = cluster.get("httproute", "models", namespace)["status"]["parents"]
    assert parent["controllerName"] == "pointsman.dev/gateway-controller"
    assert conditions(parent["conditions"]) == {"Accepted": "True", "ResolvedRefs": "True"}
    (parent,) = cluster.get("inferencepool.inference.networking.k8s.io", "models", namespace)[
        "status"
    ]["parents"]
    assert conditions(parent["conditions"]) == {"Accepted": "True", "ResolvedRefs": "True"}


def test_inside_its_pod_the_controller_tells_what_envoy_took(
    served: tuple[Cluster, str, Door],
) -> None:
    cluster, namespace, front = served
    front.answers("base")
    pods = cluster.find("pods", NAMESPACE, "app.kubernetes.io/component=controller")
    told = [
        cluster.exec(pod["metadata"]["name"], "pointsman", "status", namespace=NAMESPACE)
        for pod in pods
    ]
    assert all(f"{namespace}/front" in text for text in told)
    # The Envoy is connected to one of the replicas.
    assert any("ACKED" in text for text in told)
    listed = cluster.exec(
        *(pods[0]["metadata"]["name"], "pointsman", "get", "gateways", "-n", namespace),
        namespace=NAMESPACE,
    )
    assert "front" in listed
