"""Which GatewayClasses and Gateways are ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.listeners.addresses import SHARED, Binding, binding_of
from pointsman.gateway.options import Options
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import EnvoyGatewayConfig
from pointsman.resources.envoy_proxy import EnvoyProxy
from pointsman.resources.gateway_api import Gateway, GatewayClass
from pointsman.store import Store

PARAMETERS = (EnvoyProxy.KIND.group, EnvoyProxy.KIND.kind)
"""Group and kind of the object with settings that a class or a Gateway may name."""


@dataclass(frozen=True, slots=True)
class ServedGateway:
    """A Gateway of a class of ours."""

    gateway: Gateway
    controller_name: str
    is_adopted: bool
    """Nobody defines its class; on one machine that is good enough."""
    problem: tuple[str, str] | None = None
    """Reason and message, where the Gateway as a whole cannot be accepted."""
    binding: Binding = SHARED


def served_classes(
    store: Store, config: EnvoyGatewayConfig, options: Options
) -> dict[str, tuple[GatewayClass, dict[str, Any]]]:
    """Our GatewayClasses by name, each with its Accepted condition.

    On one machine every class is ours; elsewhere those of our controllers are.
    """
    ours = sorted(store.list(GatewayClass), key=lambda item: item.age_key)
    if not options.is_alone:
        controllers = options.controllers or {config.gateway.controller_name}
        ours = [item for item in ours if item.spec.controller_name in controllers]
    result = {}
    for item in ours:
        problem = _parameters_problem(store, item)
        result[item.metadata.name] = (
            item,
            conditions.accepted(item, conditions.CLASS_ACCEPTED)
            if problem is None
            else conditions.not_accepted(item, "InvalidParameters", problem),
        )
    return result


def served_gateways(
    store: Store, config: EnvoyGatewayConfig, options: Options
) -> list[ServedGateway]:
    """The Gateways of our classes, older ones first."""
    classes = served_classes(store, config, options)
    result = []
    for gateway in sorted(store.list(Gateway), key=lambda item: item.age_key):
        found = classes.get(gateway.spec.gateway_class_name)
        if found is not None and found[1]["status"] == conditions.TRUE:
            controller, is_adopted = found[0].spec.controller_name, False
        elif found is None and options.is_alone:
            controller, is_adopted = config.gateway.controller_name, True
        else:
            continue
        binding = binding_of(gateway, options)
        problem = _infrastructure_problem(store, gateway)
        if binding.unsupported is not None:
            problem = ("UnsupportedAddress", binding.unsupported)
        result.append(ServedGateway(gateway, controller, is_adopted, problem, binding))
    return result


def _parameters_problem(store: Store, item: GatewayClass) -> str | None:
    ref = item.spec.parameters_ref
    if ref is None:
        return None
    if ref.namespace is None:
        return f"parametersRef: {ref.kind} {ref.name} needs a namespace"
    return _settings_problem(store, Ref(ref.group, ref.kind, ref.namespace, ref.name))


def _infrastructure_problem(store: Store, gateway: Gateway) -> tuple[str, str] | None:
    infrastructure = gateway.spec.infrastructure
    ref = infrastructure.parameters_ref if infrastructure is not None else None
    if ref is None:
        return None
    named = Ref(ref.group, ref.kind, gateway.metadata.namespace, ref.name)
    problem = _settings_problem(store, named)
    return ("InvalidParameters", f"infrastructure.{problem}") if problem is not None else None


def _settings_problem(store: Store, ref: Ref) -> str | None:
    if (ref.group, ref.kind) != PARAMETERS:
        wanted = " of ".join(reversed(PARAMETERS))
        return f"parametersRef: {ref.kind} of group {ref.group!r} holds no settings; use {wanted}"
    if store.find(ref) is None:
        return f"parametersRef: {ref} not found"
    return None
