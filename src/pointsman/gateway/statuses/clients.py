"""ClientTrafficPolicies: what of each has no effect, and on which listeners."""

from __future__ import annotations

from collections.abc import Iterator

from pointsman.gateway.listeners import client_settings, tls
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.policies import clients
from pointsman.gateway.policies.verdicts import Remarks
from pointsman.gateway.routes.meetings import place_of
from pointsman.gateway.translate import Translation
from pointsman.resources.client_policies import ClientTrafficPolicy

SEVERAL = (
    "ClientTrafficPolicy is being applied to multiple http (non https) listeners ({names}) on the "
    "same port, which is not allowed"
)
"""Envoy Gateway's words."""


def remarks(policy: ClientTrafficPolicy, translation: Translation) -> Remarks:
    """What is told of a policy beside its targets."""
    policies = translation.scene.clients
    problem = policies.problems[policy.ref]
    if problem is not None:
        return Remarks(problem)
    wanted = [
        item
        for item in translation.listeners
        if (found := policies.targets.of_listener(place_of(item))) is not None
        and found.ref == policy.ref
    ]
    in_force = [item for item in wanted if _counts(policy, item, translation)]
    served = [item for item in wanted if item.is_served]
    if served and not in_force:
        names = ", ".join(name for item in served for name in _neighbours(item, translation))
        return Remarks(SEVERAL.format(names=names))
    return Remarks(warnings=tuple(_warnings(policy, served, in_force, translation)))


def _counts(policy: ClientTrafficPolicy, item: BoundListener, translation: Translation) -> bool:
    """The first listener of those that share a route configuration speaks for all."""
    sharing = translation.scene.sharing.get(item.route_config, ())
    if not item.is_served or not sharing:
        return False
    found = translation.scene.clients.of_listener(place_of(sharing[0]))
    return found is not None and found.policy == policy.ref


def _neighbours(item: BoundListener, translation: Translation) -> Iterator[str]:
    yield from (each.xds_name for each in translation.scene.sharing.get(item.route_config, ()))


def _warnings(
    policy: ClientTrafficPolicy,
    served: list[BoundListener],
    in_force: list[BoundListener],
    translation: Translation,
) -> Iterator[str]:
    spec = policy.spec
    ignored = list(clients.ignored(spec))
    if spec.tls is not None and not any(item.spec.protocol == tls.HTTPS for item in served):
        ignored.append("tls (no listener that it is for speaks HTTPS)")
    http10 = spec.http1.http10 if spec.http1 is not None else None
    if http10 is not None and http10.use_default_host:
        bare = [item.xds_name for item in in_force if not _has_name(item)]
        if bare:
            listed = ", ".join(bare)
            ignored.append(f"http1.http10.useDefaultHost (without a precise hostname: {listed})")
    if ignored:
        yield f"Fields that have no effect: {', '.join(ignored)}"
    silent = [item.xds_name for item in served if item not in in_force]
    if silent:
        yield (
            f"Has no effect on {', '.join(silent)}: another listener of the port was first, and "
            "says how its clients are spoken to"
        )
    of_port = client_settings.of_sockets(spec)
    later = [item.xds_name for item in in_force if not _is_first(policy, item, translation)]
    if of_port and later:
        yield (
            f"{', '.join(of_port)} have no effect on {', '.join(later)}: they are of a port, and "
            "its first listener has another policy"
        )


def _has_name(item: BoundListener) -> bool:
    return item.spec.hostname is not None and not item.spec.hostname.startswith("*")


def _is_first(policy: ClientTrafficPolicy, item: BoundListener, translation: Translation) -> bool:
    port = translation.ports.get(item.port_name)
    first = port.chains[0].client if port is not None else None
    return first is not None and first.policy == policy.ref
