"""The switches of Envoy Gateway: a configuration inside a ConfigMap.

Rule (Envoy Gateway v1.3): the ConfigMap is `envoy-gateway-config` in `envoy-gateway-system`, and
its key `envoy-gateway.yaml`. Without it, or where it cannot be read, the defaults hold: Backend and
EnvoyPatchPolicy are off.
"""

from __future__ import annotations

from dataclasses import dataclass

from pointsman.resources.core import ConfigMap
from pointsman.resources.envoy_gateway import EnvoyGatewayConfig
from pointsman.resources.parse import embedded_config
from pointsman.store import Store

NAMESPACE = "envoy-gateway-system"
NAME = "envoy-gateway-config"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The switches, and why they could not be read where they could not."""

    gateway: EnvoyGatewayConfig
    problem: str | None = None


def read(store: Store) -> Configuration:
    """The configuration as the store has it."""
    defaults = EnvoyGatewayConfig(api_version="gateway.envoyproxy.io/v1alpha1", kind="EnvoyGateway")
    found = store.get(ConfigMap, NAMESPACE, NAME)
    if found is None:
        return Configuration(defaults)
    config, problems = embedded_config(found)
    if config is not None:
        return Configuration(config)
    reason = "; ".join(map(str, problems)) or "holds no EnvoyGateway configuration"
    return Configuration(defaults, f"{found.ref}: {reason}; the defaults hold")
