"""TLS towards clients: the certificates of HTTPS listeners, as Envoy's secrets.

A certificate is a Secret of type kubernetes.io/tls. What is wrong with one is found here and not by
Envoy, so that it becomes a condition of its listener and hurts no other.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2

from pointsman.gateway import names, snapshot
from pointsman.gateway.backends.references import Resolver, Unresolved
from pointsman.gateway.listeners import client_tls
from pointsman.gateway.listeners.client_trust import ClientTrust
from pointsman.gateway.messages import ADS, packed
from pointsman.gateway.policies.clients import ClientSettings
from pointsman.gateway.snapshot import EnvoyResource, Key
from pointsman.resources.base import Ref
from pointsman.resources.core import Secret
from pointsman.resources.gateway_api import Gateway, Listener, ListenerSet, SecretObjectRef

HTTPS = "HTTPS"
CERTIFICATE_KEY = "tls.crt"
PRIVATE_KEY_KEY = "tls.key"
MIN_RSA_BITS = 2048
ALPN = ("h2", "http/1.1")
INSPECTOR = "envoy.filters.listener.tls_inspector"


def certificate_refs(
    resolver: Resolver, owner: Gateway | ListenerSet, spec: Listener
) -> tuple[Ref, ...] | Unresolved:
    """The Secrets of a listener of `owner`, each checked, or what is wrong with one of them."""
    if spec.protocol != HTTPS:
        return ()
    if spec.tls is None or not spec.tls.certificate_refs:
        return Unresolved("InvalidCertificateRef", "An HTTPS listener needs tls.certificateRefs")
    result = []
    for item in spec.tls.certificate_refs:
        found = _certificate(resolver, owner, item, "InvalidCertificateRef")
        if isinstance(found, Unresolved):
            return found
        result.append(found)
    return tuple(result)


def client_certificate(resolver: Resolver, gateway: Gateway) -> Ref | Unresolved | None:
    """The Secret that a Gateway shows to backends that ask who it is; None where it has none."""
    tls = gateway.spec.tls
    item = tls.backend.client_certificate_ref if tls is not None and tls.backend else None
    if item is None:
        return None
    return _certificate(resolver, gateway, item, "InvalidClientCertificateRef")


def _certificate(
    resolver: Resolver, owner: Gateway | ListenerSet, item: SecretObjectRef, reason: str
) -> Ref | Unresolved:
    """A checked Secret, or what is wrong with it, for `reason` if it may be looked at."""
    namespace = item.namespace or owner.metadata.namespace
    ref = Ref(item.group, item.kind, namespace, item.name)
    is_local = ref.namespace == owner.metadata.namespace
    if not is_local and not resolver.is_granted(owner.ref, ref):
        message = f"Certificate ref to {ref} not permitted by any ReferenceGrant."
        return Unresolved("RefNotPermitted", message)
    problem = _problem(resolver, ref)
    return ref if problem is None else Unresolved(reason, f"{ref} {problem}")


def secret_resource(secret: Secret) -> EnvoyResource:
    """A checked Secret as Envoy gets it."""
    name = names.secret(secret.ref)
    message = secret_pb2.Secret(
        name=name,
        tls_certificate={
            "certificate_chain": {"inline_bytes": secret.value(CERTIFICATE_KEY) or b""},
            "private_key": {"inline_bytes": secret.value(PRIVATE_KEY_KEY) or b""},
        },
    )
    return EnvoyResource.of(Key(snapshot.SECRET, name), message, (secret.ref,))


def transport_socket(
    secrets: tuple[Ref, ...], trust: ClientTrust | None, settings: ClientSettings | None = None
) -> dict[str, object]:
    """TLS that ends here, with the certificates that `secrets` name; `trust` asks for clients'.

    A policy's `settings` come last, so that they count.
    """
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context={
            "alpn_protocols": ALPN,
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [
                {"name": names.secret(ref), "sds_config": ADS} for ref in secrets
            ],
        }
    )
    if trust is not None:
        context.require_client_certificate.value = trust.is_required
        validation = context.common_tls_context.validation_context
        validation.trusted_ca.inline_bytes = trust.authorities
        if not trust.is_required:
            validation.trust_chain_verification = validation.ACCEPT_UNTRUSTED
    if settings is not None:
        client_tls.apply(settings, context)
    return {"name": names.TLS, "typed_config": packed(context)}


def _problem(resolver: Resolver, ref: Ref) -> str | None:
    """Why a reference is no certificate; None where it is one."""
    if (ref.group, ref.kind) != (Secret.KIND.group, Secret.KIND.kind):
        return "is not a Secret"
    secret = resolver.store.get(Secret, ref.namespace, ref.name)
    if secret is None:
        return "not found"
    chain, key = secret.value(CERTIFICATE_KEY), secret.value(PRIVATE_KEY_KEY)
    if not chain or not key:
        return f"must hold {CERTIFICATE_KEY} and {PRIVATE_KEY_KEY}"
    try:
        certificate = x509.load_pem_x509_certificates(_pem(chain))[0]
    except ValueError:
        return f"holds no certificate in PEM under {CERTIFICATE_KEY}"
    try:
        private = load_pem_private_key(_pem(key), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return f"holds no private key in PEM without password under {PRIVATE_KEY_KEY}"
    if not _is_taken_by_envoy(private):
        return "must have a key of RSA with 2048 bits or more, or of ECDSA on P-256, P-384 or P-521"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        return "holds a private key that does not belong to its certificate"
    return None


def _pem(content: bytes) -> bytes:
    """The content, where it begins as Envoy's reader of PEM wants it to."""
    if not content.lstrip().startswith(b"-----BEGIN "):
        raise ValueError("no PEM")
    return content


def _is_taken_by_envoy(key: object) -> bool:
    """Envoy takes no other keys for a server's certificate."""
    if isinstance(key, rsa.RSAPrivateKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(
        key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1
    )
