"""GatewayClasses, Gateways and the ListenerSets that these take in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pointsman.gateway import conditions, features
from pointsman.gateway.backends.members import is_address
from pointsman.gateway.backends.references import Unresolved
from pointsman.gateway.listeners.addresses import HOSTNAME, IP_ADDRESS
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.listeners.classes import ServedGateway, served_classes
from pointsman.gateway.listeners.client_trust import is_insecure
from pointsman.gateway.listeners.listener_sets import ServedSet, parent_of
from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import EnvoyFacts, Fleet, Status, is_true
from pointsman.gateway.statuses.listeners import Attached, listener_status
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.resources.gateway_api import Gateway, ListenerSet
from pointsman.store import Store


def class_statuses(store: Store, translation: Translation, options: Options) -> dict[Ref, Status]:
    """Our GatewayClasses."""
    problem = features.version_problem(store)
    supported = features.supported(store, options.is_alone)
    result = {}
    classes = served_classes(store, translation.config.gateway, options)
    for item, accepted in classes.values():
        version = conditions.condition(
            item,
            "SupportedVersion",
            conditions.TRUE if problem is None else conditions.FALSE,
            "SupportedVersion" if problem is None else "UnsupportedVersion",
            problem or conditions.CLASS_VERSION_SUPPORTED,
        )
        result[item.ref] = {
            "conditions": [accepted, version],
            "supportedFeatures": [{"name": name} for name in supported],
        }
    return result


def waiting_gateways(store: Store, translation: Translation, options: Options) -> dict[Ref, Status]:
    """The Gateways of classes of ours that are not accepted."""
    classes = served_classes(store, translation.config.gateway, options)
    result: dict[Ref, Status] = {}
    for gateway in store.list(Gateway):
        found = classes.get(gateway.spec.gateway_class_name)
        if found is not None and found[1]["status"] != conditions.TRUE:
            message = f"{found[0].ref} is not accepted"
            result[gateway.ref] = {
                "conditions": [
                    conditions.condition(gateway, kind, conditions.UNKNOWN, "Pending", message)
                    for kind in ("Accepted", "Programmed")
                ]
            }
    return result


def gateway_status(
    served: ServedGateway,
    translation: Translation,
    facts: EnvoyFacts,
    options: Options,
    attached: Attached,
) -> Status:
    """A Gateway of ours, with its listeners; `attached` counts the routes of each of these."""
    gateway = served.gateway
    mine = translation.scene.listeners_of.get(gateway.ref, ())
    listeners = [listener_status(item, attached, facts) for item in mine]
    found = [
        _accepted(served, mine, options),
        _programmed(served, listeners, facts, options),
    ]
    if is_insecure(gateway):
        message = "Clients are let in whatever certificate they show, or with none"
        found.append(
            conditions.condition(
                gateway,
                "InsecureFrontendValidationMode",
                conditions.TRUE,
                "ConfigurationChanged",
                message,
            )
        )
    shown = translation.scene.client_certificates.get(gateway.ref)
    if isinstance(shown, Unresolved):
        found.append(conditions.refs_unresolved(gateway, shown.reason, shown.message))
    elif shown is not None:
        found.append(conditions.refs_resolved(gateway, conditions.GATEWAY_REFS_RESOLVED))
    status: Status = {"conditions": found, "listeners": listeners}
    addresses = _addresses(served, facts, options) if served.problem is None else ()
    if addresses:
        status["addresses"] = [
            {"type": IP_ADDRESS if is_address(value) else HOSTNAME, "value": value}
            for value in addresses
        ]
    sets = [item for item in translation.scene.sets if item.served.gateway.ref == gateway.ref]
    if sets or gateway.spec.allowed_listeners is not None:
        status["attachedListenerSets"] = sum(_is_taken(item, translation) for item in sets)
    return status


def attached_routes(translation: Translation) -> Attached:
    """How many routes are attached to each listener, by its name."""
    return Counter(name for part in translation.parts.values() for name in part.listeners)


def set_statuses(
    store: Store,
    translation: Translation,
    facts: EnvoyFacts,
    options: Options,
    attached: Attached,
) -> dict[Ref, Status]:
    """Every ListenerSet of a Gateway of ours; on one machine also those of no Gateway at all."""
    result = {
        item.listener_set.ref: _set_status(item, translation, facts, attached)
        for item in translation.scene.sets
    }
    for item in store.list(ListenerSet):
        parent = parent_of(item)
        if item.ref not in result and options.is_alone and store.find(parent) is None:
            result[item.ref] = _refused_set(item, "ParentNotAccepted", f"{parent} not found")
    return result


def _set_status(
    item: ServedSet, translation: Translation, facts: EnvoyFacts, attached: Attached
) -> Status:
    subject = item.listener_set
    if item.refusal is not None:
        return _refused_set(subject, *item.refusal)
    mine = translation.scene.listeners_of.get(subject.ref, ())
    if not mine:
        return _refused_set(
            subject, "ParentNotAccepted", f"{item.served.gateway.ref} is not accepted"
        )
    listeners = [listener_status(each, attached, facts) for each in mine]
    invalid = [each.spec.name for each in mine if not each.is_served]
    if len(invalid) == len(mine):
        reason, message = "ListenersNotValid", conditions.SET_LISTENERS_INVALID
        return {**_refused_set(subject, reason, message), "listeners": listeners}
    accepted = conditions.accepted(subject, conditions.SET_ACCEPTED)
    if invalid:
        accepted = _with_invalid(accepted, invalid)
    programmed = (
        conditions.programmed(subject, conditions.SET_PROGRAMMED)
        if any(is_true(each["conditions"], "Programmed") for each in listeners)
        else conditions.not_programmed(subject, "Invalid", "No listener is programmed")
    )
    return {"conditions": [accepted, programmed], "listeners": listeners}


def _refused_set(subject: ListenerSet, reason: str, message: str) -> Status:
    return {
        "conditions": [
            conditions.not_accepted(subject, reason, message),
            conditions.not_programmed(subject, reason, message),
        ]
    }


def _is_taken(item: ServedSet, translation: Translation) -> bool:
    mine = translation.scene.listeners_of.get(item.listener_set.ref, ())
    return item.refusal is None and any(each.is_served for each in mine)


def _accepted(
    served: ServedGateway, mine: Sequence[BoundListener], options: Options
) -> Mapping[str, Any]:
    gateway = served.gateway
    if served.problem is not None:
        return conditions.not_accepted(gateway, *served.problem)
    invalid = [item.spec.name for item in mine if not item.is_served]
    if len(invalid) == len(mine) and served.binding.is_bound:
        return conditions.not_accepted(
            gateway, "ListenersNotValid", conditions.GATEWAY_LISTENERS_INVALID
        )
    message = conditions.GATEWAY_ACCEPTED
    if served.is_adopted:
        message = conditions.GATEWAY_ADOPTED.format(name=gateway.spec.gateway_class_name)
    infrastructure = gateway.spec.infrastructure
    asks = infrastructure is not None and (infrastructure.labels or infrastructure.annotations)
    if asks and options.is_alone:
        message += f"; {conditions.NO_INFRASTRUCTURE}"
    accepted = conditions.accepted(gateway, message)
    return _with_invalid(accepted, invalid) if invalid and served.binding.is_bound else accepted


def _with_invalid(accepted: dict[str, Any], invalid: Sequence[str]) -> dict[str, Any]:
    message = conditions.SOME_LISTENERS_INVALID.format(
        accepted=accepted["message"], names=", ".join(invalid)
    )
    return {**accepted, "reason": "ListenersNotValid", "message": message}


def _programmed(
    served: ServedGateway, listeners: Sequence[Status], facts: EnvoyFacts, options: Options
) -> Mapping[str, Any]:
    gateway = served.gateway
    if served.problem is not None:
        return conditions.not_programmed(gateway, "Invalid", served.problem[1])
    if served.binding.unusable is not None:
        return conditions.not_programmed(gateway, "AddressNotUsable", served.binding.unusable)
    fleet = facts.fleets.get(gateway.ref, Fleet(facts.connected, facts.wanted))
    if fleet.problem is not None:
        return conditions.not_programmed(gateway, *fleet.problem)
    addresses = _addresses(served, facts, options)
    wanted = [item.value for item in gateway.spec.addresses if item.value is not None]
    if wanted and gateway.ref in facts.fleets and not set(wanted) & set(addresses):
        message = f"The Gateway's Service does not have {', '.join(wanted)}"
        return conditions.not_programmed(gateway, "AddressNotUsable", message)
    if not addresses:
        return conditions.not_programmed(
            gateway, "AddressNotAssigned", conditions.GATEWAY_NO_ADDRESS
        )
    if fleet.ready == 0:
        return conditions.not_programmed(gateway, "NoResources", "Envoy replicas unavailable")
    if not any(is_true(item["conditions"], "Programmed") for item in listeners):
        return conditions.not_programmed(gateway, _why(listeners), "No listener is programmed")
    message = conditions.GATEWAY_PROGRAMMED.format(ready=fleet.ready, wanted=fleet.wanted)
    return conditions.programmed(gateway, message)


def _addresses(served: ServedGateway, facts: EnvoyFacts, options: Options) -> tuple[str, ...]:
    """Where clients reach a Gateway."""
    fleet = facts.fleets.get(served.gateway.ref)
    return fleet.addresses if fleet is not None else served.binding.advertised(options)


def _why(listeners: Sequence[Status]) -> str:
    """`AddressNotUsable` where that is what keeps all listeners away."""
    reasons = {
        found["reason"]
        for item in listeners
        for found in item["conditions"]
        if found["type"] == "Programmed"
    }
    return "AddressNotUsable" if reasons == {"AddressNotUsable"} else "Invalid"
