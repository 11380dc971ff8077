"""Envoy's resources as one value: what a translation makes and what xDS serves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import Message

from pointsman.resources.base import Ref

TYPE_PREFIX = "type.googleapis.com/"
LISTENER = f"{TYPE_PREFIX}envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION = f"{TYPE_PREFIX}envoy.config.route.v3.RouteConfiguration"
CLUSTER = f"{TYPE_PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINTS = f"{TYPE_PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = f"{TYPE_PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret"

TYPES = (CLUSTER, ENDPOINTS, SECRET, LISTENER, ROUTE_CONFIGURATION)
"""Every type that is served, in the order in which Envoy needs them."""


class Key(NamedTuple):
    """Which resource: its type URL and its name."""

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class EnvoyResource:
    """A resource and the objects it came from, the one to blame for an error first."""

    key: Key
    message: Message
    origins: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources at one moment."""

    resources: Mapping[Key, EnvoyResource] = field(default_factory=dict)

    def of_type(self, type_url: str) -> Iterator[EnvoyResource]:
        """The resources of one type, in the order in which they were made."""
        return (item for key, item in self.resources.items() if key.type_url == type_url)

    @classmethod
    def of(cls, items: Iterable[EnvoyResource]) -> Snapshot:
        """A snapshot of `items`; of two with one key the later counts."""
        return cls({item.key: item for item in items})
