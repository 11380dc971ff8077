"""Backends of Envoy Gateway."""

from __future__ import annotations

from pointsman.gateway import conditions
from pointsman.gateway.backends import declared_tls
from pointsman.gateway.backends.references import backend_problem
from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import Status
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import Backend
from pointsman.store import Store


def backend_statuses(store: Store, translation: Translation, options: Options) -> dict[Ref, Status]:
    """Every Backend; in a cluster those that something of ours refers to."""
    policies = translation.resolver.tls_policies
    referred = translation.resolver.referred
    result = {}
    for backend in store.list(Backend):
        if not options.is_alone and backend.ref not in referred:
            continue
        problem = backend_problem(backend, translation.config.gateway, options)
        has_policy = policies.of(backend.ref) is not None
        if problem is None and not has_policy:
            _, wrong = declared_tls.declared_tls(store, backend, options.authorities_path)
            problem = f"The Backend was not accepted: {wrong}" if wrong is not None else None
        found = [
            conditions.accepted(backend, conditions.BACKEND_ACCEPTED)
            if problem is None
            else conditions.not_accepted(backend, "Invalid", problem)
        ]
        told = declared_tls.warnings(backend, has_policy=has_policy)
        if told and problem is None:
            text = "; ".join(told)
            found.append(
                conditions.condition(backend, "Warning", conditions.TRUE, "UnsupportedField", text)
            )
        result[backend.ref] = {"conditions": found}
    return result
