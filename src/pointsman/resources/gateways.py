"""GatewayClass, Gateway and ReferenceGrant of the Gateway API."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.fields import (
    DNS_WILDCARD,
    LABEL_KEY,
    Broken,
    ControllerName,
    Group,
    Hostname,
    KindName,
    LabelValue,
    NamespaceName,
    ObjectName,
    Port,
    SectionName,
    repeated,
    unique,
)
from pointsman.resources.selectors import LabelSelector

GROUP = "gateway.networking.k8s.io"

PROTOCOL = (
    r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
    r"|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$"
)
ADDRESS_TYPE = (
    r"^Hostname|IPAddress|NamedAddress"
    r"|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    r"\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"
)
_LONGEST_KEY = 253 + 1 + 63
"""Characters of a label's key: prefix, slash, name."""
Option = Annotated[str, Field(max_length=4096)]


class ParametersRef(Model):
    """An object with settings of the implementation."""

    group: Group
    kind: KindName
    name: ObjectName
    namespace: NamespaceName | None = None


class GatewayClassSpec(Model):
    """Who serves the Gateways of a class."""

    controller_name: ControllerName
    """Immutable."""
    description: str | None = Field(default=None, max_length=64)
    parameters_ref: ParametersRef | None = None


class GatewayClass(Resource):
    """A class of Gateways."""

    KIND: ClassVar[Kind] = Kind(
        GROUP, "v1", "GatewayClass", "gatewayclasses", ("gc",), namespaced=False
    )

    spec: GatewayClassSpec


class SecretObjectRef(Model):
    """A Secret (or the like), perhaps of another namespace."""

    group: Group = ""
    kind: KindName = "Secret"
    name: ObjectName
    namespace: NamespaceName | None = None


class ObjectRef(Model):
    """Any object, perhaps of another namespace."""

    group: Group
    kind: KindName
    name: ObjectName
    namespace: NamespaceName | None = None


class ListenerTLS(Model):
    """How a listener speaks TLS."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: tuple[SecretObjectRef, ...] = Field(default=(), max_length=64)
    options: dict[str, Option] = Field(default_factory=dict, max_length=16)

    def _broken(self) -> Iterator[Broken]:
        if self.mode == "Terminate" and not self.certificate_refs and not self.options:
            yield ("certificateRefs",), "is required when mode is Terminate (or give options)"


class RouteNamespaces(Model):
    """From which namespaces routes may attach."""

    from_: Literal["All", "Selector", "Same"] = Field(default="Same", alias="from")
    selector: LabelSelector | None = None


class RouteGroupKind(Model):
    """A kind of route."""

    group: Group = GROUP
    kind: KindName


class AllowedRoutes(Model):
    """Which routes may attach to a listener."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = Field(default=(), max_length=8)


class Listener(Model):
    """A port, a protocol, and the hostname it answers for."""

    name: SectionName
    hostname: Hostname | None = None
    port: Port
    protocol: str = Field(min_length=1, max_length=255, pattern=PROTOCOL)
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(Model):
    """An address that the Gateway should have."""

    type: str = Field(default="IPAddress", min_length=1, max_length=253, pattern=ADDRESS_TYPE)
    value: str | None = Field(default=None, max_length=253)

    def _broken(self) -> Iterator[Broken]:
        if self.value is None:
            return
        if self.type == "Hostname" and not re.fullmatch(DNS_WILDCARD, self.value):
            yield ("value",), "must be a DNS name when type is Hostname"
        if self.type == "IPAddress" and not _is_ip(self.value):
            yield ("value",), "must be an IPv4 or IPv6 address when type is IPAddress"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


class InfrastructureParametersRef(Model):
    """An object with settings for the infrastructure, in the Gateway's namespace."""

    group: Group
    kind: KindName
    name: ObjectName


class Infrastructure(Model):
    """What the objects made for a Gateway carry."""

    labels: dict[str, LabelValue] = Field(default_factory=dict, max_length=8)
    annotations: dict[str, Option] = Field(default_factory=dict, max_length=16)
    parameters_ref: InfrastructureParametersRef | None = None

    def _broken(self) -> Iterator[Broken]:
        for field, keys in (("labels", self.labels), ("annotations", self.annotations)):
            for key in keys:
                if len(key) > _LONGEST_KEY or not re.fullmatch(LABEL_KEY, key):
                    yield (field, key), "must be a key like 'app' or 'example.com/app'"
                elif len(key.split("/")[0]) >= 253:
                    yield (field, key), "must have a prefix of less than 253 characters"


class ListenerNamespaces(Model):
    """From which namespaces sets of listeners may attach."""

    from_: Literal["All", "Selector", "Same", "None"] = Field(default="None", alias="from")
    selector: LabelSelector | None = None


class AllowedListeners(Model):
    """Which sets of listeners may attach to a Gateway."""

    namespaces: ListenerNamespaces = ListenerNamespaces()


class FrontendValidation(Model):
    """How certificates of clients are checked."""

    ca_certificate_refs: tuple[ObjectRef, ...] = Field(min_length=1, max_length=16)
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"


class FrontendTLSConfig(Model):
    """TLS towards clients."""

    validation: FrontendValidation | None = None


class FrontendTLSPort(Model):
    """TLS towards clients of one port."""

    port: Port
    tls: FrontendTLSConfig


class FrontendTLS(Model):
    """TLS towards clients: a default, and what differs for single ports."""

    default: FrontendTLSConfig
    per_port: tuple[FrontendTLSPort, ...] = Field(default=(), max_length=64)

    def _broken(self) -> Iterator[Broken]:
        yield from unique("perPort", [item.port for item in self.per_port], "port")


class BackendTLS(Model):
    """TLS towards backends: the Gateway's own certificate."""

    client_certificate_ref: SecretObjectRef | None = None


class GatewayTLS(Model):
    """TLS of a Gateway as a whole."""

    backend: BackendTLS | None = None
    frontend: FrontendTLS | None = None


class GatewaySpec(Model):
    """What a Gateway listens on."""

    gateway_class_name: ObjectName
    listeners: tuple[Listener, ...] = Field(min_length=1, max_length=64)
    addresses: tuple[GatewayAddress, ...] = Field(default=(), max_length=16)
    infrastructure: Infrastructure | None = None
    allowed_listeners: AllowedListeners | None = None
    tls: GatewayTLS | None = None

    def _broken(self) -> Iterator[Broken]:
        yield from listeners_rules(self.listeners)
        for position in repeated(
            (item.type, item.value) if _names_one(item) else index
            for index, item in enumerate(self.addresses)
        ):
            yield ("addresses", position, "value"), "must be unique"


def _names_one(address: GatewayAddress) -> bool:
    return address.value is not None and address.type in ("IPAddress", "Hostname")


def listeners_rules(listeners: Sequence[Listener]) -> Iterator[Broken]:
    """The rules that the listeners of one object obey, in the field `listeners`."""
    for position, listener in enumerate(listeners):
        for where, message in _listener_rules(listener):
            yield ("listeners", position, *where), message
    yield from unique("listeners", [item.name for item in listeners], "name")
    for position in repeated((i.port, i.protocol, i.hostname) for i in listeners):
        yield ("listeners", position), "port, protocol and hostname together must be unique"


def _listener_rules(listener: Listener) -> Iterator[Broken]:
    if listener.protocol in ("HTTP", "TCP", "UDP") and listener.tls is not None:
        yield ("tls",), f"must not be set when protocol is {listener.protocol}"
    if listener.protocol == "HTTPS" and listener.tls and listener.tls.mode != "Terminate":
        yield ("tls", "mode"), "must be Terminate when protocol is HTTPS"
    if listener.protocol == "TLS" and listener.tls is None:
        yield ("tls",), "is required when protocol is TLS"
    if listener.protocol in ("TCP", "UDP") and listener.hostname:
        yield ("hostname",), f"must not be set when protocol is {listener.protocol}"


class Gateway(Resource):
    """Listeners, and the class that serves them."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Gateway", "gateways", ("gtw",))

    spec: GatewaySpec


class GrantFrom(Model):
    """Who may refer."""

    group: Group
    kind: KindName
    namespace: NamespaceName


class GrantTo(Model):
    """To what may be referred."""

    group: Group
    kind: KindName
    name: ObjectName | None = None


class ReferenceGrantSpec(Model):
    """Who of another namespace may refer to what of this one."""

    from_: tuple[GrantFrom, ...] = Field(alias="from", min_length=1, max_length=16)
    to: tuple[GrantTo, ...] = Field(min_length=1, max_length=16)


class ReferenceGrant(Resource):
    """Leave to refer across namespaces, given by the namespace that is referred to."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "ReferenceGrant", "referencegrants", ("refgrant",))

    spec: ReferenceGrantSpec
