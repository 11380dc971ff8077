"""EnvoyProxies: which of them counts for a Gateway, and what of it is served.

A Gateway's own (`infrastructure.parametersRef`) goes before that of its class. In a cluster each
Gateway has Envoys of its own, which are run as its EnvoyProxy says. On one machine one Envoy serves
all Gateways. How it is run, it is told once, when it starts: by the EnvoyProxy of the oldest
Gateway that has one. How a listener's filters stand is told for each Gateway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.gateway import bootstraps, conditions
from pointsman.gateway.listeners.access_logs import JSON_ON_STDOUT, AccessLog
from pointsman.gateway.listeners.classes import PARAMETERS, ServedGateway
from pointsman.resources.base import Ref
from pointsman.resources.durations import go_seconds
from pointsman.resources.envoy_proxy import AccessLogFormat, EnvoyProxy, ProxyBootstrap, ProxySpec
from pointsman.resources.gateway_api import GatewayClass
from pointsman.store import Store

AT_START = ("concurrency", "logging", "bootstrap", "shutdown")
"""Fields that Envoy is told when it starts, and not again."""
IGNORED = (
    "extra_args",
    "routing_type",
    "backend_tls",
    "ip_family",
    "preserve_route_order",
    "lua_validation",
    "dynamic_modules",
    "geo_ip",
)
LEVELS = {"warn": "warning"}
"""Envoy's words for a level, where they are others."""
NO_COMPONENT = frozenset({"default", "system"})
"""What Envoy knows no component of that name for."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """The EnvoyProxies that count, by Gateway."""

    of_gateway: Mapping[Ref, EnvoyProxy] = field(default_factory=dict)
    """Older Gateways first."""

    @property
    def all(self) -> tuple[EnvoyProxy, ...]:
        """Each that counts for some Gateway, once."""
        return tuple({item.ref: item for item in self.of_gateway.values()}.values())

    @property
    def leading(self) -> EnvoyProxy | None:
        """The one that says how the Envoy of this machine is run."""
        return next(iter(self.of_gateway.values()), None)


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """How an Envoy is run; None and empty for what nobody says."""

    source: Ref | None = None
    concurrency: int | None = None
    log_level: str | None = None
    component_levels: Mapping[str, str] = field(default_factory=dict)
    drain_timeout_s: float | None = None
    min_drain_s: float | None = None
    bootstrap: ProxyBootstrap | None = None


def proxies(store: Store, gateways: Sequence[ServedGateway]) -> Proxies:
    """The EnvoyProxy of each Gateway that has one."""
    found = {}
    for item in gateways:
        ref = _named(store, item)
        proxy = store.find(ref) if ref is not None else None
        if isinstance(proxy, EnvoyProxy):
            found[item.gateway.ref] = proxy
    return Proxies(found)


def process_settings(proxy: EnvoyProxy | None) -> ProcessSettings:
    """How an Envoy is run."""
    if proxy is None:
        return ProcessSettings()
    spec = proxy.spec
    levels: dict[str, str] = {
        component: LEVELS.get(level, level) for component, level in spec.logging.level.items()
    }
    drain = spec.shutdown.drain_timeout if spec.shutdown is not None else None
    min_drain = spec.shutdown.min_drain_duration if spec.shutdown is not None else None
    return ProcessSettings(
        source=proxy.ref,
        concurrency=spec.concurrency or None,
        log_level=levels.get("default"),
        component_levels={
            name: level for name, level in levels.items() if name not in NO_COMPONENT
        },
        drain_timeout_s=go_seconds(drain) if drain is not None else None,
        min_drain_s=go_seconds(min_drain) if min_drain is not None else None,
        bootstrap=spec.bootstrap,
    )


def access_logs_of(spec: ProxySpec | None, default: tuple[AccessLog, ...]) -> tuple[AccessLog, ...]:
    """The access logs of a Gateway's listeners; `default` where its EnvoyProxy says nothing."""
    telemetry = spec.telemetry if spec is not None else None
    wanted = telemetry.access_log if telemetry is not None else None
    if wanted is None:
        return default
    if wanted.disable:
        return ()
    if not wanted.settings:
        return default or (JSON_ON_STDOUT,)
    return tuple(
        _log(item.format, sink.file.path)
        for item in wanted.settings
        for sink in item.sinks
        if sink.file is not None
    )


def says_logs(spec: ProxySpec) -> bool:
    """An EnvoyProxy says itself what is logged where, so it is to blame where that cannot be."""
    logs = spec.telemetry.access_log if spec.telemetry is not None else None
    return logs is not None and bool(logs.settings)


def _log(wanted: AccessLogFormat | None, path: str) -> AccessLog:
    if wanted is not None and wanted.json_ is not None:
        return AccessLog(path, fields=wanted.json_)
    if wanted is not None and wanted.text is not None:
        return AccessLog(
            path, text=wanted.text if wanted.text.endswith("\n") else f"{wanted.text}\n"
        )
    return AccessLog(path, fields=JSON_ON_STDOUT.fields)


def proxy_conditions(
    proxy: EnvoyProxy, found: Proxies, *, is_alone: bool = True
) -> list[dict[str, Any]]:
    """What is so about an EnvoyProxy that some Gateway has; `is_alone`: on one machine."""
    bootstrap = proxy.spec.bootstrap
    wrong = bootstraps.problem(bootstrap) if bootstrap is not None else None
    if wrong is not None:
        return [conditions.not_accepted(proxy, "Invalid", wrong)]
    result = [conditions.accepted(proxy, conditions.PROXY_ACCEPTED)]
    told = [alias(name) for name in AT_START if name in proxy.spec.model_fields_set]
    warnings = []
    leading = found.leading
    if is_alone and told and leading is not None and leading.ref != proxy.ref:
        path = f"{leading.metadata.namespace}/{leading.metadata.name}"
        warnings.append(f"One Envoy serves all Gateways here, and EnvoyProxy {path} says how")
    elif is_alone and told:
        warnings.append(f"Read when Envoy starts, and not again: {', '.join(told)}")
    ignored = _ignored(proxy.spec, is_alone)
    if ignored:
        warnings.append(f"Fields that have no effect: {', '.join(ignored)}")
    if warnings:
        text = "; ".join(warnings)
        result.append(
            conditions.condition(proxy, "Warning", conditions.TRUE, "UnsupportedField", text)
        )
    return result


def alias(name: str) -> str:
    """A field as users write it."""
    return ProxySpec.model_fields[name].alias or name


def _ignored(spec: ProxySpec, is_alone: bool) -> list[str]:
    result = [alias(name) for name in IGNORED if getattr(spec, name)]
    kubernetes = spec.provider.kubernetes if spec.provider is not None else None
    if kubernetes is not None:
        result += ["provider.kubernetes"] if is_alone else kubernetes.ignored()
    # On one machine all Gateways share an Envoy, in a cluster none do.
    if spec.merge_gateways is not None and spec.merge_gateways != is_alone:
        result.append(f"mergeGateways: {str(spec.merge_gateways).lower()}")
    telemetry = spec.telemetry
    if telemetry is not None:
        given: dict[str, object] = {
            "metrics": telemetry.metrics,
            "requestID": telemetry.request_id,
            "tracing": telemetry.tracing,
        }
        result.extend(f"telemetry.{name}" for name, value in given.items() if value is not None)
        logs = telemetry.access_log
        settings = logs.settings if logs is not None else ()
        if any(item.matches for item in settings):
            result.append("telemetry.accessLog.settings.matches")
        if any(item.type is not None for item in settings):
            result.append("telemetry.accessLog.settings.type")
        if any(sink.file is None for item in settings for sink in item.sinks):
            result.append("telemetry.accessLog.settings.sinks of another type than File")
    if is_alone and spec.shutdown is not None and spec.shutdown.min_drain_duration is not None:
        result.append("shutdown.minDrainDuration")
    return result


def _named(store: Store, item: ServedGateway) -> Ref | None:
    """The object with settings that a Gateway names, or its class does."""
    meta = item.gateway.metadata
    infrastructure = item.gateway.spec.infrastructure
    own = infrastructure.parameters_ref if infrastructure is not None else None
    if own is not None:
        return _settings(own.group, own.kind, meta.namespace, own.name)
    found = store.get(GatewayClass, "", item.gateway.spec.gateway_class_name)
    of_class = found.spec.parameters_ref if found is not None else None
    if of_class is None or of_class.namespace is None:
        return None
    return _settings(of_class.group, of_class.kind, of_class.namespace, of_class.name)


def _settings(group: str, kind: str, namespace: str, name: str) -> Ref | None:
    return Ref(group, kind, namespace, name) if (group, kind) == PARAMETERS else None
