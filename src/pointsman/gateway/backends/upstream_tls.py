"""TLS towards backends: what BackendTLSPolicies say of Services, Backends and pools.

Rules (Gateway API, BackendTLSPolicy): of two policies for one target the older counts, and then the
first by namespace and name; one for a port of a Service goes before one for all of it. A policy
none of whose authorities can be read is not accepted, and its backends are not spoken to: what was
to be private is not sent in the clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import tls_pb2

from pointsman.gateway import names
from pointsman.gateway.backends.authorities import KEY, KINDS, bundle
from pointsman.gateway.messages import ADS, packed
from pointsman.resources.base import Ref, Resource
from pointsman.resources.core import ConfigMap, Secret, Service
from pointsman.resources.envoy_gateway import Backend
from pointsman.resources.gateway_api import (
    BackendTLSPolicy,
    BackendTLSValidation,
    LocalObjectRef,
    PolicyTargetRef,
)
from pointsman.resources.inference_extension import InferencePool, InferencePoolV1Alpha2
from pointsman.store import Store

SYSTEM = "System"

TARGETS: tuple[type[Resource], ...] = (Service, Backend, InferencePool, InferencePoolV1Alpha2)
TARGET_KINDS = frozenset((cls.KIND.group, cls.KIND.kind) for cls in TARGETS)
INPUTS: tuple[type[Resource], ...] = (BackendTLSPolicy, ConfigMap, Secret, *TARGETS)
"""The kinds that decide what a policy means."""
NO_AUTHORITY = "NoValidCACertificate"
INVALID = "Invalid"

Section = tuple[Ref, str]
"""An object and the name of a section of it; "" for all of it."""


@dataclass(frozen=True, slots=True)
class UpstreamTLS:
    """How a backend is spoken to."""

    policy: Ref
    hostname: str
    """The server name that is asked for, and which the certificate must have."""
    authorities: bytes = field(default=b"", repr=False)
    """Whom to believe, in PEM; b"" for those of a file."""
    authorities_path: str = ""
    """The file with the well-known authorities, where these are believed."""
    alt_names: tuple[tuple[str, str], ...] = ()
    """Type and value of the names of which the certificate must have one instead."""
    trusts_anybody: bool = False
    """Whatever certificate is shown is taken."""
    is_broken: bool = False
    """Nobody can be believed, so the backend is not spoken to."""


@dataclass(frozen=True, slots=True)
class TLSPolicy:
    """A BackendTLSPolicy and what became of it."""

    policy: BackendTLSPolicy
    tls: UpstreamTLS
    targets: tuple[Section, ...] = ()
    """For which it counts."""
    refusal: tuple[str, str] | None = None
    """Reason and message, where it is not accepted."""
    unresolved: tuple[str, str] | None = None
    """Reason and message, where some authority cannot be read."""

    @property
    def target_refs(self) -> tuple[Ref, ...]:
        """The objects that it names."""
        return tuple(dict.fromkeys(ref for ref, _ in _sections(self.policy)))

    @property
    def lost(self) -> tuple[Ref, ...]:
        """The objects that older policies hold, where it counts for others."""
        return tuple(ref for ref, name in _sections(self.policy) if (ref, name) not in self.targets)


class TLSPolicies:
    """All BackendTLSPolicies, by what they are for."""

    def __init__(self, store: Store, authorities_path: str) -> None:
        """`authorities_path` is the file with the well-known authorities, "" where none is."""
        self._authorities_path = authorities_path
        self.inputs = _inputs(store, authorities_path)
        """All that they are judged by, in a form that can be compared."""
        self.items: dict[Ref, TLSPolicy] = {}
        self._of_section: dict[Section, UpstreamTLS] = {}
        for policy in sorted(store.list(BackendTLSPolicy), key=lambda item: item.age_key):
            found = self._judge(store, policy)
            self.items[policy.ref] = found
            for section in found.targets:
                self._of_section[section] = found.tls

    def of(self, target: Ref, section: str | None = None) -> UpstreamTLS | None:
        """How to speak TLS to an object, by that port of it; None where in the clear."""
        named = self._of_section.get((target, section)) if section else None
        return named or self._of_section.get((target, ""))

    def _judge(self, store: Store, policy: BackendTLSPolicy) -> TLSPolicy:
        tls, unresolved = _upstream_tls(store, policy, self._authorities_path)
        wanted = list(_sections(policy))
        found = TLSPolicy(policy, tls, unresolved=unresolved)
        problem = next(filter(None, (_target_problem(store, *item) for item in wanted)), None)
        if problem is not None:
            return _refused(found, "TargetNotFound", problem)
        free = tuple(item for item in wanted if item not in self._of_section)
        if not free:
            held = ", ".join(sorted({str(ref) for ref, _ in wanted}))
            message = f"An older BackendTLSPolicy holds {held}"
            return _refused(found, "Conflicted", message)
        refusal = None
        if tls.is_broken and unresolved is not None:
            reason, message = unresolved
            refusal = (reason if reason == INVALID else NO_AUTHORITY, message)
        return TLSPolicy(policy, tls, free, refusal, unresolved)


def tls_policies(store: Store, authorities_path: str, before: TLSPolicies | None) -> TLSPolicies:
    """The policies as they are now: `before`, where nothing has changed for them.

    Pods come and go often; certificates are not read anew for that.
    """
    if before is not None and before.inputs == _inputs(store, authorities_path):
        return before
    return TLSPolicies(store, authorities_path)


def _inputs(store: Store, authorities_path: str) -> tuple[Any, ...]:
    return (authorities_path, *(store.kind_version(kind) for kind in INPUTS))


def transport_socket(
    tls: UpstreamTLS, is_http2: bool, certificate: Ref | None = None
) -> dict[str, object]:
    """The transport socket of a cluster whose servers speak TLS.

    `certificate` is the Secret with what they are shown when they ask who we are.
    """
    trusted: dict[str, object] = (
        {"inline_bytes": tls.authorities} if tls.authorities else {"filename": tls.authorities_path}
    )
    named = (("DNS", tls.hostname),) if tls.hostname else ()
    validation = {
        "trusted_ca": trusted,
        "match_typed_subject_alt_names": [
            {"san_type": kind, "matcher": {"exact": value}}
            for kind, value in tls.alt_names or named
        ],
    }
    context = tls_pb2.UpstreamTlsContext(
        sni=tls.hostname,
        common_tls_context={
            "alpn_protocols": ["h2" if is_http2 else "http/1.1"],
            "validation_context": None if tls.trusts_anybody else validation,
        },
    )
    if certificate is not None:
        context.common_tls_context.tls_certificate_sds_secret_configs.add(
            name=names.secret(certificate), sds_config=ADS
        )
    return {"name": names.TLS, "typed_config": packed(context)}


def _refused(found: TLSPolicy, reason: str, message: str) -> TLSPolicy:
    return TLSPolicy(found.policy, found.tls, (), (reason, message), found.unresolved)


def _sections(policy: BackendTLSPolicy) -> Iterator[Section]:
    for item in policy.spec.target_refs:
        yield _target(policy, item), item.section_name or ""


def _target(policy: BackendTLSPolicy, item: PolicyTargetRef) -> Ref:
    return Ref(item.group, item.kind, policy.metadata.namespace, item.name)


def _target_problem(store: Store, target: Ref, section: str) -> str | None:
    if (target.group, target.kind) not in TARGET_KINDS:
        return f"{target} is no backend; use a Service, a Backend or an InferencePool"
    found = store.find(target)
    if found is None:
        return f"{target} not found"
    if not section:
        return None
    if not isinstance(found, Service):
        return f"{target} has no sections; leave sectionName out"
    if not any(port.name == section for port in found.spec.ports):
        known = ", ".join(port.name for port in found.spec.ports if port.name) or "no names"
        return f"{target} has no port of the name {section}; it has: {known}"
    return None


def _upstream_tls(
    store: Store, policy: BackendTLSPolicy, path: str
) -> tuple[UpstreamTLS, tuple[str, str] | None]:
    validation = policy.spec.validation
    alt_names = tuple(
        ("DNS", item.hostname or "") if item.type == "Hostname" else ("URI", item.uri or "")
        for item in validation.subject_alt_names
    )
    if not validation.ca_certificate_refs:
        problem = _well_known_problem(validation, path)
        return (
            UpstreamTLS(
                *(policy.ref, validation.hostname, b"", path, alt_names),
                is_broken=problem is not None,
            ),
            problem,
        )
    found = [_authorities(store, policy, ref) for ref in validation.ca_certificate_refs]
    good = b"".join(item for item in found if isinstance(item, bytes))
    problem = next((item for item in found if isinstance(item, tuple)), None)
    tls = UpstreamTLS(policy.ref, validation.hostname, good, "", alt_names, is_broken=not good)
    return tls, problem


def _well_known_problem(validation: BackendTLSValidation, path: str) -> tuple[str, str] | None:
    wanted = validation.well_known_ca_certificates
    if wanted == SYSTEM and path:
        return None
    if wanted == SYSTEM:
        message = "There is no file with the well-known authorities; use caCertificateRefs"
        return (INVALID, message)
    return (INVALID, f"wellKnownCACertificates {wanted} is not known; use {SYSTEM}")


def _authorities(
    store: Store, policy: BackendTLSPolicy, item: LocalObjectRef
) -> bytes | tuple[str, str]:
    ref = Ref(item.group, item.kind, policy.metadata.namespace, item.name)
    if (ref.group, ref.kind) not in KINDS:
        return ("InvalidKind", f"{ref} holds no certificates; use a ConfigMap")
    found = bundle(store, ref)
    if found is None:
        message = f"{ref} is not there, or holds no certificate in PEM under {KEY}"
        return ("InvalidCACertificateRef", message)
    return found
