"""What changes or breaks in a cluster costs no request."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.instances import eventually
from tests.kubernetes import binaries
from tests.kubernetes.cluster import SHARED_CRDS, Cluster, node_is_missing
from tests.kubernetes.conftest import absent
from tests.kubernetes.installation import NAMESPACE, Door, door, install
from tests.kubernetes.load import no_request_fails
from tests.kubernetes.test_gateways import GATEWAY

pytestmark = pytest.mark.slow

OUTAGE_S = 60.0
"""As long as an API server may take to come back after an upgrade."""

RECOVERY_S = 150.0
"""For Kubernetes' own controllers, which pause for up to a minute before they ask again, one after
the other: Deployments, ReplicaSets, Pods. Endpoints are the slowest: two minutes and more."""

PROXY = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: quick}
spec:
  provider:
    type: Kubernetes
    kubernetes: {envoyDeployment: {replicas: 2}}
  shutdown: {drainTimeout: 20s, minDrainDuration: 3s}
"""
WITH_PROXY = GATEWAY.replace(
    "  infrastructure:\n",
    "  infrastructure:\n"
    "    parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: quick}\n",
)


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A cluster of this module's own, whose API server it may stop."""
    absent(binaries.missing() or node_is_missing())
    absent("" if SHARED_CRDS.is_dir() else f"no {SHARED_CRDS}, where the CRDs of others are")
    with Cluster() as made:
        made.start_node()
        made.install_crds()
        install(made)
        yield made


@pytest.fixture(scope="module")
def front(own: Cluster) -> Door:
    own.apply(PROXY)
    own.apply(WITH_PROXY)
    found = door(own, "front", 80)
    own.await_rollout("front-pointsman")
    found.answers("base")
    return found


def leader(cluster: Cluster) -> str:
    """The pod that has the lease; "" while none has."""
    lease = cluster.get("lease", "pointsman", NAMESPACE)
    return str(lease["spec"].get("holderIdentity") or "")


def await_controllers(cluster: Cluster) -> None:
    """Until those that are wanted run, and Envoys are led to them."""
    cluster.await_rollout("pointsman", NAMESPACE)
    cluster.await_endpoints("pointsman", NAMESPACE)


def conditions(cluster: Cluster, kind: str, name: str) -> dict[str, str]:
    status: dict[str, Any] = cluster.get(kind, name).get("status", {})
    return {item["type"]: item["status"] for item in status.get("conditions", ())}


def test_a_rolling_update_of_envoy_drops_no_request(own: Cluster, front: Door) -> None:
    before = {item["metadata"]["uid"] for item in pods(own)}
    with no_request_fails(own, front, "base") as load:
        eventually(lambda: load.answered > 50)
        own.kubectl("rollout", "restart", "deployment/front-pointsman")
        own.await_rollout("front-pointsman")
        eventually(lambda: before.isdisjoint({item["metadata"]["uid"] for item in pods(own)}), 60)
        seen = load.answered
        eventually(lambda: load.answered > seen + 50)


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.find("pods", "default", "gateway.networking.k8s.io/gateway-name=front")


def test_model_servers_come_and_go_without_a_failed_request(own: Cluster, front: Door) -> None:
    with no_request_fails(own, front, "base") as load:
        own.kubectl("scale", "deployment/models", "--replicas=4")
        own.await_rollout("models")
        own.kubectl("scale", "deployment/models", "--replicas=2")
        eventually(lambda: len(own.find("pods", "default", "app=models")) == 2, 60)
        seen = load.answered
        eventually(lambda: load.answered > seen + 50)


def test_when_the_leader_dies_another_goes_on(own: Cluster, front: Door) -> None:
    first = eventually(lambda: leader(own), 30)
    with no_request_fails(own, front, "base"):
        # Neither the pod's name nor its lease goes with the process, as when a machine hangs.
        own.cut_off(first, NAMESPACE)
        second = eventually(lambda: (found := leader(own)) != first and found, 60)
        own.kubectl("label", "gateway/front", f"seen-by={second}", "--overwrite")
        own.apply(GATEWAY.replace("name: front}", "name: second}").split("---")[0])
        eventually(lambda: conditions(own, "gateway", "second").get("Accepted") == "True", 30)
        own.reconnect(first, NAMESPACE)
        own.kubectl("delete", "gateway/second", "--wait=false")
    await_controllers(own)
    assert leader(own) == second


def test_a_leader_that_ends_hands_over_at_once(own: Cluster, front: Door) -> None:
    first = eventually(lambda: leader(own), 30)
    own.kubectl("delete", f"pod/{first}", "-n", NAMESPACE, "--wait=false")
    eventually(lambda: leader(own) not in ("", first), 12)
    await_controllers(own)


def test_settings_that_are_deleted_cost_no_request(own: Cluster, front: Door) -> None:
    """The Gateway says that it is not accepted any more, and its Envoys keep what they have."""

    def accepted() -> str:
        return conditions(own, "gateway", "front").get("Accepted", "")

    with no_request_fails(own, front, "base") as load:
        own.kubectl("delete", "envoyproxy", "quick")
        eventually(lambda: accepted() == "False", 30)
        # Even a controller that begins anew takes nothing away.
        own.kubectl("rollout", "restart", "deployment/pointsman", "-n", NAMESPACE)
        await_controllers(own)
        seen = load.answered
        eventually(lambda: load.answered > seen + 100)
        own.apply(PROXY)
        eventually(lambda: accepted() == "True", 30)
        own.apply(ROUTE)
        eventually(lambda: front.request("GET", "/elsewhere").status == 302, 30)
        own.kubectl("delete", "httproute", "elsewhere")


ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: elsewhere}
spec:
  parentRefs: [{name: front}]
  rules:
  - matches: [{path: {value: /elsewhere}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: a.example}}]
"""


def test_envoy_takes_up_the_certificates_that_follow_its_first(own: Cluster, front: Door) -> None:
    """By the end the first have expired, and every connection to the controller is a new one."""
    life_s = 15
    arguments = own.get("deployment", "pointsman", NAMESPACE)["spec"]["template"]["spec"]
    given = arguments["containers"][0]["args"]
    add = {
        "op": "add",
        "path": "/spec/template/spec/containers/0/args/-",
        "value": f"--certificate-lifetime={life_s}s",
    }
    own.kubectl(
        *("patch", "deployment/pointsman", "-n", NAMESPACE, "--type=json", "-p"),
        json.dumps([add]),
    )
    await_controllers(own)

    def certificate() -> str:
        named = {item["metadata"]["name"]: item for item in own.find("secret")}
        secret = named.get("front-pointsman")
        return str(secret["data"]["tls.crt"]) if secret is not None else ""

    # The one of the installation lives long: only what follows one that is short can expire.
    own.kubectl("delete", "secret", "front-pointsman")
    first = eventually(certificate, 30)
    with no_request_fails(own, front, "base"):
        second = eventually(lambda: (found := certificate()) not in ("", first) and found, 60)
        eventually(lambda: certificate() not in ("", second), 60)
        own.kubectl("rollout", "restart", "deployment/pointsman", "-n", NAMESPACE)
        await_controllers(own)
        own.apply(ROUTE)
        eventually(lambda: front.request("GET", "/elsewhere").status == 302, 30)
    remove = {"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": given}
    own.kubectl(
        *("patch", "deployment/pointsman", "-n", NAMESPACE, "--type=json", "-p"),
        json.dumps([remove]),
    )
    await_controllers(own)


def test_an_envoy_that_is_killed_comes_back_with_what_it_had(own: Cluster, front: Door) -> None:
    for item in pods(own):
        own.kill(item["metadata"]["name"], signal.SIGKILL)
    own.await_rollout("front-pointsman")
    front.answers("base")


@pytest.mark.timeout(400)
def test_an_api_server_that_is_gone_for_a_minute_costs_no_request(
    own: Cluster, front: Door
) -> None:
    """The last one: when Kubernetes' own controllers are quick again cannot be said."""
    with no_request_fails(own, front, "base") as load:
        eventually(lambda: load.answered > 50)
        own.stop_apiserver()
        threading.Event().wait(OUTAGE_S)
        during = load.answered
        own.start_apiserver()
        # It is heard again: what changes now arrives.
        own.kubectl("scale", "deployment/models", "--replicas=3")
        own.await_rollout("models", timeout_s=RECOVERY_S)
        eventually(lambda: leader(own), 30)
        own.apply(GATEWAY.replace("name: front}", "name: after}").split("---")[0])
        eventually(lambda: conditions(own, "gateway", "after").get("Accepted") == "True", 30)
        own.kubectl("delete", "gateway/after", "--wait=false")
        seen = load.answered
        eventually(lambda: load.answered > seen + 50)
    assert during > 500
