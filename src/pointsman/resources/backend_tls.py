"""BackendTLSPolicy: how a Gateway speaks TLS to a backend, and whom it trusts there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.fields import (
    Broken,
    Group,
    Hostname,
    KindName,
    ObjectName,
    PreciseHostname,
    SectionName,
    set_for_type,
)
from pointsman.resources.gateways import GROUP, Option

URI = r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?"
WELL_KNOWN = (
    r"^(System|([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    r"/([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]))$"
)

WellKnown = Annotated[str, Field(min_length=1, max_length=253, pattern=WELL_KNOWN)]


class PolicyTargetRef(Model):
    """What a policy is for: an object of its own namespace, or one section of it."""

    group: Group
    kind: KindName
    name: ObjectName
    section_name: SectionName | None = None
    """Of a Service: the name of a port."""


class LocalObjectRef(Model):
    """Any object of the same namespace."""

    group: Group
    kind: KindName
    name: ObjectName


class SubjectAltName(Model):
    """A name that the backend's certificate may have; `type` says which field is set."""

    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: Annotated[str, Field(min_length=1, max_length=253, pattern=URI)] | None = None

    def _broken(self) -> Iterator[Broken]:
        fields = (("Hostname", "hostname", self.hostname), ("URI", "uri", self.uri))
        yield from set_for_type(self.type, fields)


class BackendTLSValidation(Model):
    """Whose certificates are believed, and which name they must have."""

    ca_certificate_refs: tuple[LocalObjectRef, ...] = Field(default=(), max_length=8)
    well_known_ca_certificates: WellKnown | None = Field(
        default=None, alias="wellKnownCACertificates"
    )
    hostname: PreciseHostname
    subject_alt_names: tuple[SubjectAltName, ...] = Field(default=(), max_length=5)

    def _broken(self) -> Iterator[Broken]:
        if self.ca_certificate_refs and self.well_known_ca_certificates:
            message = "must not be set when caCertificateRefs is"
            yield ("wellKnownCACertificates",), message
        if not self.ca_certificate_refs and not self.well_known_ca_certificates:
            yield ("caCertificateRefs",), "is required (or give wellKnownCACertificates)"


class BackendTLSPolicySpec(Model):
    """Which backends are spoken to in TLS, and how they are known."""

    target_refs: tuple[PolicyTargetRef, ...] = Field(min_length=1, max_length=16)
    validation: BackendTLSValidation
    options: dict[str, Option] = Field(default_factory=dict, max_length=16)

    def _broken(self) -> Iterator[Broken]:
        sections: dict[tuple[str, str, str], set[str]] = {}
        for position, ref in enumerate(self.target_refs):
            seen = sections.setdefault((ref.group, ref.kind, ref.name), set())
            section = ref.section_name or ""
            where = ("targetRefs", position, "sectionName")
            if seen and (not section or "" in seen):
                yield where, "is required in each of several references to the same target"
            elif section in seen:
                yield where, "must be unique among references to the same target"
            seen.add(section)


class BackendTLSPolicy(Resource):
    """TLS towards a backend."""

    KIND: ClassVar[Kind] = Kind(
        GROUP, "v1", "BackendTLSPolicy", "backendtlspolicies", ("btlspolicy",)
    )

    spec: BackendTLSPolicySpec
