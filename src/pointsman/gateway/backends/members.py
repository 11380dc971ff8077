"""Which servers are behind labels and Services: ready pods and endpoints, indexed.

An index is of one state of the store. What it found out of an object is handed on to the next one
for as long as the object is the same.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pointsman.resources.base import Ref
from pointsman.resources.core import Pod, pod_ip, pod_is_ready
from pointsman.resources.discovery import EndpointSlice
from pointsman.store import Store

SERVICE_LABEL = "kubernetes.io/service-name"
"""By which an EndpointSlice says whose it is."""


class Members:
    """The pods and EndpointSlices of a store."""

    def __init__(self, store: Store, before: Members | None = None) -> None:
        known = before.readiness if before is not None else {}
        self.readiness: dict[Ref, tuple[Pod, bool]] = {}
        """Each Pod as it was looked at, and whether new requests may go there."""
        self._by_label: dict[tuple[str, str, str], list[Pod]] = defaultdict(list)
        self._by_namespace: dict[str, list[Pod]] = defaultdict(list)
        self._slices: dict[tuple[str, str], list[EndpointSlice]] = defaultdict(list)
        for ref, pod, _ in store.held(Pod):
            if not isinstance(pod, Pod):
                continue
            entry = known.get(ref)
            if entry is None or entry[0] is not pod:
                entry = (pod, pod_is_ready(pod) and is_address(pod_ip(pod) or ""))
            self.readiness[ref] = entry
            if entry[1]:
                self._by_namespace[ref.namespace].append(pod)
                for key, value in pod.metadata.labels.items():
                    self._by_label[ref.namespace, key, value].append(pod)
        for item in store.list(EndpointSlice):
            service = item.metadata.labels.get(SERVICE_LABEL)
            if service is not None:
                self._slices[item.metadata.namespace, service].append(item)

    def ready_pods(self, namespace: str, labels: Mapping[str, str]) -> Sequence[Pod]:
        """The ready pods that have all of these labels, in the order of their names."""
        if not labels:
            return self._by_namespace.get(namespace, ())
        buckets = [self._by_label.get((namespace, key, value), ()) for key, value in labels.items()]
        smallest = min(buckets, key=len)
        if len(labels) == 1:
            return smallest
        wanted = labels.items()
        return [pod for pod in smallest if wanted <= pod.metadata.labels.items()]

    def slices(self, namespace: str, service: str) -> Sequence[EndpointSlice]:
        """The EndpointSlices of a Service."""
        return self._slices.get((namespace, service), ())


def is_address(text: str) -> bool:
    """An IP address as Envoy takes it: one that it does not take would cost the whole cluster."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text
