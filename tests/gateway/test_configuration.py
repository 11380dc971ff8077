"""The switches of Envoy Gateway: which are obeyed, and what is told of the rest."""

from __future__ import annotations

from pointsman.gateway import configuration
from pointsman.resources.core import ConfigMap
from pointsman.resources.parse import parse_object
from pointsman.store import Store


def read(text: str) -> configuration.Configuration:
    data = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": configuration.NAME, "namespace": configuration.NAMESPACE},
        "data": {"envoy-gateway.yaml": text},
    }
    parsed = parse_object(data)
    assert isinstance(parsed.resource, ConfigMap)
    store = Store()
    store.apply([parsed.resource])
    return configuration.read(store)


HEAD = "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyGateway\n"


def test_the_switches_are_read() -> None:
    found = read(
        HEAD
        + "gateway: {controllerName: example.com/mine}\n"
        + "provider: {type: Kubernetes}\n"
        + "extensionApis: {enableBackend: true, disableLua: true}\n"
    )
    assert found.gateway.gateway.controller_name == "example.com/mine"
    assert found.gateway.extension_apis.enable_backend
    assert not found.gateway.extension_apis.enable_envoy_patch_policy
    assert found.problem is None


def test_what_has_no_effect_is_said() -> None:
    found = read(HEAD + "logging: {level: {default: debug}}\nrateLimit: {backend: {}}\n")
    assert (found.problem or "").endswith("fields that have no effect: logging, rateLimit")


def test_what_cannot_be_read_leaves_the_defaults() -> None:
    found = read(HEAD + "extensionApis: {enableBackend: perhaps}\n")
    assert not found.gateway.extension_apis.enable_backend
    assert "enableBackend" in (found.problem or "")
    assert (found.problem or "").endswith("the defaults hold")
