"""InferencePools, and what belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from pointsman.gateway import conditions, names
from pointsman.gateway.backends.references import Destination, Unresolved
from pointsman.gateway.statuses.facts import Memory, Status
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


def pool_statuses(
    store: Store, translation: Translation, memory: Memory
) -> Iterator[tuple[Ref, Status]]:
    """Every InferencePool: one entry for each Gateway through which it is reached."""
    controllers = {item.gateway.ref: item.controller_name for item in translation.gateways}
    every: tuple[InferencePool | InferencePoolV1Alpha2, ...] = (
        *store.list(InferencePool),
        *store.list(InferencePoolV1Alpha2),
    )
    for pool in every:
        ref = pool.ref
        served = translation.pools.get(ref)
        parents = served.parents if served is not None else ()
        made_from = (served, store.version(ref), [controllers[item] for item in parents])
        yield ref, memory.status(ref, made_from, partial(_status, pool, served, controllers))


def _status(
    pool: InferencePool | InferencePoolV1Alpha2,
    served: ServedPool | None,
    controllers: Mapping[Ref, str],
) -> Status:
    # The older generation calls its list `parent`, and has no place for a controller's name in it.
    is_older = isinstance(pool, InferencePoolV1Alpha2)
    name = "parent" if is_older else "parents"
    if served is None:
        return {name: []}
    return {
        name: [
            {
                "parentRef": {"kind": gateway.kind, "group": gateway.group}
                | {"namespace": gateway.namespace, "name": gateway.name},
                **({} if is_older else {"controllerName": controllers[gateway]}),
                "conditions": _pool_conditions(pool, served.destination),
            }
            for gateway in served.parents
        ]
    }


def _pool_conditions(pool: Resource, found: Destination) -> list[Mapping[str, Any]]:
    picker = found.picker
    accepted = (
        conditions.not_accepted(pool, "EndpointPickerRefMissing", conditions.POOL_PICKER_MISSING)
        if picker is None
        else conditions.accepted(pool, conditions.POOL_ACCEPTED)
    )
    if isinstance(picker, Unresolved):
        return [accepted, conditions.refs_unresolved(pool, picker.reason, picker.message)]
    reference = found.pool.spec.endpoint_picker_ref if found.pool is not None else None
    message = conditions.POOL_PICKER_RESOLVED if picker is not None else conditions.POOL_NO_REFS
    if picker is not None and picker.is_marked and picker.is_provided:
        message = conditions.POOL_PICKER_MADE.format(
            name=f"{pool.metadata.namespace}/{names.provided_picker(pool.metadata.name)}"
        )
    elif picker is not None and picker.is_provided and reference is not None:
        message = conditions.POOL_PICKER_PROVIDED.format(
            name=f"{pool.metadata.namespace}/{reference.name}"
        )
    return [accepted, conditions.refs_resolved(pool, message)]


def model_statuses(store: Store, translation: Translation) -> dict[Ref, Status]:
    """Every InferenceModel; in a cluster those of the pools that we serve."""
    models = store.list(InferenceModel)
    owners = winners(models)
    known = pools(store)
    ours = _of_ours(translation)
    result = {}
    for model in models:
        pool_ref = model.spec.pool_ref
        namespace = model.metadata.namespace
        if not ours(namespace, pool_ref.name):
            continue
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


def member_statuses(store: Store, translation: Translation) -> dict[Ref, Status]:
    """Every InferenceObjective and InferenceModelRewrite; in a cluster those of our pools."""
    known = pools(store)
    ours = _of_ours(translation)
    items: tuple[PoolMember, ...] = (
        *store.list(InferenceObjective),
        *store.list(ExperimentalInferenceObjective),
        *store.list(InferenceModelRewrite),
        *store.list(ExperimentalInferenceModelRewrite),
    )
    result = {}
    for item in items:
        namespace, pool = item.metadata.namespace, item.spec.pool_ref.name
        if not ours(namespace, pool):
            continue
        if (namespace, pool) in known:
            found = conditions.accepted(item, conditions.POOL_MEMBER_ACCEPTED)
        else:
            message = f"InferencePool {namespace}/{pool} not found"
            found = conditions.condition(item, "Accepted", conditions.UNKNOWN, "Pending", message)
        result[item.ref] = {"conditions": [found]}
    return result


def _of_ours(translation: Translation) -> Callable[[str, str], bool]:
    """Whether what is said of a pool is ours to say: other controllers serve other pools."""
    if translation.scene.options.is_alone:
        return lambda namespace, name: True
    served = {(ref.namespace, ref.name) for ref in translation.pools}
    return lambda namespace, name: (namespace, name) in served
