"""Every kind that is known, and the names by which users ask for one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pointsman.resources import (
    apps,
    client_policies,
    core,
    discovery,
    envoy_gateway,
    envoy_proxy,
    gateway_api,
    inference_extension,
    inference_models,
    traffic_policies,
    unused,
)
from pointsman.resources.base import Kind, Resource

USED: tuple[type[Resource], ...] = (
    core.ConfigMap,
    core.Namespace,
    core.Pod,
    core.Secret,
    core.Service,
    apps.Deployment,
    discovery.EndpointSlice,
    gateway_api.GatewayClass,
    gateway_api.Gateway,
    gateway_api.HTTPRoute,
    gateway_api.GRPCRoute,
    gateway_api.ReferenceGrant,
    gateway_api.ListenerSet,
    gateway_api.BackendTLSPolicy,
    inference_extension.InferencePool,
    inference_extension.InferencePoolV1Alpha2,
    inference_extension.InferenceModel,
    inference_models.InferenceObjective,
    inference_models.ExperimentalInferenceObjective,
    inference_models.InferenceModelRewrite,
    inference_models.ExperimentalInferenceModelRewrite,
    envoy_gateway.Backend,
    envoy_gateway.EnvoyExtensionPolicy,
    envoy_gateway.EnvoyPatchPolicy,
    envoy_proxy.EnvoyProxy,
    traffic_policies.BackendTrafficPolicy,
    client_policies.ClientTrafficPolicy,
)
"""What Pointsman reads."""

NOT_USED: tuple[type[Resource], ...] = (
    unused.ClusterRole,
    unused.ClusterRoleBinding,
    unused.CustomResourceDefinition,
    unused.HorizontalPodAutoscaler,
    unused.NetworkPolicy,
    unused.PersistentVolumeClaim,
    unused.PodDisruptionBudget,
    unused.PodMonitor,
    unused.PriorityClass,
    unused.Role,
    unused.RoleBinding,
    unused.ServiceAccount,
    unused.ServiceMonitor,
)
"""What is taken and kept, and changes nothing."""

ALL: tuple[type[Resource], ...] = USED + NOT_USED

_OTHER_VERSIONS: dict[tuple[str, str], tuple[str, ...]] = {
    (gateway_api.GROUP, "GatewayClass"): ("v1beta1",),
    (gateway_api.GROUP, "Gateway"): ("v1beta1",),
    (gateway_api.GROUP, "HTTPRoute"): ("v1beta1",),
    (gateway_api.GROUP, "ReferenceGrant"): ("v1beta1",),
    ("autoscaling", "HorizontalPodAutoscaler"): ("v1",),
}
"""Served versions beside the one of the class, with the same shape as far as it is read."""


def lookup(group: str, kind: str) -> type[Resource] | None:
    """The class of a kind."""
    return _TABLE.by_group_kind.get((group, kind))


def versions(cls: type[Resource]) -> tuple[str, ...]:
    """The versions in which a kind is read, the current one first."""
    kind = cls.KIND
    return (kind.version, *_OTHER_VERSIONS.get((kind.group, kind.kind), ()))


def by_name(name: str) -> tuple[type[Resource], ...]:
    """The kinds that a user's word means, as kubectl reads it; () when none.

    A word is a kind, plural, singular or short name, in any case, or one of them with its group:
    `gtw`, `Gateway`, `gateways.gateway.networking.k8s.io`, `deployments.v1.apps`. A bare word that
    two groups share means both generations of that kind, the newer first.
    """
    return _TABLE.by_word.get(name.lower(), ())


def names_like(name: str) -> list[str]:
    """Kinds whose names are near to what was written, for a suggestion."""
    near = difflib.get_close_matches(name.lower()[:100], _TABLE.by_word, n=8, cutoff=0.65)
    found = [cls.KIND.kind for word in near for cls in _TABLE.by_word[word]]
    return list(dict.fromkeys(found))[:3]


@dataclass(frozen=True, slots=True)
class _Table:
    by_group_kind: dict[tuple[str, str], type[Resource]] = field(default_factory=dict)
    by_word: dict[str, tuple[type[Resource], ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, classes: Iterable[type[Resource]]) -> _Table:
        table = cls()
        for item in classes:
            table.by_group_kind[item.KIND.group, item.KIND.kind] = item
            for word in set(_words(item.KIND, versions(item))):
                table.by_word[word] = (*table.by_word.get(word, ()), item)
        return table


def _words(kind: Kind, its_versions: Iterable[str]) -> Iterator[str]:
    full = {kind.kind.lower(), kind.plural}
    yield from full
    yield from kind.short_names
    if kind.group:
        for word in full | set(kind.short_names):
            yield f"{word}.{kind.group}"
        for word in full:
            for version in its_versions:
                yield f"{word}.{version}.{kind.group}"


_TABLE = _Table.of(ALL)
