"""What a ClientTrafficPolicy says of TLS: versions, ciphers, and which certificates are taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from pointsman.gateway.policies.clients import ClientSettings
from pointsman.gateway.policies.tls_names import distinct_curves
from pointsman.resources.client_policies import AltNames, ClientTLS, ClientValidation, StringMatch

VERSIONS = {
    "Auto": "TLS_AUTO",
    "1.0": "TLSv1_0",
    "1.1": "TLSv1_1",
    "1.2": "TLSv1_2",
    "1.3": "TLSv1_3",
}
NOBODY = "00" * 32
"""The hash of a certificate that nobody has."""

_MATCHERS = {
    "Exact": "exact",
    "Prefix": "prefix",
    "Suffix": "suffix",
}


def apply(settings: ClientSettings, context: tls_pb2.DownstreamTlsContext) -> None:
    """Write the policy into a context that is complete but for it."""
    common = context.common_tls_context
    if settings.is_closed:
        context.require_client_certificate.value = True
        common.validation_context.Clear()
        common.validation_context.verify_certificate_hash.append(NOBODY)
        return
    spec = settings.spec.tls
    if spec is None:
        return
    _parameters(spec, common)
    if spec.client_validation is not None:
        _validation(spec.client_validation, settings.authorities, context)


def _parameters(spec: ClientTLS, common: tls_pb2.CommonTlsContext) -> None:
    protocol = common_pb2.TlsParameters.TlsProtocol
    if spec.min_version is not None:
        least = protocol.Value(VERSIONS[spec.min_version])
        common.tls_params.tls_minimum_protocol_version = least
    if spec.max_version is not None:
        most = protocol.Value(VERSIONS[spec.max_version])
        common.tls_params.tls_maximum_protocol_version = most
    common.tls_params.cipher_suites.extend(spec.ciphers)
    common.tls_params.ecdh_curves.extend(distinct_curves(spec.ecdh_curves))
    common.tls_params.signature_algorithms.extend(dict.fromkeys(spec.signature_algorithms))
    if spec.alpn_protocols is not None:
        del common.alpn_protocols[:]
        common.alpn_protocols.extend(spec.alpn_protocols)


def _validation(
    spec: ClientValidation, authorities: bytes, context: tls_pb2.DownstreamTlsContext
) -> None:
    context.require_client_certificate.value = not spec.optional
    validation = context.common_tls_context.validation_context
    validation.Clear()
    if authorities:
        validation.trusted_ca.inline_bytes = authorities
    validation.verify_certificate_spki.extend(spec.spki_hashes)
    validation.verify_certificate_hash.extend(spec.certificate_hashes)
    if spec.subject_alt_names is not None:
        for matcher in _alt_names(spec.subject_alt_names):
            validation.match_typed_subject_alt_names.add(**matcher)


def _alt_names(names: AltNames) -> Iterator[dict[str, Any]]:
    groups = {
        "DNS": names.dns_names,
        "EMAIL": names.email_addresses,
        "IP_ADDRESS": names.ip_addresses,
        "URI": names.uris,
    }
    for kind, items in groups.items():
        yield from ({"san_type": kind, "matcher": _matcher(item)} for item in items)
    for other in names.other_names:
        yield {"san_type": "OTHER_NAME", "matcher": _matcher(other), "oid": other.oid}


def _matcher(match: StringMatch) -> dict[str, Any]:
    if match.type == "RegularExpression":
        return {"safe_regex": {"regex": match.value}}
    return {_MATCHERS[match.type]: match.value}
