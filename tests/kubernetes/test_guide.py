"""The variants of the guide in a cluster, applied as they are, with Pointsman as the gateway."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.instances import eventually
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.conftest import absent
from tests.kubernetes.installation import (
    GUIDE,
    GUIDE_PICKER,
    READY_S,
    door,
)

OLD_POOLS = "inferencepools.inference.networking.x-k8s.io"
CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kgateway}
spec: {controllerName: pointsman.dev/gateway-controller}
"""


@pytest.fixture(autouse=True)
def guide() -> None:
    absent("" if GUIDE.is_dir() else f"no {GUIDE}, where the guide is")


def test_envoy_gateways_guide(installed: Cluster) -> None:
    """A Backend, an extension policy and patches; nothing in the files is changed."""
    cluster = installed
    cluster.kubectl("create", "namespace", "envoy-gateway-system")
    cluster.kubectl("apply", "-f", str(GUIDE / "eg"))
    front = door(cluster, "inference-gateway", 8081)
    front.answers("tweet-summary")
    # The guide's own words.
    body = {
        "model": "tweet-summary",
        "prompt": "Write as if you were a critic: San Francisco",
        "max_tokens": 100,
        "temperature": 0,
    }
    done = subprocess.run(
        [
            *("curl", "-sS", "--fail", "--max-time", "20"),
            *("-H", "Content-Type: application/json", "-d", json.dumps(body)),
            f"http://{front.host}:{front.port}/v1/completions",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["model"].startswith("tweet-summary")
    (ancestor,) = cluster.get("envoypatchpolicy", "custom-response-patch-policy")["status"][
        "ancestors"
    ]
    assert {item["type"]: item["status"] for item in ancestor["conditions"]} == {
        "Accepted": "True",
        "Programmed": "True",
    }
    assert ancestor["controllerName"] == "gateway.envoyproxy.io/gatewayclass-controller"
    cluster.kubectl("delete", "-f", str(GUIDE / "eg"), "--wait=false")


@pytest.mark.parametrize(
    ("variant", "pool", "port", "model"),
    [("kgateway", "qwen-pool", 8081, "tweet-summary"), ("fakellm", "fakellm-pool", 80, "fake-llm")],
)
def test_the_guides_of_kgateway_with_our_picker(
    installed: Cluster, namespace: str, variant: str, pool: str, port: int, model: str
) -> None:
    cluster = installed
    cluster.apply(CLASS)
    cluster.apply(GUIDE / variant, namespace)

    def resolved() -> str | None:
        status = cluster.get(OLD_POOLS, pool, namespace).get("status", {})
        return next(
            (
                condition["status"]
                for item in status.get("parent", ())
                for condition in item["conditions"]
                if condition["type"] == "ResolvedRefs"
            ),
            None,
        )

    # The guide leaves the picker to another chart; until it is there the pool says what it lacks.
    eventually(lambda: resolved() == "False", READY_S)
    picker = GUIDE_PICKER.read_text().replace("qwen-pool", pool)
    cluster.apply(picker.replace("namespace: default", f"namespace: {namespace}"), namespace)
    eventually(lambda: resolved() == "True", READY_S)
    front = door(cluster, "inference-gateway", port, namespace)
    assert front.answers(model).status == 200
