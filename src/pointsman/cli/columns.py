"""What `get` shows of each kind: the columns that kubectl has, and what helps beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pointsman.cli.jsonpath import Template, text_of

Cell = Callable[[Mapping[str, Any]], str]
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and how its cell is made from an object as users write it."""

    heading: str
    cell: Cell
    is_wide: bool = False
    """Only with `-o wide`."""


def columns(group: str, kind: str, *, wide: bool = False) -> list[Column]:
    """The columns of a kind between NAME and AGE."""
    found = _BY_KIND.get((group, kind), ())
    return [column for column in found if wide or not column.is_wide]


def age(item: Mapping[str, Any], now: datetime) -> str:
    """How long ago an object was made, as kubectl writes it."""
    text = item.get("metadata", {}).get("creationTimestamp", "")
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        return "<unknown>"
    return human_age((now - made).total_seconds())


def human_age(seconds: float) -> str:
    """Two units where the first is small, one where it is large.

    >>> [human_age(s) for s in (5, 119, 150, 1000, 4 * 3600 + 60, 86400, 3 * 86400, 400 * 86400)]
    ['5s', '119s', '2m30s', '16m', '4h1m', '24h', '3d', '400d']
    """
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d") if days < 8 * 365 else f"{days // 365}y"


def _two(first: int, first_unit: str, second: int, second_unit: str) -> str:
    return f"{first}{first_unit}{second}{second_unit}" if second else f"{first}{first_unit}"


def _path(template: str, missing: str = "") -> Cell:
    read = Template(f"{{{template}}}")

    def cell(item: Mapping[str, Any]) -> str:
        return ",".join(text_of(value) for value in read.values(item)) or missing

    return cell


def _condition(kind: str, field: str = "status") -> Cell:
    return _path(f'.status.conditions[?(@.type=="{kind}")].{field}')


def _parents_say(kind: str) -> Cell:
    read = Template(f'{{.status.parents[*].conditions[?(@.type=="{kind}")].status}}')

    def cell(item: Mapping[str, Any]) -> str:
        found = read.values(item)
        if not found:
            return ""
        return "True" if all(status == "True" for status in found) else "False"

    return cell


def _hostnames(item: Mapping[str, Any]) -> str:
    names = item.get("spec", {}).get("hostnames", [])
    return text_of(names) if names else ""


def _pod_ready(item: Mapping[str, Any]) -> str:
    statuses = item.get("status", {}).get("containerStatuses")
    if not isinstance(statuses, list):
        wanted = len(item.get("spec", {}).get("containers", []))
        return f"{wanted if _condition('Ready')(item) != 'False' else 0}/{wanted}"
    return f"{sum(1 for status in statuses if status.get('ready'))}/{len(statuses)}"


def _pod_status(item: Mapping[str, Any]) -> str:
    if item.get("metadata", {}).get("deletionTimestamp"):
        return "Terminating"
    waiting = Template("{.status.containerStatuses[*].state.waiting.reason}").values(item)
    status = item.get("status", {})
    return str((waiting or [None])[0] or status.get("reason") or status.get("phase") or "External")


def _restarts(item: Mapping[str, Any]) -> str:
    counts = Template("{.status.containerStatuses[*].restartCount}").values(item)
    return str(sum(count for count in counts if isinstance(count, int)))


def _replicas(field: str) -> Cell:
    return _path(f".status.{field}", "0")


def _deployment_ready(item: Mapping[str, Any]) -> str:
    return f"{_replicas('readyReplicas')(item)}/{item.get('spec', {}).get('replicas', 1)}"


def _service_ports(item: Mapping[str, Any]) -> str:
    ports = item.get("spec", {}).get("ports", [])
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or NONE


def _selector(*path: str) -> Cell:
    def cell(item: Mapping[str, Any]) -> str:
        value: Any = item
        for part in path:
            value = value.get(part, {}) if isinstance(value, dict) else {}
        if not isinstance(value, dict):
            return NONE
        return ",".join(f"{key}={text}" for key, text in value.items()) or NONE

    return cell


def _count(*fields: str) -> Cell:
    return lambda item: str(sum(len(item.get(field, ())) for field in fields))


def _slice_ports(item: Mapping[str, Any]) -> str:
    return ",".join(str(port.get("port", "*")) for port in item.get("ports", [])) or "<unset>"


def _pool_picker(item: Mapping[str, Any]) -> str:
    spec = item.get("spec", {})
    ref = spec.get("endpointPickerRef") or spec.get("extensionRef") or {}
    port = ref.get("portNumber") or ref.get("port", {}).get("number", "")
    return f"{ref['name']}:{port}" if ref.get("name") and port else ref.get("name", NONE)


def _accepted_reason(item: Mapping[str, Any]) -> str:
    read = Template('{.status.ancestors[*].conditions[?(@.type=="Accepted")].reason}')
    return ",".join(dict.fromkeys(text_of(value) for value in read.values(item)))


_GATEWAY = "gateway.networking.k8s.io"
_POOL = "inference.networking.k8s.io"
_MODEL = "inference.networking.x-k8s.io"
_ENVOY = "gateway.envoyproxy.io"

_BY_KIND: dict[tuple[str, str], Sequence[Column]] = {
    (_GATEWAY, "GatewayClass"): (
        Column("CONTROLLER", _path(".spec.controllerName")),
        Column("ACCEPTED", _condition("Accepted")),
        Column("DESCRIPTION", _path(".spec.description"), is_wide=True),
    ),
    (_GATEWAY, "Gateway"): (
        Column("CLASS", _path(".spec.gatewayClassName")),
        Column("ADDRESS", _path(".status.addresses[*].value")),
        Column("PROGRAMMED", _condition("Programmed")),
        Column("PORTS", _path(".spec.listeners[*].port"), is_wide=True),
    ),
    (_GATEWAY, "ListenerSet"): (
        Column("PARENT", _path(".spec.parentRef.name")),
        Column("ACCEPTED", _condition("Accepted")),
        Column("PROGRAMMED", _condition("Programmed")),
        Column("PORTS", _path(".spec.listeners[*].port"), is_wide=True),
    ),
    (_GATEWAY, "BackendTLSPolicy"): (
        Column("TARGETS", _path(".spec.targetRefs[*].name")),
        Column("HOSTNAME", _path(".spec.validation.hostname")),
        Column("ACCEPTED", _path('.status.ancestors[*].conditions[?(@.type=="Accepted")].status')),
    ),
    (_GATEWAY, "HTTPRoute"): (
        Column("HOSTNAMES", _hostnames),
        Column("PARENTS", _path(".spec.parentRefs[*].name"), is_wide=True),
        Column("ACCEPTED", _parents_say("Accepted"), is_wide=True),
        Column("RESOLVED", _parents_say("ResolvedRefs"), is_wide=True),
    ),
    (_POOL, "InferencePool"): (
        Column("PORTS", _path(".spec.targetPorts[*].number")),
        Column("PICKER", _pool_picker),
        Column("SELECTOR", _selector("spec", "selector", "matchLabels"), is_wide=True),
    ),
    (_MODEL, "InferencePool"): (
        Column("PORTS", _path(".spec.targetPortNumber")),
        Column("PICKER", _pool_picker),
        Column("SELECTOR", _selector("spec", "selector"), is_wide=True),
    ),
    (_MODEL, "InferenceModel"): (
        Column("MODEL NAME", _path(".spec.modelName")),
        Column("INFERENCE POOL", _path(".spec.poolRef.name")),
        Column("CRITICALITY", _path(".spec.criticality")),
        Column("TARGETS", _path(".spec.targetModels[*].name"), is_wide=True),
    ),
    (_ENVOY, "Backend"): (Column("STATUS", _condition("Accepted", "reason")),),
    (_ENVOY, "BackendTrafficPolicy"): (Column("STATUS", _accepted_reason),),
    (_ENVOY, "ClientTrafficPolicy"): (Column("STATUS", _accepted_reason),),
    (_ENVOY, "EnvoyExtensionPolicy"): (Column("STATUS", _accepted_reason),),
    (_ENVOY, "EnvoyProxy"): (Column("STATUS", _accepted_reason),),
    (_ENVOY, "EnvoyPatchPolicy"): (
        Column(
            "STATUS",
            _path('.status.ancestors[*].conditions[?(@.type=="Programmed")].reason'),
        ),
    ),
    ("", "Namespace"): (Column("STATUS", _path(".status.phase", "Active")),),
    ("", "Pod"): (
        Column("READY", _pod_ready),
        Column("STATUS", _pod_status),
        Column("RESTARTS", _restarts),
        Column("IP", _path(".status.podIP", NONE), is_wide=True),
    ),
    ("", "Service"): (
        Column("TYPE", _path(".spec.type")),
        Column("CLUSTER-IP", _path(".spec.clusterIP", NONE)),
        Column("PORT(S)", _service_ports),
        Column("SELECTOR", _selector("spec", "selector"), is_wide=True),
    ),
    ("", "ConfigMap"): (Column("DATA", _count("data", "binaryData")),),
    ("", "Secret"): (Column("TYPE", _path(".type")), Column("DATA", _count("data"))),
    ("apps", "Deployment"): (
        Column("READY", _deployment_ready),
        Column("UP-TO-DATE", _replicas("updatedReplicas")),
        Column("AVAILABLE", _replicas("availableReplicas")),
        Column("IMAGES", _path(".spec.template.spec.containers[*].image", NONE), is_wide=True),
        Column("SELECTOR", _selector("spec", "selector", "matchLabels"), is_wide=True),
    ),
    ("discovery.k8s.io", "EndpointSlice"): (
        Column("ADDRESSTYPE", _path(".addressType")),
        Column("PORTS", _slice_ports),
        Column("ENDPOINTS", _path(".endpoints[*].addresses[*]", "<unset>")),
    ),
}
