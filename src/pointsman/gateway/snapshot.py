"""Envoy's resources as one value: what a translation makes and what xDS serves.

A resource is kept as its bytes. They are made once, when the resource changes; their hash is the
version that Envoy is told, and a large resource can be put together from parts that are bytes
already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
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

_CLASSES: Mapping[str, type[Message]] = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    SECRET: secret_pb2.Secret,
    LISTENER: listener_pb2.Listener,
    ROUTE_CONFIGURATION: route_pb2.RouteConfiguration,
}

VERSION_BYTES = 8
"""64 bits: two versions of one resource never meet by chance."""


class Key(NamedTuple):
    """Which resource: its type URL and its name."""

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class EnvoyResource:
    """A resource and the objects it came from, the one to blame for an error first."""

    key: Key
    content: bytes
    """The message in protobuf's wire format."""
    version: str
    """Made from the content: equal bytes have equal versions."""
    origins: tuple[Ref, ...] = ()

    @classmethod
    def of(cls, key: Key, message: Message, origins: tuple[Ref, ...] = ()) -> EnvoyResource:
        """A resource from its message; map entries go in a fixed order."""
        return cls.of_content(key, message.SerializeToString(deterministic=True), origins)

    @classmethod
    def of_content(cls, key: Key, content: bytes, origins: tuple[Ref, ...] = ()) -> EnvoyResource:
        """A resource from its bytes."""
        version = hashlib.blake2b(content, digest_size=VERSION_BYTES).hexdigest()
        return cls(key, content, version, origins)

    @property
    def message(self) -> Message:
        """The resource as a message of its own, read anew each time."""
        return message_class(self.key.type_url).FromString(self.content)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources at one moment, by type and name."""

    types: Mapping[str, Mapping[str, EnvoyResource]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[EnvoyResource]:
        """Every resource, type by type."""
        return (item for items in self.types.values() for item in items.values())

    def get(self, key: Key) -> EnvoyResource | None:
        """The resource of that type and name."""
        return self.types.get(key.type_url, {}).get(key.name)

    def names(self, type_url: str) -> Mapping[str, EnvoyResource]:
        """The resources of one type by name, in the order in which they were made."""
        return self.types.get(type_url, {})

    def of_type(self, type_url: str) -> Iterator[EnvoyResource]:
        """The resources of one type, in the order in which they were made."""
        return iter(self.names(type_url).values())

    @classmethod
    def of(cls, items: Iterable[EnvoyResource]) -> Snapshot:
        """A snapshot of `items`; of two with one key the later counts."""
        types: dict[str, dict[str, EnvoyResource]] = {type_url: {} for type_url in TYPES}
        for item in items:
            types[item.key.type_url][item.key.name] = item
        return cls(types)


def message_class(type_url: str) -> type[Message]:
    """The Python class of a resource type."""
    return _CLASSES[type_url]
