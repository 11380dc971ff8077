"""The whole translation: objects in, Envoy's resources and what is so about each object out.

    Gateways ─▶ listeners ─┐
    routes ─▶ rules ───────┼─▶ listeners, route configurations, clusters, endpoints ─▶ patches
    policies ─▶ processors ┘

Nothing here reads a clock, a socket or a global, and one object's fault stays its own: it becomes
part of the outcome, from which `statuses` makes conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pointsman.gateway import configuration, names
from pointsman.gateway.backends import pools
from pointsman.gateway.backends.references import Destination, Resolver, Unresolved, ref_of
from pointsman.gateway.listeners import attachment, envoy_listeners, tls
from pointsman.gateway.options import Options
from pointsman.gateway.patches import patch_policies
from pointsman.gateway.policies import extensions
from pointsman.gateway.routes import rules, virtual_hosts
from pointsman.gateway.snapshot import EnvoyResource, Snapshot
from pointsman.resources.base import Ref
from pointsman.resources.core import Secret
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.resources.inference_extension import InferencePool
from pointsman.store import Store


@dataclass(frozen=True, slots=True)
class ServedPool:
    """A pool that a route leads to."""

    ref: Ref
    pool: InferencePool
    destination: Destination
    picker: pools.Picker | None
    picker_problem: Unresolved | None
    parents: tuple[Ref, ...]
    """The Gateways through which it is reached."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The resources, and all that was found out about the objects on the way."""

    snapshot: Snapshot
    before_patches: Snapshot
    config: configuration.Configuration
    gateways: tuple[attachment.ServedGateway, ...] = ()
    listeners: tuple[attachment.BoundListener, ...] = ()
    parents: tuple[attachment.RouteParent, ...] = ()
    rules: Mapping[Ref, Sequence[rules.Rule]] = field(default_factory=dict)
    extensions: extensions.Extensions = field(default_factory=lambda: extensions.Extensions(()))
    pools: Mapping[Ref, ServedPool] = field(default_factory=dict)
    patches: tuple[patch_policies.PatchOutcome, ...] = ()


def translate(store: Store, options: Options) -> Translation:
    """Translate the objects as they stand."""
    config = configuration.read(store)
    resolver = Resolver(store, config.gateway, options)
    gateways = attachment.served_gateways(store, config.gateway, options)
    bound = attachment.bind_listeners(gateways, resolver)
    parents = attachment.attach(store, gateways, bound)
    attachments = [item for parent in parents for item in parent.attachments]
    routes = {item.route.ref: item.route for item in parents}
    followed = {ref: rules.follow(route, resolver) for ref, route in routes.items()}
    attached = {item.route.ref for item in attachments}
    served = {
        ref: found for ref, found in followed.items() if ref in attached and not _refused(found)
    }
    attachments = [item for item in attachments if item.route.ref in served]
    policies = extensions.translate(resolver)
    pool_map = _served_pools(attachments, served, resolver)

    resources: list[EnvoyResource] = []
    chains: dict[str, list[envoy_listeners.Chain]] = {}
    for name, sharing in _by_route_config(bound).items():
        here = [item for item in attachments if item.listener.route_config == name]
        filters = _filters(here, served, policies, pool_map)
        logs = (pools.pick_log(),) if _asks_own_picker(here, served, pool_map) else ()
        chain = envoy_listeners.Chain(tuple(sharing), tuple(filters), logs)
        chains.setdefault(sharing[0].port_name, []).append(chain)
        resources.append(
            virtual_hosts.route_configuration(
                name, sharing, here, served, policies, lambda ref: pool_map[ref].picker, options
            )
        )
    for port_name, sharing_port in chains.items():
        resources.append(envoy_listeners.envoy_listener(port_name, sharing_port, options))
    resources.extend(_secrets(store, bound))
    for found in served.values():
        for rule in found:
            resources.extend(rules.rule_clusters(rule))
    for item in policies.items:
        for processor in item.processors:
            resources.extend(processor.resources)
    resources.extend(_pool_resources(pool_map.values(), options))

    before = Snapshot.of(resources)
    patched, outcomes = _patch(store, config, before, {item.gateway.ref for item in gateways})
    return Translation(
        snapshot=patched,
        before_patches=before,
        config=config,
        gateways=tuple(gateways),
        listeners=tuple(bound),
        parents=tuple(parents),
        rules=followed,
        extensions=policies,
        pools=pool_map,
        patches=tuple(outcomes),
    )


def _refused(found: Sequence[rules.Rule]) -> bool:
    """A route that asks for what is not served is not served by half."""
    return any(rule.unsupported for rule in found)


def _by_route_config(
    bound: Iterable[attachment.BoundListener],
) -> dict[str, list[attachment.BoundListener]]:
    result: dict[str, list[attachment.BoundListener]] = {}
    for item in bound:
        if item.is_served:
            result.setdefault(item.route_config, []).append(item)
    return result


def _secrets(store: Store, bound: Iterable[attachment.BoundListener]) -> list[EnvoyResource]:
    """The certificates of the listeners that are served."""
    refs = dict.fromkeys(
        ref
        for item in bound
        if item.is_served and not isinstance(item.certificates, Unresolved)
        for ref in item.certificates
    )
    found = (store.get(Secret, ref.namespace, ref.name) for ref in refs)
    return [tls.secret_resource(item) for item in found if item is not None]


def _filters(
    attachments: Sequence[attachment.Attachment],
    served: Mapping[Ref, Sequence[rules.Rule]],
    policies: extensions.Extensions,
    pool_map: Mapping[Ref, ServedPool],
) -> list[envoy_listeners.HttpFilter]:
    """What the routes of a listener may switch on.

    First what answers or marks a request by itself (CORS, sessions), where a route asks for it;
    then policies' processors, then the pools'.
    """
    wanted = {
        name: (name, config)
        for item in attachments
        for rule in served[item.route.ref]
        for name, config in rule.listener_filters.items()
    }
    found: dict[str, envoy_listeners.HttpFilter] = dict(sorted(wanted.items()))
    for item in attachments:
        policy = policies.of(item.route.ref, item.listener.gateway.ref)
        for processor in policy.processors if policy is not None else ():
            found[processor.filter_name] = (processor.filter_name, processor.config)
    if _pickers(attachments, served, pool_map):
        found[names.POOL_FILTER] = (names.POOL_FILTER, pools.pool_filter())
    return list(found.values())


def _asks_own_picker(
    attachments: Sequence[attachment.Attachment],
    served: Mapping[Ref, Sequence[rules.Rule]],
    pool_map: Mapping[Ref, ServedPool],
) -> bool:
    return any(picker.is_own for picker in _pickers(attachments, served, pool_map))


def _pickers(
    attachments: Sequence[attachment.Attachment],
    served: Mapping[Ref, Sequence[rules.Rule]],
    pool_map: Mapping[Ref, ServedPool],
) -> list[pools.Picker]:
    """Who picks for the pools behind the routes of a listener."""
    return [
        picker
        for item in attachments
        for rule in served[item.route.ref]
        for destination in rule.pools
        if (picker := pool_map[destination.ref].picker) is not None
    ]


def _served_pools(
    attachments: Sequence[attachment.Attachment],
    served: Mapping[Ref, Sequence[rules.Rule]],
    resolver: Resolver,
) -> dict[Ref, ServedPool]:
    destinations: dict[Ref, Destination] = {}
    parents: dict[Ref, dict[Ref, None]] = {}
    for item in attachments:
        for rule in served[item.route.ref]:
            for destination in rule.pools:
                destinations[destination.ref] = destination
                gateway = item.listener.gateway.ref
                parents.setdefault(destination.ref, {})[gateway] = None
    return {
        ref: _served_pool(ref, destination, tuple(parents[ref]), resolver)
        for ref, destination in destinations.items()
    }


def _served_pool(
    ref: Ref, destination: Destination, parents: tuple[Ref, ...], resolver: Resolver
) -> ServedPool:
    pool = destination.pool
    if pool is None:
        raise ValueError(f"{ref} is not a pool")
    picker, problem = _picker(ref, pool, resolver)
    return ServedPool(ref, pool, destination, picker, problem, parents)


def _picker(
    ref: Ref, pool: InferencePool, resolver: Resolver
) -> tuple[pools.Picker | None, Unresolved | None]:
    """Who picks for a pool: the Service it names, or ours where none is named or none is there."""
    has_own = resolver.options.own_picker_socket is not None
    own = pools.Picker(names.OWN_PICKER_CLUSTER, is_own=True)
    reference = pool.spec.endpoint_picker_ref
    if reference is None:
        return (own if has_own else None), None
    namespace = pool.metadata.namespace
    target = ref_of(namespace, reference.group, reference.kind, None, reference.name)
    port = reference.port.number if reference.port is not None else None
    found = resolver.resolve(ref, target, port)
    if isinstance(found, Destination) and found.pool is None:
        return pools.Picker(names.pool_picker(ref), is_own=False, destination=found), None
    is_missing = isinstance(found, Unresolved) and found.reason == "BackendNotFound"
    if is_missing and has_own:
        return pools.Picker(names.OWN_PICKER_CLUSTER, is_own=True, is_provided=True), None
    message = found.message if isinstance(found, Unresolved) else f"{target} cannot pick"
    return None, Unresolved("InvalidExtensionRef", message)


def _pool_resources(served: Iterable[ServedPool], options: Options) -> list[EnvoyResource]:
    result: list[EnvoyResource] = []
    for item in served:
        result.extend(pools.pool_cluster(item.destination, item.pool))
        if item.picker is not None and item.picker.destination is not None:
            result.extend(pools.foreign_picker_cluster(item.ref, item.picker.destination))
    if result and options.own_picker_socket is not None:
        result.append(pools.own_picker_cluster(options.own_picker_socket))
    return result


def _patch(
    store: Store,
    config: configuration.Configuration,
    before: Snapshot,
    gateways: set[Ref],
) -> tuple[Snapshot, list[patch_policies.PatchOutcome]]:
    if not config.gateway.extension_apis.enable_envoy_patch_policy:
        return before, []
    resources = dict(before.resources)
    outcomes = [
        patch_policies.apply_policy(policy, resources)
        for policy in patch_policies.in_order(store.list(EnvoyPatchPolicy))
        if patch_policies.target_problem(policy) is None
        and patch_policies.target_of(policy) in gateways
    ]
    return Snapshot(resources), outcomes
