"""InferencePools, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pointsman.gateway import conditions
from pointsman.gateway.statuses.facts import (
    Status,
)
from pointsman.gateway.translate import ServedPool, Translation
from pointsman.inference.models import winners
from pointsman.inference.pools import pools
from pointsman.resources.base import Ref, Resource
from pointsman.resources.inference_extension import (
    InferenceModel,
    InferencePool,
    InferencePoolV1Alpha2,
)
from pointsman.resources.inference_models import (
    ExperimentalInferenceModelRewrite,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    InferenceObjective,
)
from pointsman.store import Store

PoolMember = (
    InferenceObjective
    | ExperimentalInferenceObjective
    | InferenceModelRewrite
    | ExperimentalInferenceModelRewrite
)


def pool_statuses(store: Store, translation: Translation) -> dict[Ref, Status]:
    """Every InferencePool: one entry for each Gateway through which it is reached."""
    controllers = {item.gateway.ref: item.controller_name for item in translation.gateways}
    result = {}
    for pool in (*store.list(InferencePool), *store.list(InferencePoolV1Alpha2)):
        served = translation.pools.get(pool.ref)
        entries = [
            {
                "parentRef": {"kind": gateway.kind, "group": gateway.group}
                | {"namespace": gateway.namespace, "name": gateway.name},
                "controllerName": controllers[gateway],
                "conditions": _pool_conditions(pool, served),
            }
            for gateway in (served.parents if served is not None else ())
        ]
        # The older generation calls its list `parent`.
        name = "parent" if isinstance(pool, InferencePoolV1Alpha2) else "parents"
        result[pool.ref] = {name: entries}
    return result


def _pool_conditions(pool: Resource, served: ServedPool | None) -> list[Mapping[str, Any]]:
    if served is None:
        return []
    accepted = conditions.accepted(pool, conditions.POOL_ACCEPTED)
    if served.picker_problem is not None:
        problem = served.picker_problem
        return [accepted, conditions.refs_unresolved(pool, problem.reason, problem.message)]
    reference = served.pool.spec.endpoint_picker_ref
    message = conditions.POOL_PICKER_RESOLVED
    if served.picker is not None and served.picker.is_provided and reference is not None:
        message = conditions.POOL_PICKER_PROVIDED.format(
            name=f"{pool.metadata.namespace}/{reference.name}"
        )
    return [accepted, conditions.refs_resolved(pool, message)]


def model_statuses(store: Store) -> dict[Ref, Status]:
    """Every InferenceModel."""
    models = store.list(InferenceModel)
    owners = winners(models)
    known = pools(store)
    result = {}
    for model in models:
        pool_ref = model.spec.pool_ref
        namespace = model.metadata.namespace
        owner = owners.get((namespace, pool_ref.name, model.spec.model_name))
        if (namespace, pool_ref.name) not in known:
            message = f"{pool_ref.kind} {namespace}/{pool_ref.name} not found"
            found = conditions.condition(model, "Accepted", conditions.UNKNOWN, "Pending", message)
        elif owner is not None and owner.ref != model.ref:
            message = f"Model name {model.spec.model_name} belongs to the older {owner.ref}"
            found = conditions.not_accepted(model, "ModelNameInUse", message)
        else:
            found = conditions.accepted(model, conditions.MODEL_ACCEPTED)
        result[model.ref] = {"conditions": [found]}
    return result


def member_statuses(store: Store) -> dict[Ref, Status]:
    """Every InferenceObjective and InferenceModelRewrite."""
    known = pools(store)
    items: tuple[PoolMember, ...] = (
        *store.list(InferenceObjective),
        *store.list(ExperimentalInferenceObjective),
        *store.list(InferenceModelRewrite),
        *store.list(ExperimentalInferenceModelRewrite),
    )
    result = {}
    for item in items:
        namespace, pool = item.metadata.namespace, item.spec.pool_ref.name
        if (namespace, pool) in known:
            found = conditions.accepted(item, conditions.POOL_MEMBER_ACCEPTED)
        else:
            message = f"InferencePool {namespace}/{pool} not found"
            found = conditions.condition(item, "Accepted", conditions.UNKNOWN, "Pending", message)
        result[item.ref] = {"conditions": [found]}
    return result
