"""What each fleet of Envoys is served.

On one machine one Envoy serves all Gateways. In a cluster each Gateway has Envoys of its own, its
fleet, and these get what this Gateway needs and nothing else: no other Gateway's certificates, and
patches only of policies that target it. A Gateway that is not accepted at this moment has no part
in it, so that its Envoys keep what they have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pointsman.gateway import names
from pointsman.gateway.backends.references import Unresolved
from pointsman.gateway.policies.extensions import Extensions
from pointsman.gateway.routes.parts import RoutePart
from pointsman.gateway.scene import Scene
from pointsman.gateway.snapshot import EnvoyResource, Snapshot
from pointsman.resources.base import Ref

Owned = tuple[Ref, Sequence[EnvoyResource]]
"""A Gateway, and resources that its Envoys need."""


def divided(
    surroundings: Scene,
    parts: Iterable[RoutePart],
    policies: Extensions,
    route_configurations: Mapping[str, EnvoyResource],
    secrets: Iterable[EnvoyResource],
    others: Iterable[Owned],
) -> dict[Ref, Snapshot]:
    """What each Gateway needs, before patches.

    `others` are resources of which the caller knows whose they are: listeners, pools.
    """
    found: dict[Ref, list[EnvoyResource]] = {
        item.gateway.ref: [] for item in surroundings.gateways if item.problem is None
    }
    owner = {name: sharing[0].gateway.ref for name, sharing in surroundings.sharing.items()}
    for name, resource in route_configurations.items():
        found[owner[name]].append(resource)
    for gateway, resources in (
        *_of_parts(parts, policies, owner),
        *_of_secrets(surroundings, {item.key.name: item for item in secrets}),
        *others,
    ):
        found[gateway] += resources
    return {gateway: Snapshot.of(resources) for gateway, resources in found.items()}


def _of_parts(
    parts: Iterable[RoutePart], policies: Extensions, owner: Mapping[str, Ref]
) -> Iterator[Owned]:
    behind = {
        processor.filter_name: processor.resources
        for item in policies.items
        for processor in item.processors
    }
    for part in parts:
        for gateway in part.gateways:
            yield gateway, part.clusters
        for name, filters in part.processors.items():
            for filter_name in filters:
                yield owner[name], behind[filter_name]


def _of_secrets(surroundings: Scene, secrets: Mapping[str, EnvoyResource]) -> Iterator[Owned]:
    refs: dict[Ref, set[Ref]] = defaultdict(set)
    for item in surroundings.listeners:
        if item.is_served and not isinstance(item.certificates, Unresolved):
            refs[item.gateway.ref].update(item.certificates)
    for served in surroundings.gateways:
        shown = surroundings.client_certificates.get(served.gateway.ref)
        if served.problem is None and isinstance(shown, Ref):
            refs[served.gateway.ref].add(shown)
    for gateway, wanted in refs.items():
        named = (names.secret(ref) for ref in sorted(wanted))
        yield gateway, [secrets[name] for name in named if name in secrets]
