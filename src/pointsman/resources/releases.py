"""Which release of which project defines the kinds that are read and no cluster has by itself.

The definitions are applied from where their authors publish them, and are not copied. A version
here is one whose objects are read as they were meant.
"""

from __future__ import annotations

from dataclasses import dataclass

from pointsman.resources.base import Resource
from pointsman.resources.client_policies import ClientTrafficPolicy
from pointsman.resources.envoy_gateway import Backend, EnvoyExtensionPolicy, EnvoyPatchPolicy
from pointsman.resources.envoy_proxy import EnvoyProxy
from pointsman.resources.gateway_api import (
    BackendTLSPolicy,
    Gateway,
    GatewayClass,
    GRPCRoute,
    HTTPRoute,
    ListenerSet,
    ReferenceGrant,
)
from pointsman.resources.inference_extension import (
    InferenceModel,
    InferencePool,
    InferencePoolV1Alpha2,
)
from pointsman.resources.inference_models import (
    ExperimentalInferenceModelRewrite,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    InferenceObjective,
)
from pointsman.resources.traffic_policies import BackendTrafficPolicy

_DOWNLOADS = "https://github.com/{project}/releases/download/{version}/{asset}"


@dataclass(frozen=True, slots=True)
class Release:
    """A file of definitions."""

    name: str
    """What to call it."""
    project: str
    version: str
    asset: str
    kinds: tuple[type[Resource], ...]
    """Those of its kinds that are read here; it may have others."""
    purpose: str
    is_needed: bool = False
    """Whether an installation is of use without it."""
    experimental_asset: str = ""
    """The same with the fields of the project's experimental channel, where it has one."""

    def url(self, *, is_experimental: bool = False) -> str:
        """Where the file is."""
        asset = self.experimental_asset if is_experimental else ""
        return _DOWNLOADS.format(
            project=self.project, version=self.version, asset=asset or self.asset
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the definitions, as `kubectl get crd` knows them."""
        return tuple(f"{cls.KIND.plural}.{cls.KIND.group}" for cls in self.kinds)


_INFERENCE_EXTENSION = "kubernetes-sigs/gateway-api-inference-extension"

RELEASES = (
    Release(
        "gateway-api",
        "kubernetes-sigs/gateway-api",
        "v1.6.2",
        "standard-install.yaml",
        (
            GatewayClass,
            Gateway,
            HTTPRoute,
            GRPCRoute,
            ReferenceGrant,
            ListenerSet,
            BackendTLSPolicy,
        ),
        "gateways and routes",
        is_needed=True,
        experimental_asset="experimental-install.yaml",
    ),
    Release(
        "inference-v1alpha2",
        _INFERENCE_EXTENSION,
        "v0.5.1",
        "manifests.yaml",
        (InferencePoolV1Alpha2, InferenceModel),
        "pools and models of the older generation",
    ),
    Release(
        "inference-experimental",
        _INFERENCE_EXTENSION,
        "v1.5.0",
        "manifests.yaml",
        (ExperimentalInferenceObjective, ExperimentalInferenceModelRewrite),
        "objectives and rewrites in their older group",
    ),
    Release(
        "inference",
        _INFERENCE_EXTENSION,
        "v1.6.2",
        "v1-manifests.yaml",
        (InferencePool,),
        "pools",
        is_needed=True,
    ),
    Release(
        "llm-d",
        "llm-d/llm-d-router",
        "v0.10.0",
        "manifests.yaml",
        (InferenceObjective, InferenceModelRewrite),
        "priorities, aliases and splits of models",
        is_needed=True,
    ),
    Release(
        "envoy-gateway",
        "envoyproxy/gateway",
        "v1.9.0",
        "envoy-gateway-crds.yaml",
        (
            Backend,
            EnvoyExtensionPolicy,
            EnvoyPatchPolicy,
            EnvoyProxy,
            BackendTrafficPolicy,
            ClientTrafficPolicy,
        ),
        "policies and parameters of Gateways",
    ),
)
"""In the order in which they are to be applied: a file may have an older form of what a later one
has."""
