"""The whole translation: objects in, Envoy's resources and what is so about each object out.

    Gateways, policies ─▶ scene ─┐
    routes ──────────▶ parts ────┼─▶ listeners, route configurations, clusters, endpoints ─▶ patches
    Services, pools ─▶ resolver ─┘

Nothing here reads a clock, a socket or a global, and one object's fault stays its own: it becomes
part of the outcome, from which `statuses` makes conditions.

A translation is also what the next one starts from: what was made from objects that are still the
same is taken over (see `scene`, `routes.parts`, `routes.virtual_hosts`), and is the same object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog as AccessLogMessage

from pointsman.gateway import configuration, fleets, names
from pointsman.gateway.backends import pools
from pointsman.gateway.backends.references import (
    Address,
    Destination,
    Picker,
    Resolver,
    Unresolved,
)
from pointsman.gateway.listeners import attachment, envoy_listeners, tls
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.listeners.classes import ServedGateway
from pointsman.gateway.listeners.envoy_listeners import Chain, HttpFilter
from pointsman.gateway.listeners.filter_order import in_order
from pointsman.gateway.options import Options
from pointsman.gateway.patches import patch_policies
from pointsman.gateway.policies import extensions
from pointsman.gateway.proxies import access_logs_of, says_logs
from pointsman.gateway.refusals import Refused
from pointsman.gateway.routes.meetings import place_of
from pointsman.gateway.routes.parts import RoutePart, faulty_part, leads_where_it_led, part_of
from pointsman.gateway.routes.virtual_hosts import RouteConfigurations, route_configurations
from pointsman.gateway.scene import Scene, scene
from pointsman.gateway.snapshot import EnvoyResource, Snapshot
from pointsman.resources.base import Ref
from pointsman.resources.core import Secret
from pointsman.resources.envoy_gateway import EnvoyExtensionPolicy, EnvoyPatchPolicy
from pointsman.resources.gateway_api import Route
from pointsman.resources.traffic_policies import TrafficPolicySpec
from pointsman.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class ServedPool:
    """A pool that a route leads to."""

    destination: Destination
    parents: tuple[Ref, ...]
    """The Gateways through which it is reached."""
    servers: tuple[Address, ...]
    """Its ready model servers."""
    resources: tuple[EnvoyResource, ...]
    policy: TrafficPolicySpec | None = None
    """What counts for its model servers: what the oldest route says that says something."""

    @property
    def asks_own_picker(self) -> bool:
        """Our own picker picks for it."""
        picker = self.destination.picker
        return isinstance(picker, Picker) and picker.is_own

    def is_like(self, other: ServedPool) -> bool:
        """Nothing has changed from one to the other."""
        return (
            self.destination is other.destination
            and self.servers is other.servers
            and self.policy == other.policy
            and self.parents == other.parents
        )


@dataclass(frozen=True, slots=True, eq=False)
class Port:
    """A port of Envoy's: the chains of its listeners, and the listeners, one for each IP."""

    chains: tuple[Chain, ...]
    resources: tuple[EnvoyResource, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Translation:
    """The resources, and all that was found out about the objects on the way."""

    snapshot: Snapshot
    """What is served, to all Envoys together."""
    before_patches: Snapshot
    fleets: Mapping[str, Snapshot]
    """What is served to each fleet, by its name."""
    config: configuration.Configuration
    resolver: Resolver
    scene: Scene
    parts: Mapping[Ref, RoutePart]
    """By route, older ones first."""
    extensions: extensions.Extensions
    pools: Mapping[Ref, ServedPool] = field(default_factory=dict)
    patches: tuple[patch_policies.PatchOutcome, ...] = ()
    ports: Mapping[str, Port] = field(default_factory=dict)
    secrets: tuple[EnvoyResource, ...] = ()
    route_configurations: RouteConfigurations = field(default_factory=RouteConfigurations)
    policies_version: int = 0

    @property
    def gateways(self) -> tuple[ServedGateway, ...]:
        """The Gateways of our classes."""
        return self.scene.gateways

    @property
    def listeners(self) -> tuple[BoundListener, ...]:
        """All listeners of these Gateways."""
        return self.scene.listeners

    @property
    def parents(self) -> Iterator[attachment.RouteParent]:
        """What became of each parentRef of each route that names one of these Gateways."""
        return (parent for part in self.parts.values() for parent in part.parents)


def translate(
    store: Store,
    options: Options,
    previous: Translation | None = None,
    refused: Refused | None = None,
) -> Translation:
    """Translate the objects as they stand.

    `previous` is an earlier translation of the same store, `refused` what Envoy is known to refuse
    of users' patches and routes.
    """
    config = configuration.read(store, previous.config if previous is not None else None)
    resolver = (
        previous.resolver.following(config.gateway, options)
        if previous is not None
        else Resolver(store, config.gateway, options)
    )
    policies = _policies(resolver, previous)
    before = previous.scene if previous is not None else None
    surroundings = scene(store, config, options, resolver, policies, before)
    # What was made with the scene stands or falls with it.
    kept = previous if previous is not None and previous.scene is surroundings else None
    parts = _parts(store, surroundings, resolver, kept, refused or {})
    pool_map = _served_pools(parts.values(), resolver, previous)
    configurations = _configurations(surroundings, parts, kept)
    ports = _ports(surroundings, parts, policies, pool_map, options, kept)
    secrets = kept.secrets if kept is not None else tuple(_secrets(store, surroundings))
    made = Snapshot.of(
        resource
        for group in (
            configurations.resources.values(),
            (item for port in ports.values() for item in port.resources),
            secrets,
            *(part.clusters for part in parts.values()),
            *(processor.resources for item in policies.items for processor in item.processors),
            *(item.resources for item in pool_map.values()),
            _own_picker(pool_map, options),
        )
        for resource in group
    )
    if options.is_alone:
        served, outcomes = patched(store, config, made, surroundings.patch_targets, refused)
        divided = {names.SHARED_FLEET: served}
    else:
        owned = _owned(ports, pool_map)
        of_routes = configurations.resources
        pieces = fleets.divided(surroundings, parts.values(), policies, of_routes, secrets, owned)
        divided, outcomes = _patched_each(store, config, pieces, refused)
        served = Snapshot.of((*made, *(item for part in divided.values() for item in part)))
    return Translation(
        snapshot=served,
        before_patches=made,
        fleets=divided,
        config=config,
        resolver=resolver,
        scene=surroundings,
        parts=parts,
        extensions=policies,
        pools=pool_map,
        patches=tuple(outcomes),
        ports=ports,
        secrets=secrets,
        route_configurations=configurations,
        policies_version=store.kind_version(EnvoyExtensionPolicy),
    )


def _configurations(
    surroundings: Scene, parts: Mapping[Ref, RoutePart], kept: Translation | None
) -> RouteConfigurations:
    if kept is None:
        return route_configurations(surroundings, parts.values(), RouteConfigurations())
    if kept.parts is parts:
        return kept.route_configurations
    return route_configurations(surroundings, parts.values(), kept.route_configurations)


def _policies(resolver: Resolver, previous: Translation | None) -> extensions.Extensions:
    version = resolver.store.kind_version(EnvoyExtensionPolicy)
    if (
        previous is not None
        and previous.resolver is resolver
        and previous.policies_version == version
    ):
        return previous.extensions
    return extensions.translate(resolver)


def _parts(
    store: Store,
    surroundings: Scene,
    resolver: Resolver,
    kept: Translation | None,
    refused: Refused,
) -> Mapping[Ref, RoutePart]:
    """The part of every route that names one of our Gateways, older routes first.

    The same object as that of `kept`, where it has the same parts.
    """
    known = kept.parts if kept is not None else {}
    all_lead_there = kept is not None and kept.resolver is resolver
    found = []
    made = 0
    for ref, route, version in attachment.held_routes(store):
        part = known.get(ref)
        if (
            part is None
            or part.version != version
            or part.refused != refused.get(ref)
            or not (all_lead_there or leads_where_it_led(part, resolver))
        ):
            part = _part(route, version, surroundings, resolver, refused.get(ref))
            made += 1
        found.append(part)
    if kept is not None and not made and len(found) == len(known):
        return known
    found.sort(key=attrgetter("age_key"))
    return {part.ref: part for part in found}


def _part(
    route: Route, version: int, surroundings: Scene, resolver: Resolver, refused: str | None
) -> RoutePart:
    try:
        return part_of(route, version, surroundings, resolver, refused)
    except Exception as error:
        # A fault of ours with one route must not keep all the others from changing.
        return faulty_part(route, version, surroundings, refused, error)


def _served_pools(
    parts: Iterable[RoutePart],
    resolver: Resolver,
    previous: Translation | None,
) -> dict[Ref, ServedPool]:
    destinations: dict[Ref, Destination] = {}
    parents: dict[Ref, dict[Ref, None]] = {}
    policies: dict[Ref, TrafficPolicySpec] = {}
    for part in parts:
        for ref, policy in part.pool_policies.items():
            policies.setdefault(ref, policy)
        for destination in part.pools:
            destinations[destination.ref] = destination
            known = parents.setdefault(destination.ref, {})
            known.update(dict.fromkeys(part.gateways))
    before = previous.pools if previous is not None else {}
    result = {}
    for ref, destination in destinations.items():
        old = before.get(ref)
        counts = policies.get(ref)
        servers = resolver.servers(destination)
        is_as_before = (
            old is not None
            and old.destination is destination
            and old.servers is servers
            and old.policy == counts
        )
        resources = (
            old.resources
            if old is not None and is_as_before
            else tuple(_pool_resources(destination, servers, counts))
        )
        made = ServedPool(destination, tuple(parents[ref]), servers, resources, counts)
        result[ref] = old if old is not None and old.is_like(made) else made
    return result


def _pool_resources(
    destination: Destination, servers: tuple[Address, ...], policy: TrafficPolicySpec | None
) -> Iterator[EnvoyResource]:
    if destination.pool is not None:
        yield from pools.pool_cluster(destination, destination.pool, servers, policy)
    picker = destination.picker
    if isinstance(picker, Picker) and picker.destination is not None:
        yield from pools.picker_cluster(destination.ref, picker, picker.destination)


def _own_picker(pool_map: Mapping[Ref, ServedPool], options: Options) -> list[EnvoyResource]:
    if not pool_map or options.own_picker_socket is None:
        return []
    return [pools.own_picker_cluster(options.own_picker_socket)]


def _secrets(store: Store, surroundings: Scene) -> Iterator[EnvoyResource]:
    """The certificates of the listeners that are served, and what Gateways show to backends."""
    refs = dict.fromkeys(
        ref
        for item in surroundings.listeners
        if item.is_served and not isinstance(item.certificates, Unresolved)
        for ref in item.certificates
    )
    shown = surroundings.client_certificates.values()
    refs |= dict.fromkeys(item for item in shown if not isinstance(item, Unresolved))
    found = (store.get(Secret, ref.namespace, ref.name) for ref in refs)
    return (tls.secret_resource(item) for item in found if item is not None)


def _ports(
    surroundings: Scene,
    parts: Mapping[Ref, RoutePart],
    policies: extensions.Extensions,
    pool_map: Mapping[Ref, ServedPool],
    options: Options,
    kept: Translation | None,
) -> Mapping[str, Port]:
    """Envoy's listeners, by name."""
    if (
        kept is not None
        and kept.parts is parts
        and (kept.extensions is policies or not (kept.extensions.items or policies.items))
    ):
        return kept.ports
    needs = _needs(surroundings, parts.values(), policies)
    chains: dict[str, list[Chain]] = {}
    for name, sharing in surroundings.sharing.items():
        need = needs[name]
        client = surroundings.clients.of_listener(place_of(sharing[0]))
        proxy = surroundings.proxies.of_gateway.get(sharing[0].gateway.ref)
        spec = proxy.spec if proxy is not None else None
        chain = Chain(
            tuple(sharing),
            tuple(in_order([*need.filters()], spec.filter_order if spec is not None else ())),
            tuple(need.logs.values()),
            client,
            access_logs_of(spec, options.access_logs),
            proxy.ref if proxy is not None and says_logs(proxy.spec) else None,
            need.leads_to_pool,
            need.asks_foreign_picker and not need.logs and not need.processors,
        )
        chains.setdefault(sharing[0].port_name, []).append(chain)
    before = kept.ports if kept is not None else {}
    result = {}
    for port_name, sharing_port in chains.items():
        known = before.get(port_name)
        if known is not None and known.chains == tuple(sharing_port):
            result[port_name] = known
        else:
            sockets = sharing_port[0].bound[0].sockets
            made = (
                envoy_listeners.envoy_listener(name, host, sharing_port, options)
                for host, name in sockets.items()
            )
            result[port_name] = Port(tuple(sharing_port), tuple(made))
    return result


@dataclass(slots=True)
class _Needs:
    """What the routes of a route configuration may switch on."""

    own: dict[str, HttpFilter] = field(default_factory=dict)
    """What answers or marks a request by itself: CORS, sessions."""
    processors: dict[str, HttpFilter] = field(default_factory=dict)
    leads_to_pool: bool = False
    asks_picker: bool = False
    asks_foreign_picker: bool = False
    logs: dict[str, AccessLogMessage] = field(default_factory=dict)
    """By which our pickers are told how requests went, by the cluster of each."""

    def filters(self) -> Iterator[HttpFilter]:
        """In the order in which they stand before the router."""
        yield from (item for _, item in sorted(self.own.items()))
        yield from self.processors.values()
        if self.asks_picker:
            yield (names.POOL_FILTER, pools.pool_filter())


def _needs(
    surroundings: Scene, parts: Iterable[RoutePart], policies: extensions.Extensions
) -> dict[str, _Needs]:
    result = {name: _Needs() for name in surroundings.sharing}
    has_policies = bool(policies.items)
    for part in parts:
        if not (has_policies or part.pools or part.filters):
            continue
        for host in part.hosts:
            need = result[host.route_config]
            for name, config in part.filters.items():
                need.own[name] = (name, config)
            for name in part.processors.get(host.route_config, ()):
                need.processors[name] = (name, policies.filters[name])
            for destination in part.pools:
                need.leads_to_pool = True
                picker = destination.picker
                if not isinstance(picker, Picker):
                    continue
                need.asks_picker = True
                if not picker.is_pointsman:
                    need.asks_foreign_picker = True
                elif picker.cluster not in need.logs:
                    need.logs[picker.cluster] = pools.pick_log(picker, destination.ref)
    return result


def _owned(ports: Mapping[str, Port], pool_map: Mapping[Ref, ServedPool]) -> Iterator[fleets.Owned]:
    """Whose the listeners and the pools are."""
    for port in ports.values():
        yield port.chains[0].bound[0].gateway.ref, port.resources
    for pool in pool_map.values():
        for gateway in pool.parents:
            yield gateway, pool.resources


def _patched_each(
    store: Store,
    config: configuration.Configuration,
    pieces: Mapping[Ref, Snapshot],
    refused: Refused | None,
) -> tuple[dict[str, Snapshot], list[patch_policies.PatchOutcome]]:
    """What each fleet gets, with the patches of the policies that target its Gateway."""
    result = {}
    outcomes = []
    for gateway, piece in pieces.items():
        found, of_gateway = patched(store, config, piece, frozenset({gateway}), refused)
        result[names.fleet(gateway)] = found
        outcomes += of_gateway
    return result, outcomes


def patched(
    store: Store,
    config: configuration.Configuration,
    before: Snapshot,
    targets: frozenset[Ref],
    refused: Refused | None = None,
) -> tuple[Snapshot, list[patch_policies.PatchOutcome]]:
    """A snapshot with the patches of all policies that target one of `targets`, in order."""
    if not config.gateway.extension_apis.enable_envoy_patch_policy:
        return before, []
    resources = {type_url: dict(items) for type_url, items in before.types.items()}
    outcomes = [
        patch_policies.apply_policy(policy, resources, refused)
        for policy in patch_policies.in_order(store.list(EnvoyPatchPolicy))
        if patch_policies.target_of(policy) in targets
    ]
    return Snapshot(resources), outcomes
