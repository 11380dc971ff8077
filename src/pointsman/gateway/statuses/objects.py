"""What is so about each object, from a translation and from what Envoy said of it.

The statuses are as users see them, but for the times of conditions, which whoever writes them back
fills in. An object that Pointsman does not serve gets no status from it.
"""

from __future__ import annotations

from pointsman.gateway.options import Options
from pointsman.gateway.statuses import backend_tls, backends, gateways, policies, pools, routes
from pointsman.gateway.statuses.facts import EnvoyFacts, Memory, Refusals, Status
from pointsman.gateway.translate import Translation
from pointsman.resources.base import Ref
from pointsman.store import Store


def statuses(
    store: Store,
    translation: Translation,
    facts: EnvoyFacts,
    options: Options,
    memory: Memory | None = None,
) -> dict[Ref, Status]:
    """The status of every object that has one.

    With the `memory` of an earlier round, the statuses of routes and pools that are what they were
    are the same objects.
    """
    memory = memory or Memory()
    memory.begin()
    refusals = Refusals.of(translation, facts)
    result: dict[Ref, Status] = {}
    result.update(gateways.class_statuses(store, translation, options))
    result.update(gateways.waiting_gateways(store, translation, options))
    attached = gateways.attached_routes(translation)
    for served in translation.gateways:
        status = gateways.gateway_status(served, translation, facts, options, attached)
        result[served.gateway.ref] = status
    result.update(gateways.set_statuses(store, translation, facts, options, attached))
    result.update(routes.route_statuses(translation, refusals, memory))
    result.update(backends.backend_statuses(store, translation, options))
    result.update(policies.targeting_statuses(translation, refusals))
    result.update(policies.proxy_statuses(translation, refusals))
    result.update(backend_tls.tls_policy_statuses(translation, refusals))
    result.update(policies.patch_policy_statuses(store, translation, refusals))
    result.update(pools.pool_statuses(store, translation, memory))
    result.update(pools.model_statuses(store, translation))
    result.update(pools.member_statuses(store, translation))
    return result
