"""What is so about each object, from a translation and from what Envoy said of it.

The statuses are as users see them, but for the times of conditions, which whoever writes them back
fills in. An object that Pointsman does not serve gets no status from it.
"""

from __future__ import annotations

from pointsman.gateway import conditions
from pointsman.gateway.backends.references import backend_problem
from pointsman.gateway.listeners import attachment
from pointsman.gateway.options import Options
from pointsman.gateway.statuses import gateways, policies, pools, routes
from pointsman.gateway.statuses.facts import EnvoyFacts, Status
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.resources.envoy_gateway import Backend
from pointsman.store import Store


def statuses(
    store: Store, translation: Translation, facts: EnvoyFacts, options: Options
) -> dict[Ref, Status]:
    """The status of every object that has one."""
    result: dict[Ref, Status] = {}
    classes = attachment.served_classes(store, translation.config.gateway, options)
    for gateway_class, condition in classes.values():
        result[gateway_class.ref] = {"conditions": [condition]}
    for served in translation.gateways:
        result[served.gateway.ref] = gateways.gateway_status(served, translation, facts, options)
    result.update(routes.route_statuses(store, translation, facts, options))
    for backend in store.list(Backend):
        problem = backend_problem(backend, translation.config.gateway, options)
        found = (
            conditions.accepted(backend, conditions.BACKEND_ACCEPTED)
            if problem is None
            else conditions.not_accepted(backend, "Invalid", problem)
        )
        result[backend.ref] = {"conditions": [found]}
    for item in translation.extensions.items:
        result[item.policy.ref] = policies.extension_status(item, translation, facts)
    result.update(policies.patch_policy_statuses(store, translation, facts))
    result.update(pools.pool_statuses(store, translation))
    result.update(pools.model_statuses(store))
    result.update(pools.member_statuses(store))
    return result
