"""The switches of Envoy Gateway: a configuration inside a ConfigMap.

Rule (Envoy Gateway v1.3): the ConfigMap is `envoy-gateway-config` in `envoy-gateway-system`, and
its key `envoy-gateway.yaml`. Without it, or where it cannot be read, the defaults hold: Backend and
EnvoyPatchPolicy are off. What is set beside the switches and has no effect is told once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pointsman.resources.base import Ref
from pointsman.resources.core import ConfigMap
from pointsman.resources.envoy_gateway import EnvoyGatewayConfig
from pointsman.resources.parse import embedded_config
from pointsman.store import Store

NAMESPACE = "envoy-gateway-system"
NAME = "envoy-gateway-config"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The switches."""

    gateway: EnvoyGatewayConfig
    problem: str | None = None
    """Why they could not be read, or what of them has no effect."""
    version: int = field(default=0, compare=False)
    """Of the ConfigMap in the store; 0 where there is none."""


def read(store: Store, before: Configuration | None = None) -> Configuration:
    """The configuration as the store has it: `before`, where that was read from the same."""
    version = store.version(Ref(ConfigMap.KIND.group, ConfigMap.KIND.kind, NAMESPACE, NAME))
    if before is not None and before.version == version:
        return before
    defaults = EnvoyGatewayConfig(api_version="gateway.envoyproxy.io/v1alpha1", kind="EnvoyGateway")
    found = store.get(ConfigMap, NAMESPACE, NAME)
    if found is None:
        return Configuration(defaults)
    config, problems = embedded_config(found)
    if config is not None:
        without_effect = ", ".join(ignored(config))
        text = f"{found.ref}: fields that have no effect: {without_effect}"
        return Configuration(config, text if without_effect else None, version)
    reason = "; ".join(map(str, problems)) or "holds no EnvoyGateway configuration"
    return Configuration(defaults, f"{found.ref}: {reason}; the defaults hold", version)


def ignored(config: EnvoyGatewayConfig) -> list[str]:
    """The fields that are set and change nothing here."""
    given = {
        "admin": config.admin,
        "extensionManager": config.extension_manager,
        "logging": config.logging,
        "provider.custom": config.provider.custom,
        "provider.kubernetes": config.provider.kubernetes,
        "rateLimit": config.rate_limit,
        "telemetry": config.telemetry,
    }
    return [name for name, value in given.items() if value]
