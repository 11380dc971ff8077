"""ListenerSets: which of them a Gateway takes in.

Rule (Gateway API, Gateway.spec.allowedListeners): none unless the Gateway says from where. Of two
sets the older one comes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pointsman.gateway.listeners.classes import ServedGateway
from pointsman.resources.base import Ref
from pointsman.resources.core import Namespace
from pointsman.resources.gateway_api import ListenerNamespaces, ListenerSet, RouteNamespaces
from pointsman.store import Store

NamespaceLabels = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class ServedSet:
    """A ListenerSet that names a Gateway of ours."""

    listener_set: ListenerSet
    served: ServedGateway
    refusal: tuple[str, str] | None = None
    """Reason and message, where the Gateway does not take it."""


def namespace_labels(store: Store) -> NamespaceLabels:
    """The labels of each namespace that has an object of its own."""
    return {item.metadata.name: item.metadata.labels for item in store.list(Namespace)}


def selects(
    where: RouteNamespaces | ListenerNamespaces, home: str, namespace: str, labels: NamespaceLabels
) -> bool:
    """Whether what lies in `namespace` may attach to what lies in `home`."""
    if where.from_ == "All":
        return True
    if where.from_ == "Selector" and where.selector is not None:
        # A namespace without an object of its own has the one label that Kubernetes gives it.
        implied = {"kubernetes.io/metadata.name": namespace}
        return where.selector.matches({**implied, **labels.get(namespace, {})})
    return where.from_ == "Same" and namespace == home


def parent_of(item: ListenerSet) -> Ref:
    """The object that a ListenerSet wants to attach to."""
    parent = item.spec.parent_ref
    namespace = parent.namespace or item.metadata.namespace
    return Ref(parent.group, parent.kind, namespace, parent.name)


def served_sets(store: Store, gateways: Iterable[ServedGateway]) -> list[ServedSet]:
    """Every ListenerSet of a Gateway of ours, older ones first."""
    by_ref = {item.gateway.ref: item for item in gateways}
    labels = namespace_labels(store)
    result = []
    for item in sorted(store.list(ListenerSet), key=lambda item: item.age_key):
        served = by_ref.get(parent_of(item))
        if served is not None:
            result.append(ServedSet(item, served, _refusal(item, served, labels)))
    return result


def _refusal(
    item: ListenerSet, served: ServedGateway, labels: NamespaceLabels
) -> tuple[str, str] | None:
    gateway = served.gateway
    if served.problem is not None:
        return ("ParentNotAccepted", f"{gateway.ref} is not accepted")
    allowed = gateway.spec.allowed_listeners
    where = allowed.namespaces if allowed is not None else ListenerNamespaces()
    if selects(where, gateway.metadata.namespace, item.metadata.namespace, labels):
        return None
    message = (
        f"{gateway.ref} takes no ListenerSets from namespace {item.metadata.namespace} "
        "(spec.allowedListeners)"
    )
    return ("NotAllowed", message)
