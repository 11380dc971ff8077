"""What is so about each object, from a translation and from what Envoy said of it.

The statuses are as users see them, but for the times of conditions, which whoever writes them back
fills in. An object that Pointsman does not serve gets no status from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.gateway import attachment, conditions, extensions, names, patches, snapshot
from pointsman.gateway.backends import Unresolved, backend_problem
from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import Key
from pointsman.gateway.translate import ServedPool, Translation
from pointsman.inference.models import winners
from pointsman.inference.pools import pools
from pointsman.resources.base import Ref, Resource
from pointsman.resources.envoy_gateway import Backend, EnvoyPatchPolicy
from pointsman.resources.gateway_api import Gateway, GRPCRoute, HTTPRoute
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

Status = dict[str, Any]

SUPPORTED_KINDS = tuple((cls.KIND.group, cls.KIND.kind) for cls in (HTTPRoute, GRPCRoute))
PoolMember = (
    InferenceObjective
    | ExperimentalInferenceObjective
    | InferenceModelRewrite
    | ExperimentalInferenceModelRewrite
)
BIND_ERROR = "cannot bind"
"""How Envoy's message begins where a port is taken or not allowed."""


@dataclass(frozen=True, slots=True)
class EnvoyFacts:
    """What is known of the Envoys that serve the resources."""

    connected: int = 0
    wanted: int = 1
    listeners: frozenset[str] = frozenset()
    """Names of the listeners that every connected Envoy has taken as they are."""
    refused: Mapping[Key, str] = field(default_factory=dict)
    """Resources that Envoy refused, with its words."""


def statuses(
    store: Store, translation: Translation, facts: EnvoyFacts, options: Options
) -> dict[Ref, Status]:
    """The status of every object that has one."""
    result: dict[Ref, Status] = {}
    classes = attachment.served_classes(store, translation.config.gateway, options)
    for gateway_class, condition in classes.values():
        result[gateway_class.ref] = {"conditions": [condition]}
    for served in translation.gateways:
        result[served.gateway.ref] = _gateway(served, translation, facts, options)
    result.update(_routes(store, translation, facts, options))
    for backend in store.list(Backend):
        problem = backend_problem(backend, translation.config.gateway, options)
        found = (
            conditions.accepted(backend, conditions.BACKEND_ACCEPTED)
            if problem is None
            else conditions.not_accepted(backend, "Invalid", problem)
        )
        result[backend.ref] = {"conditions": [found]}
    for item in translation.extensions.items:
        result[item.policy.ref] = _extension(item, translation, facts)
    result.update(_patch_policies(store, translation, facts))
    result.update(_pools(store, translation))
    result.update(_models(store))
    result.update(_objectives_and_rewrites(store))
    return result


def _gateway(
    served: attachment.ServedGateway,
    translation: Translation,
    facts: EnvoyFacts,
    options: Options,
) -> Status:
    gateway = served.gateway
    mine = [item for item in translation.listeners if item.gateway.ref == gateway.ref]
    listeners = [_listener(item, translation, facts) for item in mine]
    is_valid = any(item.is_served for item in mine)
    accepted = conditions.GATEWAY_ACCEPTED
    if served.is_adopted:
        accepted = conditions.GATEWAY_ADOPTED.format(name=gateway.spec.gateway_class_name)
    status: Status = {
        "conditions": [
            conditions.accepted(gateway, accepted)
            if is_valid
            else conditions.not_accepted(
                gateway, "ListenersNotValid", conditions.GATEWAY_LISTENERS_INVALID
            ),
            _gateway_programmed(gateway, listeners, facts, options),
        ],
        "listeners": listeners,
    }
    if options.advertised_address:
        status["addresses"] = [{"type": "IPAddress", "value": options.advertised_address}]
    return status


def _gateway_programmed(
    gateway: Gateway, listeners: Sequence[Status], facts: EnvoyFacts, options: Options
) -> Mapping[str, Any]:
    if not options.advertised_address:
        return conditions.not_programmed(
            gateway, "AddressNotAssigned", conditions.GATEWAY_NO_ADDRESS
        )
    if facts.connected == 0:
        return conditions.not_programmed(gateway, "NoResources", "Envoy replicas unavailable")
    if not any(_is_true(item["conditions"], "Programmed") for item in listeners):
        return conditions.not_programmed(gateway, "Invalid", "No listener is programmed")
    message = conditions.GATEWAY_PROGRAMMED.format(ready=facts.connected, wanted=facts.wanted)
    return conditions.programmed(gateway, message)


def _listener(
    item: attachment.BoundListener, translation: Translation, facts: EnvoyFacts
) -> Status:
    gateway = item.gateway
    refused = next(
        (facts.refused[key] for key in _keys_of(item) if key in facts.refused),
        None,
    )
    if item.conflict is not None:
        reason, message = item.conflict
        found = [
            conditions.not_accepted(gateway, reason, message),
            conditions.not_programmed(gateway, "Invalid", message),
        ]
        if reason in ("HostnameConflict", "ProtocolConflict"):
            found.append(
                conditions.condition(gateway, "Conflicted", conditions.TRUE, reason, message)
            )
    elif isinstance(item.certificates, Unresolved):
        found = [
            conditions.accepted(gateway, conditions.LISTENER_ACCEPTED),
            conditions.not_programmed(gateway, "Invalid", item.certificates.message),
        ]
    elif refused is not None and BIND_ERROR in refused:
        found = [
            conditions.not_accepted(gateway, "PortUnavailable", refused),
            conditions.not_programmed(gateway, "Invalid", refused),
        ]
    else:
        found = [
            conditions.accepted(gateway, conditions.LISTENER_ACCEPTED),
            conditions.not_programmed(gateway, "Invalid", f"Envoy refused it: {refused}")
            if refused is not None
            else conditions.programmed(gateway, conditions.LISTENER_PROGRAMMED)
            if item.port_name in facts.listeners
            else conditions.not_programmed(gateway, "Pending", "Waiting for Envoy"),
        ]
    found.append(_listener_refs(item))
    routes = {
        each.route.ref
        for parent in translation.parents
        for each in parent.attachments
        if each.listener.xds_name == item.xds_name
        and not any(rule.unsupported for rule in translation.rules.get(each.route.ref, ()))
    }
    return {
        "name": item.spec.name,
        "attachedRoutes": len(routes),
        "supportedKinds": [
            {"group": group, "kind": kind}
            for group, kind in SUPPORTED_KINDS
            if not _allowed_kinds(item) or (group, kind) in _allowed_kinds(item)
        ],
        "conditions": found,
    }


def _keys_of(item: attachment.BoundListener) -> list[Key]:
    """The resources that a listener lives by."""
    secrets = () if isinstance(item.certificates, Unresolved) else item.certificates
    return [
        Key(snapshot.LISTENER, item.port_name),
        Key(snapshot.ROUTE_CONFIGURATION, item.route_config),
        *(Key(snapshot.SECRET, names.secret(ref)) for ref in secrets),
    ]


def _listener_refs(item: attachment.BoundListener) -> dict[str, Any]:
    if isinstance(item.certificates, Unresolved):
        problem = item.certificates
        return conditions.refs_unresolved(item.gateway, problem.reason, problem.message)
    unknown = [kind for group, kind in _allowed_kinds(item) if (group, kind) not in SUPPORTED_KINDS]
    if unknown:
        message = f"Routes that cannot attach to a listener here: {', '.join(unknown)}"
        return conditions.refs_unresolved(item.gateway, "InvalidRouteKinds", message)
    return conditions.refs_resolved(item.gateway, conditions.LISTENER_REFS_RESOLVED)


def _allowed_kinds(item: attachment.BoundListener) -> list[tuple[str, str]]:
    """Group and kind of the routes that a listener names; none where it takes any."""
    return [(each.group, each.kind) for each in item.spec.allowed_routes.kinds]


def _routes(
    store: Store, translation: Translation, facts: EnvoyFacts, options: Options
) -> dict[Ref, Status]:
    parents: dict[Ref, list[Status]] = {}
    for item in translation.parents:
        entry = {
            "parentRef": item.parent.to_dict(),
            "controllerName": item.served.controller_name,
            "conditions": _route_conditions(item, translation, facts),
        }
        parents.setdefault(item.route.ref, []).append(entry)
    if options.is_alone:
        _add_unknown_parents(store, translation, parents)
    return {ref: {"parents": entries} for ref, entries in parents.items()}


def _add_unknown_parents(
    store: Store, translation: Translation, parents: dict[Ref, list[Status]]
) -> None:
    """On one machine nobody else will say that a route names a Gateway that is not there."""
    for route in attachment.routes(store):
        for parent in route.spec.parent_refs:
            ref = attachment.parent_ref(route, parent)
            if store.find(ref) is not None:
                continue
            message = f"{ref} not found"
            entry = {
                "parentRef": parent.to_dict(),
                "controllerName": translation.config.gateway.gateway.controller_name,
                "conditions": [conditions.not_accepted(route, "NoMatchingParent", message)],
            }
            parents.setdefault(route.ref, []).append(entry)


def _route_conditions(
    item: attachment.RouteParent, translation: Translation, facts: EnvoyFacts
) -> list[Mapping[str, Any]]:
    route = item.route
    found = translation.rules.get(route.ref, ())
    unsupported = [text for rule in found for text in rule.unsupported]
    problems = [problem for rule in found for problem in rule.problems]
    if item.refusal is not None:
        accepted = conditions.not_accepted(route, *item.refusal)
    elif unsupported:
        message = f"Not supported: {'; '.join(unsupported)}"
        accepted = conditions.not_accepted(route, "UnsupportedValue", message)
    else:
        accepted = conditions.accepted(route, conditions.ROUTE_ACCEPTED)
    if problems:
        message = "; ".join(dict.fromkeys(problem.message for problem in problems))
        resolved = conditions.refs_unresolved(route, problems[0].reason, message)
    else:
        resolved = conditions.refs_resolved(route, conditions.ROUTE_REFS_RESOLVED)
    return [accepted, resolved, *_refusals(route, translation, facts)]


def _refusals(
    subject: Resource, translation: Translation, facts: EnvoyFacts
) -> list[Mapping[str, Any]]:
    """Programmed=False where Envoy refused a resource for which this object is to blame first."""
    messages = [
        f"Envoy refused {key.name}: {message}"
        for key, message in facts.refused.items()
        if (found := translation.snapshot.resources.get(key)) is not None
        and found.origins[:1] == (subject.ref,)
    ]
    if not messages:
        return []
    return [conditions.not_programmed(subject, "Invalid", "; ".join(messages))]


def _extension(item: extensions.Extension, translation: Translation, facts: EnvoyFacts) -> Status:
    policy = item.policy
    targets = set(extensions.target_refs(policy))
    reached = [
        parent
        for parent in translation.parents
        if parent.route.ref in targets or parent.served.gateway.ref in targets
    ]
    gateways = dict.fromkeys((parent.served.gateway.ref, parent.parent) for parent in reached)
    missing = not reached and not any(
        served.gateway.ref in targets for served in translation.gateways
    )
    if missing:
        listed = ", ".join(str(ref) for ref in targets) or "nothing"
        message = f"Targets {listed}, which no Gateway of ours serves"
        refused = [conditions.not_accepted(policy, "TargetNotFound", message)]
        return _ancestors(targets, translation, refused)
    routes = [parent.route.ref for parent in reached]
    found: list[Mapping[str, Any]] = [
        *extensions.policy_conditions(translation.extensions, item, routes),
        *_refusals(policy, translation, facts),
    ]
    return _ancestors({gateway for gateway, _ in gateways}, translation, found)


def _patch_policies(store: Store, translation: Translation, facts: EnvoyFacts) -> dict[Ref, Status]:
    outcomes = {outcome.policy.ref: outcome for outcome in translation.patches}
    result = {}
    for policy in store.list(EnvoyPatchPolicy):
        problem = patches.target_problem(policy)
        target = patches.target_of(policy)
        found: list[Mapping[str, Any]]
        if not translation.config.gateway.extension_apis.enable_envoy_patch_policy:
            found = [conditions.not_accepted(policy, "Disabled", conditions.PATCHES_DISABLED)]
        elif problem is not None:
            found = [conditions.not_accepted(policy, "Invalid", problem)]
        elif policy.ref in outcomes:
            refused = _refusals(policy, translation, facts)
            own = outcomes[policy.ref].conditions()
            found = [own[0], *refused] if refused else [*own]
        else:
            message = f"{target} not found among the Gateways that are served"
            found = [conditions.not_accepted(policy, "TargetNotFound", message)]
        result[policy.ref] = _ancestors({target}, translation, found)
    return result


def _ancestors(
    gateways: Iterable[Ref], translation: Translation, found: Sequence[Mapping[str, Any]]
) -> Status:
    controllers = {item.gateway.ref: item.controller_name for item in translation.gateways}
    default = translation.config.gateway.gateway.controller_name
    return {
        "ancestors": [
            {
                "ancestorRef": {
                    "group": ref.group,
                    "kind": ref.kind,
                    "namespace": ref.namespace,
                    "name": ref.name,
                },
                "controllerName": controllers.get(ref, default),
                "conditions": list(found),
            }
            for ref in sorted(gateways)
        ]
    }


def _pools(store: Store, translation: Translation) -> dict[Ref, Status]:
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


def _models(store: Store) -> dict[Ref, Status]:
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


def _objectives_and_rewrites(store: Store) -> dict[Ref, Status]:
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


def _is_true(found: Iterable[Mapping[str, Any]], kind: str) -> bool:
    return any(item["type"] == kind and item["status"] == conditions.TRUE for item in found)
