"""Which patch or route it is that makes Envoy refuse a resource.

Envoy says which resource it refuses, not what in it the users' patches spoilt or which of its
routes is bad. So Envoy's validate mode is asked about the resource with more and more of them: the
first that it does not take is left out, until it takes the rest. Where it refuses the resource with
none of them, none is to blame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from pointsman.gateway import snapshot
from pointsman.gateway.patches.patch_policies import in_order, place_of
from pointsman.gateway.refusals import PatchId, Refused
from pointsman.gateway.routes.virtual_hosts import RouteConfigurations, route_configurations
from pointsman.gateway.snapshot import EnvoyResource, Key, Snapshot
from pointsman.gateway.translate import Translation, patched
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.store import Store
from pointsman.xds.dry_run import DryRunError, check

MAX_CULPRITS = 8
"""How many are told at a time; the next refusal tells of more."""

Suspect = PatchId | Ref


async def culprits(
    store: Store, found: Translation, key: Key, known: Refused
) -> dict[Suspect, str]:
    """What is to blame for Envoy's refusal of `key`, with Envoy's words.

    Empty where it is the fault of nothing that could be left out. What is in `known` is left out
    already.

    Raises:
        EnvoyNotFoundError: there is no Envoy to ask.
    """
    patches: list[Suspect] = [
        PatchId(policy.ref, position)
        for policy in in_order(store.list(EnvoyPatchPolicy))
        for position, patch in enumerate(policy.spec.json_patches)
        if place_of(patch) == key and PatchId(policy.ref, position) not in known
    ]

    async def without_patches(left_out: Collection[Suspect]) -> str | None:
        return await verdict(found.before_patches, {**known, **dict.fromkeys(left_out, "")})

    async def without_routes(left_out: Collection[Suspect]) -> str | None:
        return await verdict(_with_routes(found, key, left_out), known)

    async def verdict(before: Snapshot, refused: Refused) -> str | None:
        targets = found.scene.patch_targets
        tried, _ = patched(store, found.config, before, targets, refused)
        try:
            await check(around(tried, key))
        except DryRunError as error:
            return str(error)
        return None

    bad = await _guilty(patches, without_patches)
    if bad or key.type_url != snapshot.ROUTE_CONFIGURATION:
        return bad
    routes: list[Suspect] = [
        ref
        for ref, part in found.parts.items()
        if any(host.route_config == key.name for host in part.hosts)
    ]
    return await _guilty(routes, without_routes)


async def all_culprits(store: Store, found: Translation) -> dict[Suspect, str]:
    """What is to blame for Envoy's refusal of a whole translation.

    Raises:
        EnvoyNotFoundError: there is no Envoy to ask.
    """
    patched_keys = (
        place_of(patch)
        for policy in in_order(store.list(EnvoyPatchPolicy))
        for patch in policy.spec.json_patches
    )
    routes = (item.key for item in found.snapshot.of_type(snapshot.ROUTE_CONFIGURATION))
    bad: dict[Suspect, str] = {}
    for key in dict.fromkeys((*patched_keys, *routes)):
        bad.update(await culprits(store, found, key, bad))
    return bad


async def _guilty(
    suspects: Sequence[Suspect], verdict: Callable[[Collection[Suspect]], Awaitable[str | None]]
) -> dict[Suspect, str]:
    """The suspects without which `verdict` has nothing to say, with what it says of each."""
    if not suspects or await verdict(suspects) is not None:
        return {}
    bad: dict[Suspect, str] = {}
    while len(bad) < MAX_CULPRITS:
        message = await verdict(bad)
        if message is None:
            break
        left = [item for item in suspects if item not in bad]
        # The shortest beginning that is refused ends with one that is to blame.
        taken, refused = 0, len(left)
        while refused - taken > 1:
            middle = (taken + refused) // 2
            words = await verdict({*bad, *left[middle:]})
            if words is None:
                taken = middle
            else:
                refused, message = middle, words
        bad[left[refused - 1]] = message
    return bad


def _with_routes(found: Translation, key: Key, left_out: Collection[Suspect]) -> Snapshot:
    """What there is before patches, with the route configuration `key` without some routes."""
    parts = [part for ref, part in found.parts.items() if ref not in left_out]
    made = route_configurations(found.scene, parts, RouteConfigurations())
    others = (item for item in found.before_patches if item.key != key)
    return Snapshot.of((*others, made.resources[key.name]))


def around(found: Snapshot, key: Key) -> Snapshot:
    """A resource with what Envoy needs to judge it, and no more."""
    kept: list[EnvoyResource] = [*found.of_type(snapshot.SECRET)]
    if key.type_url in (snapshot.CLUSTER, snapshot.ENDPOINTS):
        kept += (
            item
            for kind in (snapshot.CLUSTER, snapshot.ENDPOINTS)
            for item in found.of_type(kind)
            if item.key.name == key.name
        )
        return Snapshot.of(kept)
    kept += (*found.of_type(snapshot.CLUSTER), *found.of_type(snapshot.ENDPOINTS))
    if key.type_url == snapshot.ROUTE_CONFIGURATION:
        # Envoy reads routes through a listener that names them.
        kept += (item for item in found.of_type(snapshot.LISTENER) if names(item, key.name))
    kept += (item for item in (found.get(key),) if item is not None)
    return Snapshot.of(kept)


def names(listener: EnvoyResource, route_configuration: str) -> bool:
    """Whether a listener takes its routes from that route configuration."""
    return route_configuration.encode() in listener.content
