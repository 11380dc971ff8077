"""What tells rules, backends and mirrors apart in the names of generated resources.

A name that counts positions changes its meaning when a rule is inserted before it: for a moment
requests would go to the servers of another rule. So a rule is told apart by the name that its user
gave it, or else by what it matches, a backend by what it is. Only where an
EnvoyPatchPolicy names a route's resources are they counted as Envoy Gateway counts them, because
users' patches are written for that.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator

from pointsman.gateway.routes.matches import Match
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import EnvoyPatchPolicy
from pointsman.resources.gateway_api import Route

DIGEST_BYTES = 4
_COUNTED = re.compile(r"\b((?:httproute|grpcroute)/[a-z0-9.-]+/[a-z0-9.-]+)/rule/\d")


def counted_routes(policies: Iterable[EnvoyPatchPolicy]) -> frozenset[str]:
    """The routes whose resources some patch names by position, as `httproute/NAMESPACE/NAME`."""
    return frozenset(
        name
        for policy in policies
        for patch in policy.spec.json_patches
        for name in _COUNTED.findall(json.dumps(patch.to_dict()))
    )


def route_name(route: Route) -> str:
    """By which `counted_routes` knows a route."""
    meta = route.metadata
    return f"{route.KIND.kind.lower()}/{meta.namespace}/{meta.name}"


def rule_label(name: str | None, matches: Iterable[Match]) -> str:
    """The label of a rule: its name, or a digest of its matches."""
    if name is not None:
        return name
    return _digest(*(match.envoy.SerializeToString(deterministic=True) for match in matches))


def target_label(target: Ref, port: int | None) -> str:
    """The label of a backend or mirror."""
    return _digest(repr((*target, port)).encode())


def distinct(labels: Iterable[str]) -> Iterator[str]:
    """The labels, those that come again with a number.

    >>> list(distinct(["a", "b", "a", "a"]))
    ['a', 'b', 'a~2', 'a~3']
    """
    seen: dict[str, int] = {}
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        yield label if seen[label] == 1 else f"{label}~{seen[label]}"


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.hexdigest()
