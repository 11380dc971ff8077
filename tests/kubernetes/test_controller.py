"""What the controller writes to a real API server, and what it leaves alone."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from tests.e2e.instances import eventually
from tests.kubernetes import binaries
from tests.kubernetes.cluster import SHARED_CRDS, Cluster
from tests.kubernetes.conftest import absent
from tests.kubernetes.controllers import Controller, controlling
from tests.kubernetes.faulty import running_faulty, status, times

OTHER = "example.com/another"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


@dataclass(frozen=True)
class Scene:
    """A controller, its class, and a namespace for what it serves."""

    cluster: Cluster
    controller: Controller
    name: str
    """Of the class and the controller's own namespace."""
    controller_name: str
    namespace: str

    def apply(self, text: str) -> None:
        self.cluster.apply(text.replace("CLASS", self.name), self.namespace)

    def status(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.cluster.get(kind, name, self.namespace).get("status", {})
        return found

    def conditions(self, kind: str, name: str) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition of a Gateway, or of our entry of a route."""
        found = self.status(kind, name)
        entries = found.get("parents") or found.get("ancestors")
        if entries is not None:
            ours = [item for item in entries if item["controllerName"] == self.controller_name]
            found = ours[0] if ours else {}
        return {
            item["type"]: (item["status"], item["reason"]) for item in found.get("conditions", ())
        }

    def accepts(self, kind: str, name: str) -> None:
        eventually(lambda: self.conditions(kind, name).get("Accepted", ("",))[0] == "True", 30)

    def made(self, kind: str) -> dict[str, Any]:
        return self.cluster.get(kind, f"front-{self.name}", self.namespace)

    def has_made(self, kind: str) -> bool:
        names = [item["metadata"]["name"] for item in self.cluster.find(kind, self.namespace)]
        return f"front-{self.name}" in names


@contextmanager
def a_scene(
    cluster: Cluster, folder: Path, *arguments: str, kubeconfig: Path | None = None
) -> Iterator[Scene]:
    name = f"pm-{secrets.token_hex(3)}"
    controller_name = f"example.com/{name}"
    for namespace in (name, f"{name}-apps"):
        cluster.kubectl("create", "namespace", namespace)
    cluster.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n"
        f"metadata: {{name: {name}}}\nspec: {{controllerName: {controller_name}}}\n"
    )
    with controlling(
        kubeconfig or cluster.kubeconfig, folder, name, *arguments, controllers=[controller_name]
    ) as controller:
        yield Scene(cluster, controller, name, controller_name, f"{name}-apps")
    for namespace in (name, f"{name}-apps"):
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    cluster.kubectl("delete", "gatewayclass", name, "--wait=false")


@pytest.fixture(scope="module")
def scene(
    control_plane: Cluster, crds: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with a_scene(control_plane, tmp_path_factory.mktemp("controller")) as found:
        found.apply(GATEWAY)
        found.accepts("gateway", "front")
        eventually(lambda: found.has_made("deployment"), 20)
        yield found


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: CLASS
  listeners: [{name: http, port: 8080, protocol: HTTP}]
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME}
spec:
  parentRefs: [PARENTS]
  rules: [{filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example}}]}]
"""


def route(name: str, *gateways: str) -> str:
    parents = ", ".join(f"{{name: {item}}}" for item in gateways)
    return ROUTE.replace("NAME", name).replace("PARENTS", parents)


def entry_of_another(scene: Scene, kind: str, name: str, key: str, ref: str) -> dict[str, Any]:
    """Another controller says something about an object, beside us."""
    condition = {
        "type": "Accepted",
        "status": "False",
        "reason": "NotMine",
        "message": "of another",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    entry = {
        f"{ref}Ref": {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "name": "theirs",
            "namespace": scene.namespace,
        },
        "controllerName": OTHER,
        "conditions": [condition],
    }
    known = scene.status(kind, name).get(key, [])
    patch = {"status": {key: [entry, *known]}}
    import json

    scene.cluster.kubectl(
        *("patch", kind, name, "-n", scene.namespace, "--subresource=status", "--type=merge"),
        *("-p", json.dumps(patch)),
    )
    return entry


def of_others(scene: Scene, kind: str, name: str, key: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = scene.status(kind, name).get(key, [])
    return [item for item in entries if item.get("controllerName") == OTHER]


def test_what_other_controllers_say_of_a_route_stays(scene: Scene) -> None:
    scene.apply(route("shared", "front", "theirs"))
    scene.accepts("httproute", "shared")
    entry = entry_of_another(scene, "httproute", "shared", "parents", "parent")
    # Ours changes, and goes with the reference; theirs is as it was.
    scene.apply(route("shared", "front", "theirs").replace("a.example", "b.example"))
    scene.apply(route("shared", "theirs"))
    eventually(lambda: not scene.conditions("httproute", "shared"), 20)
    assert of_others(scene, "httproute", "shared", "parents") == [entry]


def test_what_other_controllers_say_of_a_policy_stays(scene: Scene) -> None:
    scene.apply(
        """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: both}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]
  timeout: {http: {requestReceivedTimeout: 5s}}
"""
    )
    scene.accepts("clienttrafficpolicy", "both")
    entry = entry_of_another(scene, "clienttrafficpolicy", "both", "ancestors", "ancestor")
    scene.cluster.kubectl("annotate", "gateway/front", "a=b", "-n", scene.namespace)
    scene.cluster.kubectl(
        "delete", "clienttrafficpolicy", "both", "-n", scene.namespace, "--dry-run=server"
    )
    assert of_others(scene, "clienttrafficpolicy", "both", "ancestors") == [entry]
    assert scene.conditions("clienttrafficpolicy", "both")["Accepted"][0] == "True"


def test_a_policy_of_another_controllers_gateway_is_not_spoken_of(scene: Scene) -> None:
    scene.apply(
        """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: foreign}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: theirs}]}
"""
    )
    scene.apply(route("after-foreign", "front"))
    scene.accepts("httproute", "after-foreign")
    assert scene.status("clienttrafficpolicy", "foreign") == {}


def test_conflicts_throttling_and_errors_lose_nothing(
    control_plane: Cluster, crds: None, tmp_path: Path
) -> None:
    """Statuses are right in the end, and what another controller wrote meanwhile is still there."""

    def writes_status(request: web.Request) -> bool:
        return request.method == "PATCH" and request.path.endswith("/status")

    def throttled() -> web.Response:
        answer = status(429, "TooManyRequests")
        answer.headers["retry-after"] = "1"
        return answer

    with running_faulty(control_plane.kubeconfig) as server:
        server.faults = [
            times(4, writes_status, lambda: status(409, "Conflict")),
            times(2, writes_status, throttled),
            times(2, writes_status, lambda: status(500, "InternalError")),
            times(2, lambda request: request.method == "PATCH", lambda: status(503, "Unavailable")),
        ]
        kubeconfig = server.kubeconfig(tmp_path)
        with a_scene(control_plane, tmp_path, kubeconfig=kubeconfig) as scene:
            scene.apply(GATEWAY)
            for number in range(10):
                scene.apply(route(f"route-{number}", "front"))
            for number in range(10):
                scene.accepts("httproute", f"route-{number}")
            eventually(lambda: scene.has_made("deployment"), 30)
            assert scene.controller.metric("pointsman_controller_status_conflicts_total") >= 4
            entry = entry_of_another(scene, "httproute", "route-1", "parents", "parent")
            server.faults = [times(3, writes_status, lambda: status(409, "Conflict"))]
            scene.apply(route("route-1", "front", "absent"))
            scene.apply(route("route-1", "absent"))
            eventually(lambda: not scene.conditions("httproute", "route-1"), 30)
            assert of_others(scene, "httproute", "route-1", "parents") == [entry]

            # When all is said nothing is written any more.
            def quiet() -> bool:
                before = len(server.seen)
                eventually(lambda: len(server.seen) == before or len(server.seen) > before + 3, 5)
                return not any(method in ("PATCH", "POST") for method, path in server.seen[before:])

            eventually(quiet, 20)


def test_only_the_leader_writes_and_another_follows_when_it_is_killed(
    control_plane: Cluster, crds: None, tmp_path: Path
) -> None:
    with a_scene(control_plane, tmp_path) as scene:
        eventually(lambda: scene.controller.metric("pointsman_controller_leader") == 1, 20)
        names = [scene.controller_name]
        kubeconfig = control_plane.kubeconfig
        with controlling(
            kubeconfig, tmp_path, scene.name, controllers=names, name="second"
        ) as second:
            scene.apply(GATEWAY)
            scene.accepts("gateway", "front")
            assert second.metric("pointsman_controller_leader") == 0
            assert second.metric("pointsman_controller_status_writes_total") == 0
            assert second.metric("pointsman_controller_applied_objects_total") == 0
            scene.controller.kill()
            eventually(lambda: second.metric("pointsman_controller_leader") == 1, 40)
            scene.apply(route("late", "front"))
            scene.accepts("httproute", "late")
            assert second.metric("pointsman_controller_status_writes_total") > 0


PARAMETERS = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: settings}
spec:
  provider:
    type: Kubernetes
    kubernetes:
      envoyDeployment:
        replicas: 3
        pod:
          nodeSelector: {disk: fast}
          tolerations: [{key: gateways, operator: Exists}]
          annotations: {a: b}
        container:
          resources: {requests: {cpu: "2"}, limits: {memory: 1Gi}}
          image: registry.example/mirror/pointsman:1
        patch:
          type: StrategicMerge
          value:
            spec:
              template:
                spec:
                  containers: [{name: envoy, env: [{name: EXTRA, value: "1"}]}]
                  hostAliases: [{ip: 10.0.0.1, hostnames: [a.example]}]
      envoyService: {type: ClusterIP, annotations: {s: t}}
      envoyPDB: {minAvailable: 2}
  concurrency: 2
  logging: {level: {default: info, http: debug}}
  shutdown: {drainTimeout: 90s, minDrainDuration: 5s}
"""
WITH_PARAMETERS = GATEWAY.replace(
    "  listeners",
    "  infrastructure:\n    parametersRef:\n"
    "      {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: settings}\n  listeners",
)


POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: models}
spec:
  selector: {matchLabels: {app: models}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: models}
spec:
  parentRefs: [{name: front}]
  rules:
  - matches: [{path: {value: /models}}]
    backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: models}]
"""


def test_a_controller_that_begins_anew_writes_nothing_that_is_written(
    control_plane: Cluster, crds: None, tmp_path: Path
) -> None:
    with a_scene(control_plane, tmp_path) as scene:

        def attached(count: int) -> bool:
            listeners = scene.status("gateway", "front").get("listeners", ())
            return [item["attachedRoutes"] for item in listeners] == [count]

        scene.apply(GATEWAY)
        scene.apply(route("one", "front"))
        scene.apply(POOL)
        eventually(lambda: attached(2), 30)
        scene.accepts("inferencepool.inference.networking.k8s.io", "models")
        eventually(lambda: scene.has_made("service"), 30)
        before = ("False", "AddressNotAssigned")
        eventually(lambda: scene.conditions("gateway", "front").get("Programmed") == before, 30)
        scene.controller.process.terminate()
        scene.controller.process.wait(30)
        names = [scene.controller_name]
        with controlling(
            control_plane.kubeconfig, tmp_path, scene.name, controllers=names, name="again"
        ) as again:
            scene.apply(route("two", "front"))
            eventually(lambda: attached(3), 30)
            scene.accepts("httproute", "two")
            # The new route, and how many there are.
            assert again.metric("pointsman_controller_status_writes_total") == 2


def test_an_envoy_proxy_says_how_envoy_is_run(scene: Scene) -> None:
    scene.apply(PARAMETERS)
    scene.apply(WITH_PARAMETERS)
    eventually(lambda: scene.made("deployment")["spec"]["replicas"] == 3, 20)
    spec = scene.made("deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"][0]["key"] == "gateways"
    assert spec["hostAliases"][0]["ip"] == "10.0.0.1"
    assert spec["terminationGracePeriodSeconds"] == 105
    assert container["image"] == "registry.example/mirror/pointsman:1"
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    names = [item["name"] for item in container["env"]]
    assert names == ["POD_NAME", "POD_NAMESPACE", "EXTRA"]
    assert "--concurrency" in container["args"]
    assert "http:debug,misc:error" in container["args"]
    eventually(lambda: scene.made("service")["spec"]["type"] == "ClusterIP", 20)
    assert scene.made("service")["metadata"]["annotations"]["s"] == "t"
    assert scene.made("pdb")["spec"]["minAvailable"] == 2
    # Inside of the cluster it is found at the Service's own address.
    address = scene.made("service")["spec"]["clusterIP"]
    eventually(
        lambda: (
            scene.status("gateway", "front").get("addresses")
            == [{"type": "IPAddress", "value": address}]
        ),
        20,
    )
    (ancestor,) = scene.status("envoyproxy", "settings")["ancestors"]
    assert [item["type"] for item in ancestor["conditions"]] == ["Accepted"]


def test_a_broken_reference_leaves_what_runs(scene: Scene) -> None:
    scene.apply(PARAMETERS)
    scene.apply(WITH_PARAMETERS)
    eventually(lambda: scene.made("deployment")["spec"].get("replicas") == 3, 20)
    uid = scene.made("deployment")["metadata"]["uid"]
    scene.cluster.kubectl("delete", "envoyproxy", "settings", "-n", scene.namespace)
    eventually(
        lambda: scene.conditions("gateway", "front")["Accepted"] == ("False", "InvalidParameters"),
        20,
    )
    scene.apply(route("during", "front"))
    assert scene.made("deployment")["metadata"]["uid"] == uid
    assert scene.made("deployment")["spec"]["replicas"] == 3
    scene.apply(PARAMETERS)
    scene.accepts("gateway", "front")


def test_what_somebody_changes_is_put_right(scene: Scene) -> None:
    port = {"op": "replace", "path": "/spec/ports/0/targetPort", "value": 9999}
    import json

    scene.cluster.kubectl(
        *("patch", "service", f"front-{scene.name}", "-n", scene.namespace, "--type=json"),
        *("-p", json.dumps([port])),
    )
    scene.cluster.kubectl("delete", "pdb", f"front-{scene.name}", "-n", scene.namespace)
    eventually(lambda: scene.has_made("pdb"), 20)
    image = json.dumps({"spec": {"template": {"spec": {"serviceAccountName": "default"}}}})
    scene.cluster.kubectl(
        *("patch", "deployment", f"front-{scene.name}", "-n", scene.namespace, "-p", image)
    )

    def account() -> str:
        spec = scene.made("deployment")["spec"]["template"]["spec"]
        return str(spec["serviceAccountName"])

    eventually(lambda: account() == f"front-{scene.name}", 20)


def test_a_service_of_the_same_name_is_not_taken_over(scene: Scene) -> None:
    name = f"taken-{scene.name}"
    scene.cluster.kubectl(
        "create", "service", "clusterip", name, "--tcp=80:80", "-n", scene.namespace
    )
    scene.apply(GATEWAY.replace("name: front", "name: taken"))

    def message() -> str:
        found = scene.status("gateway", "taken").get("conditions", ())
        return next((item["message"] for item in found if item["type"] == "Programmed"), "")

    wanted = f"Service {scene.namespace}/{name} is there already, and was not made by Pointsman"
    eventually(lambda: wanted in message(), 20)
    service = scene.cluster.get("service", name, scene.namespace)
    assert "ownerReferences" not in service["metadata"]
    assert scene.conditions("gateway", "taken")["Programmed"][0] == "False"


def test_what_was_made_goes_with_its_gateway(scene: Scene) -> None:
    scene.apply(GATEWAY.replace("name: front", "name: brief"))
    kinds = ("deployment", "service", "configmap", "secret", "serviceaccount", "pdb")

    def names() -> set[str]:
        return {
            f"{kind}/{item['metadata']['name']}"
            for kind in kinds
            for item in scene.cluster.find(kind, scene.namespace)
            if item["metadata"]["name"] == f"brief-{scene.name}"
        }

    eventually(lambda: len(names()) == len(kinds), 30)
    scene.cluster.kubectl("delete", "gateway", "brief", "-n", scene.namespace)
    eventually(lambda: not names(), 60)


def test_a_gateway_that_is_anothers_by_now_loses_what_we_made(scene: Scene) -> None:
    scene.cluster.apply(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n"
        f"metadata: {{name: {scene.name}-other}}\nspec: {{controllerName: {OTHER}}}\n"
    )
    scene.apply(GATEWAY.replace("name: front", "name: moves"))
    kept = f"moves-{scene.name}"

    def is_there() -> bool:
        found = scene.cluster.find("deployment", scene.namespace)
        return kept in [item["metadata"]["name"] for item in found]

    eventually(is_there, 30)
    moved = GATEWAY.replace("name: front", "name: moves").replace("CLASS", f"{scene.name}-other")
    scene.cluster.apply(moved, scene.namespace)
    eventually(lambda: not is_there(), 30)
    scene.cluster.kubectl("delete", "gatewayclass", f"{scene.name}-other")


def secret_of(scene: Scene, gateway: str) -> dict[str, bytes]:
    found = scene.cluster.get("secret", f"{gateway}-{scene.name}", scene.namespace)["data"]
    return {key: base64.b64decode(value) for key, value in found.items()}


def asked(scene: Scene, pair: dict[str, bytes] | None, fleet: str) -> set[str]:
    """The listeners that an Envoy with that certificate is told of, as one of that fleet."""
    host = f"pointsman.{scene.name}.svc"
    authority = secret_of(scene, "front")["ca.crt"]
    credentials = grpc.ssl_channel_credentials(
        authority,
        pair["tls.key"] if pair is not None else None,
        pair["tls.crt"] if pair is not None else None,
    )
    options = [("grpc.ssl_target_name_override", host)]
    address = f"127.0.0.1:{scene.controller.xds_port}"
    with grpc.secure_channel(address, credentials, options) as channel:
        call = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )
        node = base_pb2.Node(id="test", cluster=fleet)
        request = discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=LISTENER)
        answers = call(iter([request]), timeout=10)
        return {item.name for item in next(answers).resources}


def test_an_envoy_gets_what_its_certificate_is_for_and_nothing_else(scene: Scene) -> None:
    scene.apply(GATEWAY.replace("name: front", "name: second"))
    fleets = {name: f"{scene.namespace}/{name}" for name in ("front", "second")}
    scene.accepts("gateway", "second")

    def has_secret() -> bool:
        found = scene.cluster.find("secret", scene.namespace)
        return f"second-{scene.name}" in [item["metadata"]["name"] for item in found]

    eventually(has_secret, 20)
    front = secret_of(scene, "front")
    assert asked(scene, front, fleets["front"]) == {f"{fleets['front']}/http"}
    second = secret_of(scene, "second")
    assert asked(scene, second, fleets["second"]) == {f"{fleets['second']}/http"}
    with pytest.raises(grpc.RpcError) as refused:
        asked(scene, second, fleets["front"])
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as unknown:
        asked(scene, None, fleets["front"])
    assert unknown.value.code() == grpc.StatusCode.UNAVAILABLE


def test_certificates_are_renewed_and_so_is_their_authority(
    control_plane: Cluster, crds: None, tmp_path: Path
) -> None:
    """The authority lives forty times as long as what it signs: it is made to look old here."""
    with a_scene(control_plane, tmp_path, "--certificate-lifetime", "12s") as scene:
        scene.apply(GATEWAY)
        eventually(lambda: scene.has_made("secret"), 20)
        first = secret_of(scene, "front")
        eventually(lambda: secret_of(scene, "front")["tls.crt"] != first["tls.crt"], 30)
        second = secret_of(scene, "front")
        assert second["ca.crt"] == first["ca.crt"]
        fleet = f"{scene.namespace}/front"
        assert asked(scene, second, fleet) == {f"{fleet}/http"}
        # An authority that ends soon is followed by another, and both are believed.
        replace_authority(scene)
        eventually(lambda: secret_of(scene, "front")["ca.crt"].count(b"BEGIN CERTIFICATE") == 2, 30)
        assert asked(scene, secret_of(scene, "front"), fleet) == {f"{fleet}/http"}


def replace_authority(scene: Scene) -> None:
    """Put an authority in the place of ours that is due for its successor."""
    import json
    from datetime import UTC, datetime, timedelta

    from pointsman.certificates import Authority

    old = Authority.create(
        "old", timedelta(seconds=120), now=datetime.now(UTC) - timedelta(seconds=90)
    )
    data = {"tls.crt": old.certificate, "tls.key": old.key, "ca.crt": old.certificate}
    content = {key: base64.b64encode(value).decode() for key, value in data.items()}
    scene.cluster.kubectl(
        *("patch", "secret", "pointsman-authority", "-n", scene.name, "--type=merge"),
        *("-p", json.dumps({"data": content})),
    )


@pytest.mark.slow
def test_a_cluster_without_the_kinds_is_served_once_they_come(tmp_path: Path) -> None:
    absent(binaries.missing())
    absent("" if SHARED_CRDS.is_dir() else f"no {SHARED_CRDS}, where the CRDs of others are")
    with Cluster() as bare:
        bare.kubectl("create", "namespace", "pm")
        with controlling(bare.kubeconfig, tmp_path, "pm") as controller:
            bare.install_crds()
            bare.apply(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n"
                "metadata: {name: late}\n"
                "spec: {controllerName: pointsman.dev/gateway-controller}\n"
            )
            bare.apply(GATEWAY.replace("CLASS", "late"))

            def accepted() -> bool:
                found = bare.get("gateway", "front").get("status", {}).get("conditions", ())
                return ("Accepted", "True") in [(item["type"], item["status"]) for item in found]

            eventually(accepted, 60)
            # A definition is named a moment before its objects can be had.
            eventually(lambda: controller.metric("pointsman_controller_unheard_kinds") == 0, 30)


def test_a_picker_is_made_for_a_pool_whose_class_asks_for_one(scene: Scene) -> None:
    cluster = scene.cluster
    annotation = "pointsman.dev/provide-picker=true"
    cluster.kubectl("annotate", "gatewayclass", scene.name, annotation)
    scene.apply(
        """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: bare}
spec: {selector: {matchLabels: {app: bare}}, targetPorts: [{number: 8000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: to-pool}
spec:
  parentRefs: [{name: front}]
  rules:
  - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: bare}]
"""
    )

    def has_picker() -> bool:
        found = cluster.find("deployment", scene.namespace)
        return "bare-picker" in [item["metadata"]["name"] for item in found]

    eventually(has_picker, 20)
    binding = cluster.get("rolebinding", "bare-picker", scene.namespace)
    assert binding["roleRef"]["name"] == "pointsman-picker"
    pool = "inferencepools.inference.networking.k8s.io"

    def message() -> str:
        parents = scene.status(pool, "bare").get("parents", ())
        return " ".join(item["message"] for each in parents for item in each["conditions"])

    eventually(lambda: "Deployment and Service" in message(), 20)
    # A pool that names its own needs ours no more.
    cluster.kubectl(
        *("patch", pool, "bare", "-n", scene.namespace, "--type=merge", "-p"),
        '{"spec": {"endpointPickerRef": {"name": "own", "port": {"number": 9002}}}}',
    )
    eventually(lambda: not has_picker(), 20)
    eventually(lambda: "Service " in message() and "not found" in message(), 20)
