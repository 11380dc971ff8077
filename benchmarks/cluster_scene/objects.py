"""The objects of the benchmark of a cluster."""

from __future__ import annotations

import time
from typing import Any

SYSTEM = "pointsman-system"
ACCOUNT = "pointsman"
CONTROL_PLANE = f"{ACCOUNT}.{SYSTEM}.svc"
NAMESPACE = "bench"
GATEWAYS = ("front", "side")
POOLS = 10

STATUSES = ("gatewayclasses", "gateways", "httproutes", "inferencepools")
FLOWS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "statuses": (["patch"], ["*"], [f"{kind}/status" for kind in STATUSES]),
    "lease": (["*"], ["coordination.k8s.io"], ["leases"]),
    "watches": (["watch"], ["*"], ["*"]),
    "lists": (["list"], ["*"], ["*"]),
    "other": (["*"], ["*"], ["*"]),
}
"""Groups of requests that are counted: verbs, API groups, resources; the first that fits counts."""

Object = dict[str, Any]


def meta(name: str, **more: Any) -> Object:
    """Metadata in the namespace of the benchmark."""
    return {"name": name, "namespace": NAMESPACE, **more}


def gateway(name: str, port: int) -> Object:
    """A Gateway with one listener."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": meta(name),
        "spec": {
            "gatewayClassName": "pointsman",
            "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}],
        },
    }


def pool(number: int) -> Object:
    """A pool of model servers, with a picker of ours."""
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": meta(f"pool-{number}"),
        "spec": {
            "selector": {"matchLabels": {"app": f"pool-{number}"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": f"pool-{number}-picker", "port": {"number": 9002}},
        },
    }


def picker_service(number: int) -> Object:
    """The Service of a pool's picker, of which nothing runs here."""
    annotations = {"pointsman.dev/picker": "true"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(f"pool-{number}-picker", annotations=annotations),
        "spec": {"selector": {"app": f"pool-{number}-picker"}, "ports": [{"port": 9002}]},
    }


def route(name: str, path: str, rule: Object) -> Object:
    """A route through both Gateways."""
    matches = [{"path": {"type": "PathPrefix", "value": path}}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": meta(name),
        "spec": {
            "parentRefs": [{"name": name} for name in GATEWAYS],
            "rules": [{"matches": matches, **rule}],
        },
    }


def pool_route(number: int) -> Object:
    """A route to a pool."""
    group = "inference.networking.k8s.io"
    backend = {"group": group, "kind": "InferencePool", "name": f"pool-{number % POOLS}"}
    return route(f"route-{number}", f"/routes/{number}", {"backendRefs": [backend]})


def redirect(number: int) -> Object:
    """A route that Envoy answers by itself."""
    to = {"hostname": "elsewhere.example.com", "statusCode": 302}
    rule = {"filters": [{"type": "RequestRedirect", "requestRedirect": to}]}
    return route(f"redirect-{number}", f"/redirects/{number}", rule)


def pod(number: int) -> Object:
    """A model server as a chart writes it: most of its 4 KB mean nothing to a gateway."""
    environment = [{"name": f"VLLM_SETTING_{item}", "value": f"value-{item}"} for item in range(12)]
    probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5}
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("models", "cache", "shm")]
    server = {
        "name": "server",
        "image": "registry.example.com/vllm-openai:v0.11.0",
        "args": ["--model", "meta-llama/Llama-3.1-8B-Instruct", "--port", "8000"],
        "env": environment,
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "startupProbe": {**probe, "failureThreshold": 600},
        "resources": {"requests": {"cpu": "8", "memory": "64Gi"}},
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(f"server-{number}", labels={"app": f"pool-{number % POOLS}"}),
        "spec": {
            "containers": [server],
            "volumes": [{"name": name, "emptyDir": {}} for name in ("models", "cache", "shm")],
        },
    }


def pod_status(number: int, *, is_ready: bool) -> Object:
    """What a kubelet says of it."""
    address = f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}"
    names = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    conditions = [
        {
            "type": name,
            "status": str(is_ready or name in names[:2]),
            "lastTransitionTime": now,
        }
        for name in names
    ]
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": conditions,
        }
    }


def flow(position: int, name: str) -> Object:
    """Has the API server count requests of the controller."""
    verbs, groups, resources = FLOWS[name]
    subject = {
        "kind": "ServiceAccount",
        "serviceAccount": {"name": ACCOUNT, "namespace": SYSTEM},
    }
    rule: Object = {"verbs": verbs, "apiGroups": groups, "resources": resources}
    paths = {"nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": f"bench-{name}"},
        "spec": {
            "matchingPrecedence": 500 + position,
            "priorityLevelConfiguration": {"name": "workload-high"},
            "rules": [
                {
                    "subjects": [subject],
                    "resourceRules": [{**rule, "clusterScope": True, "namespaces": ["*"]}],
                    **(paths if name == "other" else {}),
                }
            ],
        },
    }
