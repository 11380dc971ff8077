"""All that is the same for every route: Gateways and their listeners, namespaces, policies.

A scene is made anew only when one of its objects becomes another. Whoever holds something that was
made with a scene can tell by identity whether it still stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pointsman.gateway.backends.references import Resolver
from pointsman.gateway.configuration import Configuration
from pointsman.gateway.listeners import attachment
from pointsman.gateway.listeners.attachment import BoundListener, ServedGateway
from pointsman.gateway.options import Options
from pointsman.gateway.policies.extensions import Extensions
from pointsman.resources.base import Ref, Resource
from pointsman.resources.core import Namespace, Secret
from pointsman.resources.envoy_gateway import EnvoyExtensionPolicy
from pointsman.resources.gateway_api import Gateway, GatewayClass, ReferenceGrant
from pointsman.store import Store

K = TypeVar("K")

INPUTS: tuple[type[Resource], ...] = (
    GatewayClass,
    Gateway,
    Namespace,
    ReferenceGrant,
    Secret,
    EnvoyExtensionPolicy,
)
"""The kinds that a scene is made from."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What routes meet."""

    config: Configuration
    options: Options
    gateways: tuple[ServedGateway, ...]
    listeners: tuple[BoundListener, ...]
    gateway_of: Mapping[Ref, ServedGateway]
    listeners_of: Mapping[Ref, Sequence[BoundListener]]
    """By Gateway."""
    sharing: Mapping[str, Sequence[BoundListener]]
    """The served listeners that share a route configuration, by its name."""
    known_parents: frozenset[Ref]
    """Everything that a route may name as its parent, ours or not."""
    namespace_labels: Mapping[str, Mapping[str, str]]
    extensions: Extensions
    """As routes see them; what is behind their servers may have changed since."""
    inputs: tuple[Any, ...]
    """Everything that it was made from, in a form that can be compared."""


def scene(
    store: Store,
    config: Configuration,
    options: Options,
    resolver: Resolver,
    extensions: Extensions,
    previous: Scene | None,
) -> Scene:
    """The scene as the objects are now: `previous`, where nothing of it has changed."""
    versions = tuple(store.kind_version(kind) for kind in INPUTS)
    inputs = (config, options, versions, extensions.seen_by_routes)
    if previous is not None and previous.inputs == inputs:
        return previous
    gateways = tuple(attachment.served_gateways(store, config.gateway, options))
    listeners = tuple(attachment.bind_listeners(gateways, resolver))
    return Scene(
        config=config,
        options=options,
        gateways=gateways,
        listeners=listeners,
        gateway_of={item.gateway.ref: item for item in gateways},
        listeners_of=_grouped((item.gateway.ref, item) for item in listeners),
        sharing=_grouped((item.route_config, item) for item in listeners if item.is_served),
        known_parents=frozenset(item.ref for item in store.list(Gateway)),
        namespace_labels={
            item.metadata.name: item.metadata.labels for item in store.list(Namespace)
        },
        extensions=extensions,
        inputs=inputs,
    )


def _grouped(items: Iterable[tuple[K, BoundListener]]) -> dict[K, list[BoundListener]]:
    result: dict[K, list[BoundListener]] = {}
    for key, item in items:
        result.setdefault(key, []).append(item)
    return result
