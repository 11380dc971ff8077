"""In a cluster the Envoys of a Gateway get what that Gateway needs, and nothing else."""

from __future__ import annotations

import pytest

from pointsman.certificates import self_signed
from pointsman.gateway import snapshot
from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import Snapshot
from pointsman.gateway.translate import Translation, translate
from tests.gateway.test_golden import loaded
from tests.manifests import switched_on

CONTROLLER = "example.com/ours"
IN_A_CLUSTER = Options(controllers=frozenset({CONTROLLER}))


def pem(text: bytes) -> str:
    return "\n".join(f"    {line}" for line in text.decode().splitlines())


def manifests(name: str) -> str:
    """A namespace with a Gateway that has a certificate, a route, a pool and its picker."""
    certificate, key = self_signed(f"{name}.example")
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: front, namespace: {name}}}
spec:
  gatewayClassName: ours
  listeners:
  - {{name: http, port: 80, protocol: HTTP}}
  - name: https
    port: 443
    protocol: HTTPS
    tls: {{certificateRefs: [{{name: cert}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: cert, namespace: {name}}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{pem(certificate)}
  tls.key: |
{pem(key)}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: models, namespace: {name}}}
spec:
  parentRefs: [{{name: front}}]
  rules:
  - backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: pool}}]
  - matches: [{{path: {{value: /plain}}}}]
    backendRefs: [{{name: web, port: 80}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: pool, namespace: {name}}}
spec:
  selector: {{matchLabels: {{app: x}}}}
  targetPorts: [{{number: 8000}}]
  endpointPickerRef: {{name: web, port: {{number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {name}}}
spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
---
"""


CLASS = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: ours}}
spec: {{controllerName: {CONTROLLER}}}
---
"""
TYPES = (snapshot.LISTENER, snapshot.ROUTE_CONFIGURATION, snapshot.CLUSTER, snapshot.SECRET)


@pytest.fixture(scope="module")
def both() -> Translation:
    return translate(loaded(CLASS + manifests("red") + manifests("blue")), IN_A_CLUSTER)


def names(found: Snapshot) -> set[str]:
    return {name for kind in TYPES for name in found.names(kind)}


def test_each_fleet_is_served_by_its_name(both: Translation) -> None:
    assert set(both.fleets) == {"red/front", "blue/front"}


@pytest.mark.parametrize("name", ["red", "blue"])
def test_a_fleet_has_all_that_its_gateway_needs(both: Translation, name: str) -> None:
    found = both.fleets[f"{name}/front"]
    assert set(found.names(snapshot.LISTENER)) == {f"{name}/front/http", f"{name}/front/https"}
    assert set(found.names(snapshot.SECRET)) == {f"{name}/cert"}
    clusters = set(found.names(snapshot.CLUSTER))
    assert {f"inferencepool/{name}/pool", f"inferencepool/{name}/pool/picker"} < clusters
    assert set(found.names(snapshot.ENDPOINTS)) == clusters
    assert len(found.names(snapshot.ROUTE_CONFIGURATION)) == 2


def test_no_fleet_has_anything_of_another(both: Translation) -> None:
    red, blue = (names(both.fleets[f"{name}/front"]) for name in ("red", "blue"))
    assert not red & blue
    assert all("blue" not in name for name in red)


def test_the_same_port_of_two_gateways_is_no_conflict(both: Translation) -> None:
    assert all(item.is_served for item in both.listeners)


def test_a_patch_changes_the_gateway_that_it_targets_and_no_other() -> None:
    """Even where it names a resource of another's."""
    patch = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {name: reach-out, namespace: red}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: front}
  type: JSONPatch
  jsonPatches:
  - type: type.googleapis.com/envoy.config.listener.v3.Listener
    name: blue/front/http
    operation: {op: add, path: /per_connection_buffer_limit_bytes, value: 7}
  - type: type.googleapis.com/envoy.config.listener.v3.Listener
    name: red/front/http
    operation: {op: add, path: /per_connection_buffer_limit_bytes, value: 7}
---
"""
    text = CLASS + manifests("red") + manifests("blue")
    store = loaded(text + patch + switched_on("enableEnvoyPatchPolicy"))
    plain = translate(loaded(text), IN_A_CLUSTER)
    found = translate(store, IN_A_CLUSTER)

    def listener(translation: Translation, name: str) -> int:
        served = translation.fleets[f"{name}/front"].names(snapshot.LISTENER)
        message = served[f"{name}/front/http"].message
        return int(getattr(message, "per_connection_buffer_limit_bytes").value)  # noqa: B009

    assert listener(found, "red") == 7
    assert listener(found, "blue") == listener(plain, "blue") != 7
    (outcome,) = found.patches
    assert outcome.missing == (f"{snapshot.LISTENER}/blue/front/http",)


def test_a_gateway_that_is_not_accepted_now_leaves_its_envoys_what_they_have() -> None:
    """Nothing is not the same as to be told that there is nothing."""
    reference = "{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: gone}"
    broken = manifests("red").replace(
        "  gatewayClassName: ours\n",
        f"  gatewayClassName: ours\n  infrastructure: {{parametersRef: {reference}}}\n",
    )
    found = translate(loaded(CLASS + broken + manifests("blue")), IN_A_CLUSTER)
    assert set(found.fleets) == {"blue/front"}


def test_a_fleet_stays_the_same_object_by_object_while_another_changes() -> None:
    store = loaded(CLASS + manifests("red") + manifests("blue"))
    before = translate(store, IN_A_CLUSTER)
    change = loaded(manifests("blue").replace("value: /plain", "value: /other"))
    store.apply(item for item in change if item.ref.kind == "HTTPRoute")
    after = translate(store, IN_A_CLUSTER, before)
    first, second = (item.fleets["red/front"] for item in (before, after))
    assert {item.key: item.version for item in first} == {item.key: item.version for item in second}
    assert {id(item) for item in first} == {id(item) for item in second}
