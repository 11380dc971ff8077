"""ClientTrafficPolicy: which of them counts for a listener, and what of it is served.

A policy that is refused has no effect, but for one thing: where it says whose certificates are
believed and that cannot be found out, its HTTPS listeners let nobody in. What was to be closed is
not left open.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from pointsman.gateway.backends import cluster_settings
from pointsman.gateway.backends.authorities import KEY, KINDS, bundle
from pointsman.gateway.backends.references import Resolver
from pointsman.gateway.policies import tls_names
from pointsman.gateway.policies.targets import Place, Targets
from pointsman.gateway.routes import filters, regexes
from pointsman.resources.base import Ref
from pointsman.resources.client_policies import (
    ClientPolicySpec,
    ClientTrafficPolicy,
    ClientValidation,
    StringMatch,
)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What a policy means for a listener."""

    policy: Ref
    spec: ClientPolicySpec
    authorities: bytes = field(default=b"", repr=False)
    """Whom to believe of clients, in PEM; b"" where the policy names nobody."""
    is_closed: bool = False
    """Whom to believe cannot be found out, so nobody is let in by TLS, and nothing else counts."""


class ClientPolicies:
    """Every ClientTrafficPolicy, by what it targets."""

    def __init__(self, resolver: Resolver) -> None:
        self.targets = Targets(resolver.store.list(ClientTrafficPolicy))
        self.problems: dict[Ref, str | None] = {}
        """Why policies are refused."""
        self._settings: dict[Ref, ClientSettings | None] = {}
        for policy in self.targets.policies:
            self._add(policy, resolver)

    def of_listener(self, place: Place) -> ClientSettings | None:
        """What counts for a listener."""
        found = self.targets.of_listener(place)
        return self._settings[found.ref] if found is not None else None

    def _add(self, policy: ClientTrafficPolicy, resolver: Resolver) -> None:
        spec = policy.spec
        validation = spec.tls.client_validation if spec.tls is not None else None
        authorities, problems = _authorities(policy, validation, resolver)
        problems = [*problems, *_problems(spec)]
        self.problems[policy.ref] = "; ".join(problems) or None
        if not problems:
            self._settings[policy.ref] = ClientSettings(policy.ref, spec, authorities)
        elif validation is not None:
            self._settings[policy.ref] = ClientSettings(policy.ref, spec, is_closed=True)
        else:
            self._settings[policy.ref] = None


def ignored(spec: ClientPolicySpec) -> Iterator[str]:
    """Fields that change nothing, wherever the policy counts."""
    if spec.timeout is not None and spec.timeout.tcp is not None:
        yield "timeout.tcp"
    if spec.http3 is not None:
        yield "http3"
    if spec.grpc is not None:
        yield "grpc"
    if spec.http1 is not None and spec.http1.ignored_upgrade_types:
        yield "http1.ignoredUpgradeTypes"
    if spec.http1 is not None and spec.http1.disable_safe_max_connection_duration:
        yield "http1.disableSafeMaxConnectionDuration"
    if spec.headers is not None:
        if spec.headers.x_forwarded_client_cert is not None:
            yield "headers.xForwardedClientCert"
        if spec.headers.late_response_headers is not None:
            yield "headers.lateResponseHeaders"
        if spec.headers.disable_rate_limit_headers is not None:
            yield "headers.disableRateLimitHeaders"
    if spec.tls is not None and spec.tls.session is not None:
        yield "tls.session"


def _authorities(
    policy: ClientTrafficPolicy, validation: ClientValidation | None, resolver: Resolver
) -> tuple[bytes, list[str]]:
    """Whom a policy believes, and what is wrong with its references."""
    found: list[bytes] = []
    problems: list[str] = []
    for item in validation.ca_certificate_refs if validation is not None else ():
        namespace = item.namespace or policy.metadata.namespace
        ref = Ref(item.group, item.kind, namespace, item.name)
        at = "tls.clientValidation.caCertificateRefs"
        if (ref.group, ref.kind) not in KINDS:
            problems.append(f"{at}: {ref} holds no certificates; use a ConfigMap or a Secret")
        elif ref.namespace != policy.metadata.namespace and not resolver.is_granted(
            policy.ref, ref
        ):
            problems.append(f"{at}: {ref} is not permitted by any ReferenceGrant")
        else:
            content = bundle(resolver.store, ref)
            if content is None:
                what = f"is not there, or holds no certificate in PEM under {KEY}"
                problems.append(f"{at}: {ref} {what}")
            else:
                found.append(content)
    return b"\n".join(found), problems


def _problems(spec: ClientPolicySpec) -> Iterator[str]:
    """What is not served and would make it another policy, and what Envoy would refuse."""
    connection = spec.connection
    if connection is not None:
        yield from cluster_settings.size_problem(
            "connection.bufferLimit", connection.buffer_limit, cluster_settings.MOST_BUFFER_BYTES
        )
        yield from cluster_settings.size_problem(
            "connection.socketBufferLimit",
            connection.socket_buffer_limit,
            cluster_settings.MOST_SOCKET_BUFFER_BYTES,
        )
        limit = connection.connection_limit
        if limit is not None and limit.value == 0:
            yield "connection.connectionLimit.value must be at least 1"
        if limit is not None and limit.value is None and limit.close_delay is not None:
            yield "connection.connectionLimit.closeDelay needs a value"
    if spec.http2 is not None:
        yield from cluster_settings.http2_problems(spec.http2)
    early = spec.headers.early_request_headers if spec.headers is not None else None
    for text in filters.header_problems(early) if early is not None else ():
        yield f"headers.earlyRequestHeaders: {text}"
    detection = spec.client_ip_detection
    if detection is not None and detection.x_forwarded_for is not None:
        for position, text in enumerate(detection.x_forwarded_for.trusted_cidrs):
            if not _is_network(text):
                at = f"clientIPDetection.xForwardedFor.trustedCIDRs[{position}]"
                yield f"{at} must be a range like 10.0.0.0/8, is {text!r}"
    if spec.tls is not None:
        yield from tls_names.problems(spec.tls)
        if spec.tls.client_validation is not None:
            yield from _validation_problems(spec.tls.client_validation)


def _validation_problems(spec: ClientValidation) -> Iterator[str]:
    at = "tls.clientValidation"
    if spec.crl is not None:
        yield f"{at}.crl is not supported"
    names = spec.subject_alt_names
    believed = (spec.ca_certificate_refs, spec.spki_hashes, spec.certificate_hashes)
    if not any(believed):
        yield f"{at} needs caCertificateRefs, spkiHashes or certificateHashes"
    if names is not None:
        if not spec.ca_certificate_refs:
            yield f"{at}.subjectAltNames needs caCertificateRefs"
        every: tuple[StringMatch, ...] = (
            *names.dns_names,
            *names.email_addresses,
            *names.ip_addresses,
            *names.uris,
            *names.other_names,
        )
        for item in every:
            wrong = regexes.problem(item.value) if item.type == "RegularExpression" else None
            if wrong is not None:
                yield f"{at}.subjectAltNames: {item.value!r} {wrong}"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def keeps_header_case(settings: ClientSettings | None) -> bool:
    """Headers of HTTP/1 keep their letters as clients write them."""
    if settings is None or settings.is_closed or settings.spec.http1 is None:
        return False
    return bool(settings.spec.http1.preserve_header_case)
