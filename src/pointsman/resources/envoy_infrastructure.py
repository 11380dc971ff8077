"""What an EnvoyProxy says of the objects that a cluster makes for a Gateway.

Names and shapes are those of Envoy Gateway's `provider.kubernetes`. What a pod is made of is kept
as it is written, for the API server to judge.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pointsman.resources.base import Model
from pointsman.resources.fields import Broken, Count32, Flag, IntOrString

Plain = dict[str, Any]


class ObjectPatch(Model):
    """A change of a whole object that is made."""

    type: Literal["StrategicMerge", "JSONMerge"] = "StrategicMerge"
    value: Plain


class ProxyPod(Model):
    """What the pods of Envoy have beside what is needed."""

    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    security_context: Plain | None = None
    affinity: Plain | None = None
    tolerations: tuple[Plain, ...] = ()
    volumes: tuple[Plain, ...] = ()
    image_pull_secrets: tuple[Plain, ...] = ()
    node_selector: dict[str, str] = Field(default_factory=dict)
    topology_spread_constraints: tuple[Plain, ...] | None = None
    priority_class_name: str | None = None
    host_users: Flag | None = None


class ProxyContainer(Model):
    """What the container of Envoy has beside what is needed."""

    env: tuple[Plain, ...] = ()
    resources: Plain | None = None
    security_context: Plain | None = None
    image: str | None = None
    image_repository: str | None = None
    volume_mounts: tuple[Plain, ...] = ()


class ProxyDeployment(Model):
    """The Deployment of Envoy."""

    patch: ObjectPatch | None = None
    strategy: Plain | None = None
    replicas: Count32 | None = None
    pod: ProxyPod = ProxyPod()
    container: ProxyContainer = ProxyContainer()
    init_containers: tuple[Plain, ...] = ()
    name: str | None = None


class ProxyService(Model):
    """The Service in front of Envoy."""

    annotations: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = "LoadBalancer"
    load_balancer_class: str | None = None
    allocate_load_balancer_node_ports: Flag | None = None
    load_balancer_source_ranges: tuple[str, ...] = ()
    load_balancer_ip: str | None = Field(default=None, alias="loadBalancerIP")
    external_traffic_policy: Literal["Local", "Cluster"] | None = None
    patch: ObjectPatch | None = None
    name: str | None = None


class ProxyDisruptionBudget(Model):
    """How many pods of Envoy may go at once."""

    min_available: IntOrString | None = None
    max_unavailable: IntOrString | None = None
    patch: ObjectPatch | None = None
    name: str | None = None

    def _broken(self) -> list[Broken]:
        if self.min_available is not None and self.max_unavailable is not None:
            return [((), "must not have both minAvailable and maxUnavailable")]
        return []


class KubernetesProvider(Model):
    """The objects that are made for a Gateway."""

    envoy_deployment: ProxyDeployment | None = None
    envoy_daemon_set: Plain | None = None
    envoy_service: ProxyService | None = None
    envoy_hpa: Plain | None = None
    envoy_pdb: ProxyDisruptionBudget | None = Field(default=None, alias="envoyPDB")
    envoy_service_account: Plain | None = None
    use_listener_port_as_container_port: Flag | None = None

    def ignored(self) -> list[str]:
        """The fields that are set and change nothing."""
        given = {
            "envoyDaemonSet": self.envoy_daemon_set,
            "envoyHpa": self.envoy_hpa,
            "envoyServiceAccount": self.envoy_service_account,
            "envoyDeployment.name": self.envoy_deployment and self.envoy_deployment.name,
            "envoyService.name": self.envoy_service and self.envoy_service.name,
            "envoyPDB.name": self.envoy_pdb and self.envoy_pdb.name,
        }
        return [f"provider.kubernetes.{name}" for name, value in given.items() if value]
