"""The switches of Envoy Gateway: a configuration inside a ConfigMap.

Rule (Envoy Gateway v1.3): the ConfigMap is `envoy-gateway-config` in `envoy-gateway-system`, and
its key `envoy-gateway.yaml`. Without it, or where it cannot be read, the defaults hold: Backend and
EnvoyPatchPolicy are off.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from pointsman.resources import documents
from pointsman.resources.core import ConfigMap
from pointsman.resources.envoy_gateway import CONFIG_KEY, EnvoyGatewayConfig
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
    found = store.get(ConfigMap, NAMESPACE, NAME)
    text = found.data.get(CONFIG_KEY) if found is not None else None
    if text is None:
        return Configuration(_defaults())
    where = f"ConfigMap {NAMESPACE}/{NAME}, {CONFIG_KEY}"
    found_documents, problems = documents.read(text, where)
    if problems or len(found_documents) != 1:
        reason = "; ".join(map(str, problems)) or f"{where}: must hold one document"
        return Configuration(_defaults(), f"{reason}; the defaults hold")
    try:
        return Configuration(EnvoyGatewayConfig.model_validate(found_documents[0].data))
    except ValidationError as error:
        return Configuration(_defaults(), f"{where}: {error}; the defaults hold")


def _defaults() -> EnvoyGatewayConfig:
    return EnvoyGatewayConfig(api_version="gateway.envoyproxy.io/v1alpha1", kind="EnvoyGateway")
