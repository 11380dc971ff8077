"""Kinds that users' files have and that need nothing done here: kept as they are, for show."""

from __future__ import annotations

from typing import ClassVar

from pydantic import ConfigDict

from pointsman.resources.base import Kind, Resource

RBAC = "rbac.authorization.k8s.io"


class Unused(Resource):
    """An object that is kept as it is written."""

    model_config = ConfigDict(extra="allow")


class ServiceAccount(Unused):
    """Who a Pod is in a cluster."""

    KIND: ClassVar[Kind] = Kind("", "v1", "ServiceAccount", "serviceaccounts", ("sa",))


class PersistentVolumeClaim(Unused):
    """Storage that outlives pods."""

    KIND: ClassVar[Kind] = Kind(
        "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", ("pvc",)
    )


class ClusterRole(Unused):
    """What may be done in a cluster."""

    KIND: ClassVar[Kind] = Kind(RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False)


class ClusterRoleBinding(Unused):
    """Who may do it."""

    KIND: ClassVar[Kind] = Kind(
        RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
    )


class Role(Unused):
    """What may be done in a namespace."""

    KIND: ClassVar[Kind] = Kind(RBAC, "v1", "Role", "roles")


class RoleBinding(Unused):
    """Who may do it."""

    KIND: ClassVar[Kind] = Kind(RBAC, "v1", "RoleBinding", "rolebindings")


class HorizontalPodAutoscaler(Unused):
    """How many replicas, by measure."""

    KIND: ClassVar[Kind] = Kind(
        "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", ("hpa",)
    )


class PodDisruptionBudget(Unused):
    """How many pods may go at once."""

    KIND: ClassVar[Kind] = Kind(
        "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", ("pdb",)
    )


class NetworkPolicy(Unused):
    """Who may speak to whom."""

    KIND: ClassVar[Kind] = Kind(
        "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", ("netpol",)
    )


class PriorityClass(Unused):
    """Which pods come first."""

    KIND: ClassVar[Kind] = Kind(
        "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", ("pc",), namespaced=False
    )


class CustomResourceDefinition(Unused):
    """A kind of its own."""

    KIND: ClassVar[Kind] = Kind(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        ("crd", "crds"),
        namespaced=False,
    )


class ServiceMonitor(Unused):
    """What Prometheus scrapes."""

    KIND: ClassVar[Kind] = Kind(
        "monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors", ("smon",)
    )


class PodMonitor(Unused):
    """What Prometheus scrapes, pod by pod."""

    KIND: ClassVar[Kind] = Kind(
        "monitoring.coreos.com", "v1", "PodMonitor", "podmonitors", ("pmon",)
    )
