"""Gateways and their listeners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pointsman.gateway import conditions, names, snapshot
from pointsman.gateway.backends.references import Unresolved
from pointsman.gateway.listeners import attachment
from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import Key
from pointsman.gateway.statuses.facts import (
    BIND_ERROR,
    EnvoyFacts,
    Status,
    is_true,
)
from pointsman.gateway.translate import Translation
from pointsman.resources.gateway_api import Gateway, GRPCRoute, HTTPRoute

SUPPORTED_KINDS = tuple((cls.KIND.group, cls.KIND.kind) for cls in (HTTPRoute, GRPCRoute))


def gateway_status(
    served: attachment.ServedGateway,
    translation: Translation,
    facts: EnvoyFacts,
    options: Options,
    attached: Mapping[str, int],
) -> Status:
    """A Gateway of ours, with its listeners; `attached` counts the routes of each of these."""
    gateway = served.gateway
    mine = translation.scene.listeners_of.get(gateway.ref, ())
    listeners = [_listener(item, facts, attached) for item in mine]
    is_valid = any(item.is_served for item in mine)
    accepted = conditions.GATEWAY_ACCEPTED
    if served.is_adopted:
        accepted = conditions.GATEWAY_ADOPTED.format(name=gateway.spec.gateway_class_name)
    status: Status = {
        "conditions": [
            conditions.accepted(gateway, accepted)
            if is_valid
            else conditions.not_accepted(
                gateway, "ListenersNotValid", conditions.GATEWAY_LISTENERS_INVALID
            ),
            _gateway_programmed(gateway, listeners, facts, options),
        ],
        "listeners": listeners,
    }
    if options.advertised_address:
        status["addresses"] = [{"type": "IPAddress", "value": options.advertised_address}]
    return status


def attached_routes(translation: Translation) -> Mapping[str, int]:
    """How many routes are attached to each listener, by its name."""
    return Counter(name for part in translation.parts.values() for name in part.listeners)


def _gateway_programmed(
    gateway: Gateway, listeners: Sequence[Status], facts: EnvoyFacts, options: Options
) -> Mapping[str, Any]:
    if not options.advertised_address:
        return conditions.not_programmed(
            gateway, "AddressNotAssigned", conditions.GATEWAY_NO_ADDRESS
        )
    if facts.connected == 0:
        return conditions.not_programmed(gateway, "NoResources", "Envoy replicas unavailable")
    if not any(is_true(item["conditions"], "Programmed") for item in listeners):
        return conditions.not_programmed(gateway, "Invalid", "No listener is programmed")
    message = conditions.GATEWAY_PROGRAMMED.format(ready=facts.connected, wanted=facts.wanted)
    return conditions.programmed(gateway, message)


def _listener(
    item: attachment.BoundListener, facts: EnvoyFacts, attached: Mapping[str, int]
) -> Status:
    gateway = item.gateway
    refused = next(
        (facts.refused[key] for key in _keys_of(item) if key in facts.refused),
        None,
    )
    if item.conflict is not None:
        reason, message = item.conflict
        found = [
            conditions.not_accepted(gateway, reason, message),
            conditions.not_programmed(gateway, "Invalid", message),
        ]
        if reason in ("HostnameConflict", "ProtocolConflict"):
            found.append(
                conditions.condition(gateway, "Conflicted", conditions.TRUE, reason, message)
            )
    elif isinstance(item.certificates, Unresolved):
        found = [
            conditions.accepted(gateway, conditions.LISTENER_ACCEPTED),
            conditions.not_programmed(gateway, "Invalid", item.certificates.message),
        ]
    elif refused is not None and BIND_ERROR in refused:
        found = [
            conditions.not_accepted(gateway, "PortUnavailable", refused),
            conditions.not_programmed(gateway, "Invalid", refused),
        ]
    else:
        found = [
            conditions.accepted(gateway, conditions.LISTENER_ACCEPTED),
            conditions.not_programmed(gateway, "Invalid", f"Envoy refused it: {refused}")
            if refused is not None
            else conditions.programmed(gateway, conditions.LISTENER_PROGRAMMED)
            if item.port_name in facts.listeners
            else conditions.not_programmed(gateway, "Pending", "Waiting for Envoy"),
        ]
    found.append(_listener_refs(item))
    return {
        "name": item.spec.name,
        "attachedRoutes": attached.get(item.xds_name, 0),
        "supportedKinds": [
            {"group": group, "kind": kind}
            for group, kind in SUPPORTED_KINDS
            if not _allowed_kinds(item) or (group, kind) in _allowed_kinds(item)
        ],
        "conditions": found,
    }


def _keys_of(item: attachment.BoundListener) -> list[Key]:
    """The resources that a listener lives by."""
    secrets = () if isinstance(item.certificates, Unresolved) else item.certificates
    return [
        Key(snapshot.LISTENER, item.port_name),
        Key(snapshot.ROUTE_CONFIGURATION, item.route_config),
        *(Key(snapshot.SECRET, names.secret(ref)) for ref in secrets),
    ]


def _listener_refs(item: attachment.BoundListener) -> dict[str, Any]:
    if isinstance(item.certificates, Unresolved):
        problem = item.certificates
        return conditions.refs_unresolved(item.gateway, problem.reason, problem.message)
    unknown = [kind for group, kind in _allowed_kinds(item) if (group, kind) not in SUPPORTED_KINDS]
    if unknown:
        message = f"Routes that cannot attach to a listener here: {', '.join(unknown)}"
        return conditions.refs_unresolved(item.gateway, "InvalidRouteKinds", message)
    return conditions.refs_resolved(item.gateway, conditions.LISTENER_REFS_RESOLVED)


def _allowed_kinds(item: attachment.BoundListener) -> list[tuple[str, str]]:
    """Group and kind of the routes that a listener names; none where it takes any."""
    return [(each.group, each.kind) for each in item.spec.allowed_routes.kinds]
