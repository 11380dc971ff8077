"""The picker of a pool that has none, as objects of Kubernetes: pure.

A Deployment with its ServiceAccount, a RoleBinding to the ClusterRole of pickers in the pool's
namespace, and a Service. All are owned by the pool, so that they go with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pointsman.cluster.settings import (
    COMPONENT_LABEL,
    MANAGED_LABEL,
    MANAGER,
    NAME_LABEL,
    POOL_LABEL,
    PROVIDE_PICKER_ANNOTATION,
    Installation,
    container_security,
    pod_security,
)
from pointsman.gateway import names
from pointsman.gateway.translate import ServedPool, Translation
from pointsman.resources.base import Ref, Resource
from pointsman.resources.core import PICKER_ANNOTATION, PROVIDED_ANNOTATION
from pointsman.resources.gateway_api import GatewayClass
from pointsman.resources.inference_extension import (
    DEFAULT_PICKER_PORT,
    EXPERIMENTAL_GROUP,
    InferencePool,
    InferencePoolV1Alpha2,
)
from pointsman.store import Store

COMPONENT = "picker"
CLUSTER_ROLE = "pointsman-picker"
"""Made at the installation, with the rights of a picker."""
HEALTH_PORT = 9003
METRICS_PORT = 9090
GRACE_S = 40
"""More than a picker takes to drain."""

Object = dict[str, Any]


def wanted_pickers(
    store: Store, translation: Translation, installation: Installation
) -> Iterator[tuple[Ref, Resource]]:
    """The pools that are served, name no picker, and shall get one."""
    for ref, served in translation.pools.items():
        pool = store.find(ref)
        named = served.destination.pool
        if pool is None or named is None or named.spec.endpoint_picker_ref is not None:
            continue
        if installation.provides_pickers or _asks(pool) or _class_asks(store, translation, served):
            yield ref, pool


def is_picker_superfluous(pool: Resource) -> bool:
    """Whether a pool that got a picker surely needs it no more.

    One that got it by its class keeps it, for whether a route leads there may change at any moment.
    """
    if isinstance(pool, InferencePoolV1Alpha2):
        pool = pool.to_v1()
    return isinstance(pool, InferencePool) and pool.spec.endpoint_picker_ref is not None


def _asks(item: Resource) -> bool:
    return item.metadata.annotations.get(PROVIDE_PICKER_ANNOTATION) == "true"


def _class_asks(store: Store, translation: Translation, served: ServedPool) -> bool:
    gateways = (translation.scene.gateway_of[parent].gateway for parent in served.parents)
    classes = (store.get(GatewayClass, "", item.spec.gateway_class_name) for item in gateways)
    return any(item is not None and _asks(item) for item in classes)


def picker_objects(ref: Ref, pool: Resource, installation: Installation) -> tuple[Object, ...]:
    """What the picker of a pool is made of."""
    name = names.provided_picker(ref.name)
    selector = {MANAGED_LABEL: MANAGER, COMPONENT_LABEL: COMPONENT, POOL_LABEL: ref.name[:63]}
    labels = {NAME_LABEL: COMPONENT, **selector}
    owner = {
        "apiVersion": pool.KIND.api_version,
        "kind": pool.KIND.kind,
        "name": ref.name,
        "uid": pool.metadata.uid,
        "controller": True,
    }

    def item(
        api_version: str,
        kind: str,
        content: Mapping[str, Any],
        annotations: Mapping[str, str] | None = None,
    ) -> Object:
        meta = {
            "name": name,
            "namespace": ref.namespace,
            "labels": labels,
            "ownerReferences": [owner],
        }
        given = {"annotations": dict(annotations)} if annotations else {}
        return {"apiVersion": api_version, "kind": kind, "metadata": meta | given, **content}

    rbac = "rbac.authorization.k8s.io"
    binding = {
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": CLUSTER_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": ref.namespace}],
    }
    ports = [
        {
            "name": "grpc-ext-proc",
            "port": DEFAULT_PICKER_PORT,
            "targetPort": DEFAULT_PICKER_PORT,
            "protocol": "TCP",
        }
    ]
    secrets = [{"name": each} for each in installation.image_pull_secrets]
    template = {
        "metadata": {"labels": labels},
        "spec": {
            **({"imagePullSecrets": secrets} if secrets else {}),
            "serviceAccountName": name,
            "enableServiceLinks": False,
            "securityContext": pod_security(),
            "terminationGracePeriodSeconds": GRACE_S,
            "containers": [_container(ref, installation)],
            # For the certificate that it makes at its start.
            "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
        },
    }
    deployment = {
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
        "template": template,
    }
    marks = {PROVIDED_ANNOTATION: "true", PICKER_ANNOTATION: "true"}
    return (
        item("v1", "ServiceAccount", {}),
        item(f"{rbac}/v1", "RoleBinding", binding),
        item("v1", "Service", {"spec": {"selector": selector, "ports": ports}}, marks),
        item("apps/v1", "Deployment", {"spec": deployment}),
    )


def _container(pool: Ref, installation: Installation) -> Object:
    pull = {"imagePullPolicy": installation.image_pull_policy}
    return {
        "name": COMPONENT,
        "image": installation.image,
        **(pull if installation.image_pull_policy else {}),
        "args": [
            "picker",
            *("--pool-name", pool.name),
            *("--pool-namespace", pool.namespace),
            *(("--pool-group", pool.group) if pool.group == EXPERIMENTAL_GROUP else ()),
            # Its role lets it ask nobody who may read its metrics.
            "--metrics-endpoint-auth=false",
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "ports": [
            {"name": "grpc-ext-proc", "containerPort": DEFAULT_PICKER_PORT, "protocol": "TCP"},
            {"name": "grpc-health", "containerPort": HEALTH_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "grpc": {"port": HEALTH_PORT, "service": "readiness"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
        },
        "livenessProbe": {
            "grpc": {"port": HEALTH_PORT, "service": "liveness"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
            "initialDelaySeconds": 10,
        },
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - of the pod
    }
