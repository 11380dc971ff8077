"""The charts and the plain manifests, judged by a real API server, and one installation."""

from __future__ import annotations

import pytest
import yaml

from tests.charts import program
from tests.charts.manifests import CHARTS, DEPLOY, RENDERINGS
from tests.charts.test_inferencepool import CONFIG
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.conftest import absent
from tests.kubernetes.installation import door
from tests.kubernetes.model_servers import model_servers

ON_TRIAL = ("--dry-run=server", "--validate=strict")

RICH_CONTROLLER = {
    "replicas": 3,
    "takeOverEnvoyGateway": True,
    "watchNamespaces": ["default"],
    "providePickers": True,
    "imagePullSecrets": [{"name": "registry"}],
    "podAnnotations": {"a": "b"},
    "metrics": {"service": {"enabled": True}},
    "networkPolicy": {"metricsFrom": [{"namespaceSelector": {}}]},
    "gatewayClass": {
        "providePickers": True,
        "parametersRef": {
            "group": "gateway.envoyproxy.io",
            "kind": "EnvoyProxy",
            "name": "small",
            "namespace": "pointsman-system",
        },
    },
}
RICH_POOL = {
    "pool": {
        "matchLabels": {"app": "llama"},
        "targetPorts": [8000, 8001],
        "appProtocol": "kubernetes.io/h2c",
    },
    "picker": {
        "replicas": 2,
        "config": CONFIG,
        "certificateSecret": "tls",
        "secureServing": False,
        "metricsAuth": True,
        "leaderElection": True,
    },
    "objectives": [{"name": "batch", "priority": -1}],
    "rewrites": [{"name": "chat", "rules": [{"targets": [{"modelRewrite": "chat-v2"}]}]}],
    "httpRoute": {"create": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["a.example"]},
}


@pytest.mark.parametrize("name", RENDERINGS)
def test_the_api_server_takes_the_plain_manifests(
    control_plane: Cluster, crds: None, name: str
) -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: pointsman-system}\n"
    control_plane.apply(namespace)

    said = control_plane.kubectl("apply", "-f", str(DEPLOY / name), *ON_TRIAL)

    assert "Warning" not in said
    wanted = sum(1 for item in yaml.safe_load_all((DEPLOY / name).read_text()) if item)
    assert said.count("(server dry run)") == wanted


@pytest.mark.parametrize(
    ("chart", "values"), [("pointsman", RICH_CONTROLLER), ("inferencepool", RICH_POOL)]
)
def test_the_api_server_takes_what_many_values_make(
    control_plane: Cluster, crds: None, namespace: str, chart: str, values: dict[str, object]
) -> None:
    absent(program.missing())
    rendered = program.helm(
        *("template", "trial", str(CHARTS / chart), "-n", namespace),
        values=yaml.safe_dump(values),
    )

    said = control_plane.kubectl("apply", "-f", "-", *ON_TRIAL, input=rendered)

    assert "Warning" not in said
    assert said.count("(server dry run)") >= 9


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: pointsman
  listeners: [{name: http, protocol: HTTP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: models}
spec:
  parentRefs: [{name: front}]
  rules:
    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: llama}]
"""


def test_what_the_manifests_install_serves_a_pool(installed: Cluster, namespace: str) -> None:
    cluster = installed
    wait = ("--for=condition=Accepted", "--timeout=30s")
    cluster.kubectl("wait", "gatewayclass/pointsman", *wait)

    cluster.apply(model_servers("llama", "llama-3") + GATEWAY, namespace)
    pool = (DEPLOY / "inferencepool.yaml").read_text()
    cluster.apply(pool.replace("namespace: default", f"namespace: {namespace}"), namespace)
    cluster.await_rollout("llama", namespace)
    cluster.await_rollout("llama-picker", namespace)

    front = door(cluster, "front", 80, namespace)
    assert front.answers("llama-3").json["model"] == "llama-3"
    for log in cluster.folder.glob(f"pods/{namespace}/*/*.log"):
        assert "forbidden" not in log.read_text(errors="replace").lower(), log
