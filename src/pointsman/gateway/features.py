"""The features of the Gateway API that are served, by the names of its conformance suite.

This is the one table: the status of a GatewayClass lists it, and the page on conformance is held
against it.
"""

from __future__ import annotations

from pointsman.resources.unused import CustomResourceDefinition
from pointsman.store import Store

CORE = ("GRPCRoute", "Gateway", "HTTPRoute", "ReferenceGrant")

EXTENDED = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "GRPCRouteNamedRouteRule",
    "GatewayAddressEmpty",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
)

INFERENCE = ("SupportInferencePool",)
"""Of the Gateway API Inference Extension."""

IN_CLUSTERS = ("GatewayInfrastructure", "GatewayInfrastructurePropagation")
"""On one machine nothing is made for a Gateway that could have labels and annotations.

The second is the name of the first in the suite's releases up to 1.6.0.
"""

SUPPORTED = tuple(sorted((*CORE, *EXTENDED, *INFERENCE)))
"""As a GatewayClass lists them: in the order of their names."""

EXPERIMENTAL = frozenset(
    {"HTTPRouteRetry", "HTTPRouteRetryBackendTimeout", "HTTPRouteRetryConnectionError"}
)
"""They need a field that the definitions of the standard channel do not have."""

SUPPORTED_IN_CLUSTERS = tuple(sorted((*SUPPORTED, *IN_CLUSTERS)))
"""The same in a cluster."""

BUNDLE_VERSION = "gateway.networking.k8s.io/bundle-version"
"""The annotation by which a definition says which release of the Gateway API it is of."""
VERSIONS = ("v1.3.", "v1.4.", "v1.5.", "v1.6.")
"""Releases whose objects are read as they were meant."""
CHANNEL = "gateway.networking.k8s.io/channel"
"""The annotation by which a definition says of which channel it is."""
_DEFINITION = "gatewayclasses.gateway.networking.k8s.io"


def supported(store: Store, is_alone: bool) -> tuple[str, ...]:
    """The features that can be had here; `is_alone`: on one machine."""
    if is_alone:
        return SUPPORTED
    found = store.get(CustomResourceDefinition, "", _DEFINITION)
    if found is None or found.metadata.annotations.get(CHANNEL) != "standard":
        return SUPPORTED_IN_CLUSTERS
    return tuple(name for name in SUPPORTED_IN_CLUSTERS if name not in EXPERIMENTAL)


def version_problem(store: Store) -> str | None:
    """Why the definitions of a cluster are not those that are read here; None where they are.

    On one machine there are none, and the ones that are built in count.
    """
    found = store.get(CustomResourceDefinition, "", _DEFINITION)
    if found is None:
        return None
    version = found.metadata.annotations.get(BUNDLE_VERSION, "")
    if version.startswith(VERSIONS):
        return None
    known = ", ".join(item.rstrip(".") for item in VERSIONS)
    return f"The Gateway API is installed in version {version or 'unknown'}; supported are {known}"
