"""Which patch it is that makes Envoy refuse a resource.

Envoy says which resource it refuses, not which of the users' patches spoilt it. So Envoy's validate
mode is asked about the resource with more and more of its patches: the first that it does not take
is left out, until it takes the rest. Where it refuses the resource without any patch, no patch is
to blame.
"""

from __future__ import annotations

from collections.abc import Iterable

from pointsman.gateway import snapshot
from pointsman.gateway.patches.patch_policies import PatchId, Refused, in_order, place_of
from pointsman.gateway.snapshot import EnvoyResource, Key, Snapshot
from pointsman.gateway.translate import Translation, patched
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.store import Store
from pointsman.xds.dry_run import DryRunError, check

MAX_CULPRITS = 8
"""Patches of a resource that are told one by one; where more are bad, all are left out."""


async def culprits(
    store: Store, found: Translation, key: Key, known: Refused
) -> dict[PatchId, str]:
    """The patches that are to blame for Envoy's refusal of `key`, with Envoy's words.

    Empty where it is not a patch's fault. Patches in `known` are left out already.

    Raises:
        EnvoyNotFoundError: there is no Envoy to ask.
    """
    suspects = [
        PatchId(policy.ref, index)
        for policy in in_order(store.list(EnvoyPatchPolicy))
        for index, patch in enumerate(policy.spec.json_patches)
        if place_of(patch) == key and PatchId(policy.ref, index) not in known
    ]
    trial = _Trial(store, found, key, known)
    if not suspects or await trial.verdict(suspects) is not None:
        return {}
    bad: dict[PatchId, str] = {}
    while len(bad) < MAX_CULPRITS:
        left = [item for item in suspects if item not in bad]
        message = await trial.verdict(bad)
        if message is None:
            return bad
        # The shortest beginning that is refused ends with a patch that is to blame.
        taken, refused = 0, len(left)
        while refused - taken > 1:
            middle = (taken + refused) // 2
            words = await trial.verdict([*bad, *left[middle:]])
            if words is None:
                taken = middle
            else:
                refused, message = middle, words
        bad[left[refused - 1]] = message
    message = next(iter(bad.values()))
    return {item: bad.get(item, message) for item in suspects}


class _Trial:
    """Asks Envoy about one resource and what it needs, with some patches left out."""

    def __init__(self, store: Store, found: Translation, key: Key, known: Refused) -> None:
        self._store = store
        self._found = found
        self._key = key
        self._known = known

    async def verdict(self, left_out: Iterable[PatchId]) -> str | None:
        """Envoy's words, or None where it takes the resource."""
        found = self._found
        refused = {**self._known, **dict.fromkeys(left_out, "")}
        targets = found.scene.patch_targets
        tried, _ = patched(self._store, found.config, found.before_patches, targets, refused)
        try:
            await check(around(tried, self._key))
        except DryRunError as error:
            return str(error)
        return None


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
