"""Which servers are behind labels and Services: ready pods and endpoints, indexed.

An index is of one state of the store, and starts from the one before it: a cluster has thousands of
pods, of which one at a time changes, so that only what has changed is looked at.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pointsman.resources.core import Pod, pod_ip, pod_is_ready
from pointsman.resources.discovery import EndpointSlice
from pointsman.store import Held, Store

SERVICE_LABEL = "kubernetes.io/service-name"
"""By which an EndpointSlice says whose it is."""

_Key = tuple[str, str, str]
"""A namespace, and a label of pods there with its value."""


class Members:
    """The pods and EndpointSlices of a store."""

    def __init__(self, store: Store, before: Members | None = None) -> None:
        """`before` is of an earlier state of the store."""
        self.pods: Sequence[Held] = store.held(Pod)
        self.endpoint_slices: Sequence[Held] = store.held(EndpointSlice)
        self.ready: Mapping[_Key, Sequence[Pod]] = _ready(self.pods, before)
        self.slices_of: Mapping[tuple[str, str], Sequence[EndpointSlice]] = (
            before.slices_of
            if before is not None and before.endpoint_slices is self.endpoint_slices
            else _slices_of(self.endpoint_slices)
        )

    def ready_pods(self, namespace: str, labels: Mapping[str, str]) -> Sequence[Pod]:
        """The ready pods that have all of these labels, in the order of their names."""
        if not labels:
            # Whoever selects everything is rare.
            of_namespace = (held for held in self.pods if held.ref.namespace == namespace)
            return [pod for held in of_namespace if (pod := _ready_pod(held)) is not None]
        buckets = [self.ready.get((namespace, key, value), ()) for key, value in labels.items()]
        smallest = min(buckets, key=len)
        if len(labels) == 1:
            return smallest
        wanted = labels.items()
        return [pod for pod in smallest if wanted <= pod.metadata.labels.items()]

    def slices(self, namespace: str, service: str) -> Sequence[EndpointSlice]:
        """The EndpointSlices of a Service."""
        return self.slices_of.get((namespace, service), ())


def is_address(text: str) -> bool:
    """An IP address as Envoy takes it: one that it does not take would cost the whole cluster."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _ready(pods: Sequence[Held], before: Members | None) -> Mapping[_Key, Sequence[Pod]]:
    """The pods to which new requests may go, by what selects them; what is as it was is kept."""
    known = before.pods if before is not None else ()
    result = dict(before.ready) if before is not None else {}
    come: dict[_Key, list[Pod]] = defaultdict(list)
    gone: dict[_Key, set[int]] = defaultdict(set)
    for pod in _lacking(known, pods):
        for key in _keys(pod):
            gone[key].add(id(pod))
    for pod in _lacking(pods, known):
        for key in _keys(pod):
            come[key].append(pod)
    for key in gone.keys() | come.keys():
        left = [pod for pod in result.pop(key, ()) if id(pod) not in gone[key]]
        if there := [*left, *come[key]]:
            result[key] = sorted(there, key=_name)
    return result


def _lacking(held: Sequence[Held], others: Sequence[Held]) -> Iterator[Pod]:
    """The ready pods of a state that another state has not, or has otherwise."""
    if held is others:
        return
    # The store holds what stays the same as the same object.
    known = set(map(id, others))
    for item in held:
        if id(item) not in known and (pod := _ready_pod(item)) is not None:
            yield pod


def _ready_pod(held: Held) -> Pod | None:
    """The pod, if new requests may go there."""
    pod = held.item
    if isinstance(pod, Pod) and pod_is_ready(pod) and is_address(pod_ip(pod) or ""):
        return pod
    return None


def _keys(pod: Pod) -> Iterator[_Key]:
    namespace = pod.metadata.namespace
    for key, value in pod.metadata.labels.items():
        yield namespace, key, value


def _name(pod: Pod) -> str:
    return pod.metadata.name


def _slices_of(held: Sequence[Held]) -> Mapping[tuple[str, str], Sequence[EndpointSlice]]:
    result: dict[tuple[str, str], list[EndpointSlice]] = defaultdict(list)
    for entry in held:
        item = entry.item
        if isinstance(item, EndpointSlice):
            service = item.metadata.labels.get(SERVICE_LABEL)
            if service is not None:
                result[item.metadata.namespace, service].append(item)
    return result
