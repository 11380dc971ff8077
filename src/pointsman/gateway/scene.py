"""All that is the same for every route: Gateways and their listeners, namespaces, policies.

A scene is made anew only when one of its objects becomes another. Whoever holds something that was
made with a scene can tell by identity whether it still stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pointsman.gateway.backends.references import Resolver, Unresolved
from pointsman.gateway.configuration import Configuration
from pointsman.gateway.listeners import tls
from pointsman.gateway.listeners.binding import BoundListener, bind_listeners
from pointsman.gateway.listeners.classes import ServedGateway, served_gateways
from pointsman.gateway.listeners.listener_sets import ServedSet, served_sets
from pointsman.gateway.options import Options
from pointsman.gateway.policies.clients import ClientPolicies
from pointsman.gateway.policies.extensions import Extensions
from pointsman.gateway.policies.traffic import TrafficPolicies
from pointsman.gateway.proxies import Proxies, proxies
from pointsman.gateway.routes.labels import counted_routes
from pointsman.resources.base import Ref, Resource
from pointsman.resources.client_policies import ClientTrafficPolicy
from pointsman.resources.core import ConfigMap, Namespace, Secret
from pointsman.resources.envoy_gateway import EnvoyExtensionPolicy, EnvoyPatchPolicy
from pointsman.resources.envoy_proxy import EnvoyProxy
from pointsman.resources.gateway_api import Gateway, GatewayClass, ListenerSet, ReferenceGrant
from pointsman.resources.traffic_policies import BackendTrafficPolicy
from pointsman.store import Store

K = TypeVar("K")

INPUTS: tuple[type[Resource], ...] = (
    GatewayClass,
    Gateway,
    ListenerSet,
    Namespace,
    ReferenceGrant,
    Secret,
    EnvoyExtensionPolicy,
    BackendTrafficPolicy,
    ClientTrafficPolicy,
    EnvoyProxy,
)
"""The kinds that a scene is made from."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What routes meet."""

    config: Configuration
    options: Options
    gateways: tuple[ServedGateway, ...]
    listeners: tuple[BoundListener, ...]
    sets: tuple[ServedSet, ...]
    gateway_of: Mapping[Ref, ServedGateway]
    parent_of: Mapping[Ref, ServedGateway]
    """The same by whatever a route names as its parent: the Gateway, or a ListenerSet of it."""
    listeners_of: Mapping[Ref, Sequence[BoundListener]]
    """By the Gateway or ListenerSet that they are written in."""
    sharing: Mapping[str, Sequence[BoundListener]]
    """The served listeners that share a route configuration, by its name."""
    neighbours: Mapping[str, Sequence[BoundListener]]
    """The served listeners that share a listener of Envoy, by its name."""
    client_certificates: Mapping[Ref, Ref | Unresolved]
    """What each Gateway that has a certificate for backends shows them, or what is wrong."""
    namespace_labels: Mapping[str, Mapping[str, str]]
    extensions: Extensions
    """As routes see them; what is behind their servers may have changed since."""
    traffic: TrafficPolicies
    clients: ClientPolicies
    proxies: Proxies
    counted: frozenset[str]
    """The routes whose resources are named by position (see `routes.labels`)."""
    inputs: tuple[Any, ...]
    """Everything that it was made from, in a form that can be compared."""

    @property
    def patch_targets(self) -> frozenset[Ref]:
        """What an EnvoyPatchPolicy may target: our Gateways, and classes that merge theirs.

        In a cluster none does.
        """
        if not self.options.is_alone:
            return frozenset(self.gateway_of)
        merging = (
            Ref(GatewayClass.KIND.group, GatewayClass.KIND.kind, "", name)
            for gateway, proxy in self.proxies.of_gateway.items()
            if proxy.spec.merge_gateways
            and (name := self.gateway_of[gateway].gateway.spec.gateway_class_name)
        )
        return frozenset([*self.gateway_of, *merging])


def scene(
    store: Store,
    config: Configuration,
    options: Options,
    resolver: Resolver,
    extensions: Extensions,
    previous: Scene | None,
) -> Scene:
    """The scene as the objects are now: `previous`, where nothing of it has changed."""
    versions = _versions(store)
    counted = _counted(store, config)
    inputs = (config, options, versions, extensions.seen_by_routes, counted)
    if previous is not None and previous.inputs == inputs:
        return previous
    gateways = tuple(served_gateways(store, config.gateway, options))
    sets = tuple(served_sets(store, gateways))
    listeners = tuple(bind_listeners(gateways, resolver, sets))
    gateway_of = {item.gateway.ref: item for item in gateways}
    return Scene(
        config=config,
        options=options,
        gateways=gateways,
        listeners=listeners,
        sets=sets,
        gateway_of=gateway_of,
        parent_of=gateway_of | {item.listener_set.ref: item.served for item in sets},
        listeners_of=_grouped((item.owner.ref, item) for item in listeners),
        sharing=_grouped((item.route_config, item) for item in listeners if item.is_served),
        neighbours=_grouped((item.port_name, item) for item in listeners if item.is_served),
        client_certificates={
            item.gateway.ref: found
            for item in gateways
            if (found := tls.client_certificate(resolver, item.gateway)) is not None
        },
        namespace_labels={
            item.metadata.name: item.metadata.labels for item in store.list(Namespace)
        },
        extensions=extensions,
        traffic=TrafficPolicies(store),
        clients=ClientPolicies(resolver),
        proxies=proxies(store, gateways),
        counted=counted,
        inputs=inputs,
    )


def _versions(store: Store) -> tuple[int, ...]:
    """Of the kinds that count. ConfigMaps, which change often, count where somebody reads some."""
    asks_clients = any(
        item.spec.tls is not None and item.spec.tls.frontend is not None
        for item in store.list(Gateway)
    ) or any(
        item.spec.tls is not None and item.spec.tls.client_validation is not None
        for item in store.list(ClientTrafficPolicy)
    )
    kinds: tuple[type[Resource], ...] = (*INPUTS, ConfigMap) if asks_clients else INPUTS
    return tuple(store.kind_version(kind) for kind in kinds)


def _counted(store: Store, config: Configuration) -> frozenset[str]:
    if not config.gateway.extension_apis.enable_envoy_patch_policy:
        return frozenset()
    return counted_routes(store.list(EnvoyPatchPolicy))


def _grouped(items: Iterable[tuple[K, BoundListener]]) -> dict[K, list[BoundListener]]:
    result: dict[K, list[BoundListener]] = {}
    for key, item in items:
        result.setdefault(key, []).append(item)
    return result
