"""Certificates of clients: which listeners ask for one, and whom they believe.

Rule (Gateway API, Gateway.spec.tls.frontend): the default is for all HTTPS listeners, what is said
of a port replaces it there. A reference that leads nowhere is told on the listeners that it is for;
where all of them lead nowhere the listener is not served, since it would let in anybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pointsman.gateway.backends.authorities import KEY, KINDS, bundle
from pointsman.gateway.backends.references import Resolver, Unresolved
from pointsman.resources.base import Ref
from pointsman.resources.gateway_api import FrontendValidation, Gateway, ObjectRef

INSECURE = "AllowInsecureFallback"


@dataclass(frozen=True, slots=True)
class ClientTrust:
    """Whose certificates clients may show."""

    authorities: bytes
    """Certificates in PEM."""
    is_required: bool
    """A client without a certificate that they signed is turned away."""
    problem: Unresolved | None = None
    """What is wrong with one of several references."""


def client_trust(
    resolver: Resolver, gateway: Gateway, port: int
) -> ClientTrust | Unresolved | None:
    """Whom the HTTPS listeners of a port believe; None where no certificate is asked for."""
    validation = _validation(gateway, port)
    if validation is None:
        return None
    found = [_authority(resolver, gateway, ref) for ref in validation.ca_certificate_refs]
    good = [item for item in found if isinstance(item, bytes)]
    problem = next((item for item in found if isinstance(item, Unresolved)), None)
    if not good and problem is not None:
        return problem
    return ClientTrust(b"\n".join(good), validation.mode != INSECURE, problem)


def is_insecure(gateway: Gateway) -> bool:
    """Some listener lets clients in whatever certificate they show."""
    return any(item.mode == INSECURE for item in _validations(gateway))


def _validation(gateway: Gateway, port: int) -> FrontendValidation | None:
    tls = gateway.spec.tls
    if tls is None or tls.frontend is None:
        return None
    of_port = next((item.tls for item in tls.frontend.per_port if item.port == port), None)
    config = of_port if of_port is not None else tls.frontend.default
    return config.validation


def _validations(gateway: Gateway) -> Iterable[FrontendValidation]:
    tls = gateway.spec.tls
    if tls is None or tls.frontend is None:
        return ()
    configs = (tls.frontend.default, *(item.tls for item in tls.frontend.per_port))
    return [item.validation for item in configs if item.validation is not None]


def _authority(resolver: Resolver, gateway: Gateway, spec: ObjectRef) -> bytes | Unresolved:
    ref = Ref(spec.group, spec.kind, spec.namespace or gateway.metadata.namespace, spec.name)
    if (ref.group, ref.kind) not in KINDS:
        return Unresolved(
            "InvalidCACertificateKind", f"{ref} holds no certificates; use a ConfigMap"
        )
    if ref.namespace != gateway.metadata.namespace and not resolver.is_granted(gateway.ref, ref):
        message = f"CA certificate ref to {ref} not permitted by any ReferenceGrant."
        return Unresolved("RefNotPermitted", message)
    found = bundle(resolver.store, ref)
    if found is None:
        message = f"{ref} is not there, or holds no certificate in PEM under {KEY}"
        return Unresolved("InvalidCACertificateRef", message)
    return found
