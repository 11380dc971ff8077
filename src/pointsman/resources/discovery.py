"""The objects of the discovery group: EndpointSlice."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.fields import Flag, Port

SERVICE_LABEL = "kubernetes.io/service-name"
"""On an EndpointSlice: the Service that it belongs to."""


class EndpointConditions(Model):
    """Whether an endpoint takes requests; unset `ready` means that nobody knows: taken for yes."""

    ready: Flag | None = None
    serving: Flag | None = None
    terminating: Flag | None = None


class TargetRef(Model):
    """The object behind an endpoint, usually a Pod."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    field_path: str = ""


class Endpoint(Model):
    """One server of a Service."""

    UNUSED: ClassVar[frozenset[str]] = frozenset({"deprecatedTopology", "hints"})

    addresses: tuple[str, ...] = Field(min_length=1, max_length=100)
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: TargetRef | None = None

    @property
    def is_ready(self) -> bool:
        """Takes new requests."""
        return self.conditions.ready is not False and not self.conditions.terminating


class EndpointPort(Model):
    """A port that every endpoint of the slice has."""

    name: str = ""
    port: Port | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    app_protocol: str | None = None


class EndpointSlice(Resource):
    """Some of the servers of a Service."""

    KIND: ClassVar[Kind] = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")

    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] = Field(default=(), max_length=1000)
    ports: tuple[EndpointPort, ...] = Field(default=(), max_length=100)

    @property
    def service_name(self) -> str:
        """The Service of the same namespace, or ""."""
        return self.metadata.labels.get(SERVICE_LABEL, "")
