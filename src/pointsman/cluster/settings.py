"""What the objects that are made need to know of the installation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

OWN_CONTROLLER = "pointsman.dev/gateway-controller"

MANAGED_LABEL = "app.kubernetes.io/managed-by"
COMPONENT_LABEL = "app.kubernetes.io/component"
NAME_LABEL = "app.kubernetes.io/name"
MANAGER = "pointsman"
MANAGED = f"{MANAGED_LABEL}={MANAGER}"
"""Selects what was made here."""

GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
CLASS_LABEL = "gateway.networking.k8s.io/gateway-class-name"
POOL_LABEL = "pointsman.dev/pool"

INSTALLATION_ANNOTATION = "pointsman.dev/installation"
"""On what was made: by which Pointsman, for a cluster may have several."""

PROVIDE_PICKER_ANNOTATION = "pointsman.dev/provide-picker"
"""On an InferencePool, or on a GatewayClass for all pools behind its Gateways (`"true"`): a pool
that names no picker gets one."""

USER_ID = 65532
"""Nobody in particular, as images without a shell have it."""

DEFAULT_CERTIFICATE_LIFE = timedelta(days=90)
AUTHORITY_LIVES = 40
"""The authority lives as many times as long as what it signs: ten years."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Where and how this Pointsman is installed."""

    namespace: str
    service: str = MANAGER
    """The Service of the controller."""
    xds_port: int = 18000
    image: str = MANAGER
    """Of Envoys and of the pickers that are provided."""
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the namespaces of Gateways and pools."""
    provides_pickers: bool = False
    """Every pool without a picker gets one."""
    certificate_life: timedelta = DEFAULT_CERTIFICATE_LIFE

    @property
    def identity(self) -> str:
        """Tells this Pointsman from others of the cluster."""
        return f"{self.namespace}/{self.service}"

    @property
    def host(self) -> str:
        """The name under which Envoys find the controller, and which its certificate has."""
        return f"{self.service}.{self.namespace}.svc"


def pod_security() -> dict[str, object]:
    """The security context of a pod, as the Pod Security Standard `restricted` asks for."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, object]:
    """The same of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
