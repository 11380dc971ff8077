"""Listeners, whether a Gateway or a ListenerSet has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pointsman.gateway import conditions, names, snapshot
from pointsman.gateway.backends.references import Unresolved
from pointsman.gateway.listeners.binding import CONFLICTS, PROTOCOLS, BoundListener
from pointsman.gateway.listeners.client_trust import ClientTrust
from pointsman.gateway.snapshot import Key
from pointsman.gateway.statuses.facts import BIND_ERROR, EnvoyFacts, Status
from pointsman.resources.gateway_api import GRPCRoute, HTTPRoute

SUPPORTED_KINDS = tuple((cls.KIND.group, cls.KIND.kind) for cls in (HTTPRoute, GRPCRoute))
"""What may attach to a listener that speaks HTTP, with TLS or without."""

NOT_OURS = "Cannot assign requested address"
"""In Envoy's words: the machine does not have the address."""

Attached = Mapping[str, int]
"""How many routes are served on each listener, by the listener's name in Envoy."""


def listener_status(item: BoundListener, attached: Attached, facts: EnvoyFacts) -> Status:
    """The entry of a listener in the status of its owner."""
    found = [*_accepted_and_programmed(item, facts), _refs(item)]
    found += _conflicted(item)
    if item.overlaps and item.is_served:
        message = (
            f"Hostname {item.hostname} meets that of {', '.join(item.overlaps)}; a request for a "
            "host of another listener is answered 421"
        )
        found.append(
            conditions.condition(
                item.owner, "OverlappingTLSConfig", conditions.TRUE, "OverlappingHostnames", message
            )
        )
    return {
        "name": item.spec.name,
        "attachedRoutes": attached.get(item.xds_name, 0),
        "supportedKinds": [
            {"group": group, "kind": kind}
            for group, kind in _supported_kinds(item)
            if not _allowed_kinds(item) or (group, kind) in _allowed_kinds(item)
        ],
        "conditions": found,
    }


def _accepted_and_programmed(item: BoundListener, facts: EnvoyFacts) -> list[dict[str, Any]]:
    owner = item.owner
    if item.conflict is not None:
        reason, message = item.conflict
        programmed = reason if reason in CONFLICTS else "Invalid"
        return [
            conditions.not_accepted(owner, reason, message),
            conditions.not_programmed(owner, programmed, message),
        ]
    accepted = conditions.accepted(owner, _accepted_message(item))
    if isinstance(item.certificates, Unresolved):
        return [accepted, conditions.not_programmed(owner, "Invalid", item.certificates.message)]
    refused = next((facts.refused[key] for key in _keys_of(item) if key in facts.refused), None)
    if refused is not None and NOT_OURS in refused:
        return [accepted, conditions.not_programmed(owner, "AddressNotUsable", refused)]
    if refused is not None and BIND_ERROR in refused:
        return [
            conditions.not_accepted(owner, "PortUnavailable", refused),
            conditions.not_programmed(owner, "Invalid", refused),
        ]
    if refused is not None:
        message = f"Envoy refused it: {refused}"
        return [accepted, conditions.not_programmed(owner, "Invalid", message)]
    if item.is_bound_in(facts.listeners):
        return [accepted, conditions.programmed(owner, conditions.LISTENER_PROGRAMMED)]
    return [accepted, conditions.not_programmed(owner, "Pending", "Waiting for Envoy")]


def _accepted_message(item: BoundListener) -> str:
    options = item.spec.tls.options if item.spec.tls is not None else {}
    if not options:
        return conditions.LISTENER_ACCEPTED
    return f"{conditions.LISTENER_ACCEPTED}; tls.options have no effect: {', '.join(options)}"


def _conflicted(item: BoundListener) -> list[dict[str, Any]]:
    reason, message = item.conflict if item.conflict is not None else ("", "")
    if reason in CONFLICTS:
        return [
            conditions.condition(item.owner, "Conflicted", conditions.TRUE, reason, message),
        ]
    return [
        conditions.condition(
            item.owner, "Conflicted", conditions.FALSE, "NoConflicts", conditions.LISTENER_ALONE
        )
    ]


def _refs(item: BoundListener) -> dict[str, Any]:
    trust = item.trust.problem if isinstance(item.trust, ClientTrust) else item.trust
    for problem in (item.certificates, trust):
        if isinstance(problem, Unresolved):
            return conditions.refs_unresolved(item.owner, problem.reason, problem.message)
    supported = _supported_kinds(item)
    unknown = [kind for group, kind in _allowed_kinds(item) if (group, kind) not in supported]
    if unknown:
        message = f"Routes that cannot attach to a listener here: {', '.join(unknown)}"
        return conditions.refs_unresolved(item.owner, "InvalidRouteKinds", message)
    return conditions.refs_resolved(item.owner, conditions.LISTENER_REFS_RESOLVED)


def _supported_kinds(item: BoundListener) -> Sequence[tuple[str, str]]:
    return SUPPORTED_KINDS if item.spec.protocol in PROTOCOLS else ()


def _allowed_kinds(item: BoundListener) -> list[tuple[str, str]]:
    """Group and kind of the routes that a listener names; none where it takes any."""
    return [(each.group, each.kind) for each in item.spec.allowed_routes.kinds]


def _keys_of(item: BoundListener) -> list[Key]:
    """The resources that a listener lives by."""
    secrets = () if isinstance(item.certificates, Unresolved) else item.certificates
    return [
        *(Key(snapshot.LISTENER, name) for name in item.sockets.values()),
        Key(snapshot.ROUTE_CONFIGURATION, item.route_config),
        *(Key(snapshot.SECRET, names.secret(ref)) for ref in secrets),
    ]
