"""Pieces of manifests that many tests begin with."""

from __future__ import annotations


def switched_on(name: str) -> str:
    """The configuration of Envoy Gateway with one of its `extensionApis` on."""
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: envoy-gateway-config, namespace: envoy-gateway-system}}
data:
  envoy-gateway.yaml: |
    apiVersion: gateway.envoyproxy.io/v1alpha1
    kind: EnvoyGateway
    extensionApis: {{{name}: true}}
"""
