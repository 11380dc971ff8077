"""The conditions that a translation gives, and their texts.

A condition here is a plain mapping without its time: whoever writes it back adds the time, and
keeps the old one where nothing changed. Types and reasons are those of the Gateway API, the
inference extension and Envoy Gateway v1.3; users search for the texts, so those are theirs too
where they have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pointsman.resources.base import Resource

Condition = Mapping[str, Any]

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"

CLASS_ACCEPTED = "Valid GatewayClass"
CLASS_VERSION_SUPPORTED = "The Gateway API is installed in a version that is supported"
SET_ACCEPTED = "The listeners have been added to the Gateway"
SET_PROGRAMMED = "The listeners have been sent to the data plane"
SET_LISTENERS_INVALID = "No listener of the ListenerSet is valid"
SOME_LISTENERS_INVALID = "{accepted}; listeners that are not valid: {names}"
BACKEND_TLS_REFS_RESOLVED = "All certificate authorities have been read"
GATEWAY_ACCEPTED = "The Gateway has been scheduled by Pointsman"
GATEWAY_ADOPTED = (
    'The Gateway has been scheduled by Pointsman; no GatewayClass "{name}" is defined, so the '
    "class was adopted on this machine"
)
GATEWAY_PROGRAMMED = "Address assigned to the Gateway, {ready}/{wanted} envoy replicas available"
NO_INFRASTRUCTURE = (
    "labels and annotations of spec.infrastructure have no effect on one machine, where nothing is "
    "made for a Gateway"
)
GATEWAY_REFS_RESOLVED = (
    "The client certificate has been read; it is shown to backends of routes whose Gateways all "
    "have the same"
)
GATEWAY_NO_ADDRESS = "No addresses have been assigned to the Gateway"
GATEWAY_LISTENERS_INVALID = "No listener of the Gateway is valid"
LISTENER_PROGRAMMED = "Sending translated listener configuration to the data plane"
LISTENER_ACCEPTED = "Listener has been successfully translated"
LISTENER_ALONE = "No other listener is in its way"
LISTENER_REFS_RESOLVED = "Listener references have been resolved"
ROUTE_ACCEPTED = "Route is accepted"
ROUTE_FAULT = "A fault in Pointsman: {error}. The log has more; please report it"
ROUTE_REFS_RESOLVED = "Resolved all the Object references for the Route"
ROUTE_NO_HOSTNAMES = (
    "There were no hostname intersections between the HTTPRoute and this parent ref's Listener(s)."
)
ROUTE_NO_LISTENERS = "Route is accepted; there are no ready listeners for this parent ref"
POLICY_ACCEPTED = "Policy has been accepted."
PATCHES_PROGRAMMED = "Patches have been successfully applied."
PATCHES_DISABLED = "EnvoyPatchPolicy is disabled in the EnvoyGateway configuration"
PROXY_ACCEPTED = "The EnvoyProxy has been accepted"
BACKEND_ACCEPTED = "The Backend was accepted"
BACKEND_DISABLED = (
    "The Backend was not accepted since Backend is not enabled in Envoy Gateway Config"
)
POLICY_PICKER_PROVIDED = (
    "Policy has been accepted. Service {names} is not defined; Pointsman provides the endpoint "
    "picker on this machine"
)
POOL_ACCEPTED = "The InferencePool is served by the Gateway"
POOL_PICKER_MISSING = (
    "The pool names no endpointPickerRef, and this gateway has no endpoint picker of its own"
)
POOL_PICKER_RESOLVED = "The endpoint picker has been resolved"
POOL_NO_REFS = "The pool refers to nothing"
POOL_PICKER_PROVIDED = (
    "Service {name} is not defined; Pointsman provides the endpoint picker on this machine"
)
POOL_PICKER_MADE = "Pointsman provides the endpoint picker: Deployment and Service {name}"
MODEL_ACCEPTED = "The model is served by the pool"
POOL_MEMBER_ACCEPTED = "The pool takes it into account"


def condition(
    subject: Resource, kind: str, status: str, reason: str, message: str
) -> dict[str, Any]:
    """One condition about `subject` as it stands in this generation."""
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": subject.metadata.generation,
    }


def accepted(subject: Resource, message: str) -> dict[str, Any]:
    """Accepted=True."""
    return condition(subject, "Accepted", TRUE, "Accepted", message)


def not_accepted(subject: Resource, reason: str, message: str) -> dict[str, Any]:
    """Accepted=False for a reason."""
    return condition(subject, "Accepted", FALSE, reason, message)


def programmed(subject: Resource, message: str) -> dict[str, Any]:
    """Programmed=True."""
    return condition(subject, "Programmed", TRUE, "Programmed", message)


def not_programmed(subject: Resource, reason: str, message: str) -> dict[str, Any]:
    """Programmed=False for a reason."""
    return condition(subject, "Programmed", FALSE, reason, message)


def refs_resolved(subject: Resource, message: str) -> dict[str, Any]:
    """ResolvedRefs=True."""
    return condition(subject, "ResolvedRefs", TRUE, "ResolvedRefs", message)


def refs_unresolved(subject: Resource, reason: str, message: str) -> dict[str, Any]:
    """ResolvedRefs=False for a reason."""
    return condition(subject, "ResolvedRefs", FALSE, reason, message)


def with_times(new: Any, old: Any, now: str) -> Any:
    """A status with the time of each of its conditions filled in.

    A condition that keeps its status keeps its time. `old` is the status as it was, or None; list
    entries are matched by what names them (a listener's name, a parentRef, an ancestorRef). `now`
    is an RFC 3339 text.
    """
    if isinstance(new, Mapping):
        before = old if isinstance(old, Mapping) else {}
        return {
            key: _timed(value, before.get(key), now)
            if key == "conditions"
            else with_times(value, before.get(key), now)
            for key, value in new.items()
        }
    if isinstance(new, list):
        known = {_identity(item): item for item in old} if isinstance(old, list) else {}
        return [with_times(item, known.get(_identity(item)), now) for item in new]
    return new


def _timed(new: Iterable[Condition], old: Any, now: str) -> list[dict[str, Any]]:
    before = {item.get("type"): item for item in old or () if isinstance(item, Mapping)}
    result = []
    for item in new:
        known = before.get(item["type"], {})
        is_same = known.get("status") == item["status"]
        since = known.get("lastTransitionTime", now) if is_same else now
        result.append({**item, "lastTransitionTime": since})
    return result


def _identity(item: Any) -> str:
    """What tells entries of a status list apart. An API server has a reference's keys sorted."""
    if not isinstance(item, Mapping):
        return repr(item)
    names = ("name", "parentRef", "ancestorRef", "controllerName")
    values = (item.get(name) for name in names)
    return repr([sorted(each.items()) if isinstance(each, Mapping) else each for each in values])
