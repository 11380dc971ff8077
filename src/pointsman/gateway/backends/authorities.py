"""Certificate authorities that ConfigMaps and Secrets hold under `ca.crt`."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pointsman.resources.base import Ref
from pointsman.resources.core import ConfigMap, Secret
from pointsman.store import Store

KEY = "ca.crt"
KINDS = frozenset({("", "ConfigMap"), ("", "Secret")})
"""Group and kind of what may hold authorities."""


def bundle(store: Store, ref: Ref) -> bytes | None:
    """The authorities of an object, in PEM; None where it is not there or holds none.

    Only the certificates of what was written: comments between them are no business of Envoy's.
    """
    found = store.find(ref)
    content: bytes | None = None
    if isinstance(found, ConfigMap):
        content = found.data.get(KEY, "").encode()
    elif isinstance(found, Secret):
        content = found.value(KEY)
    if not content:
        return None
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except ValueError:
        return None
    return b"".join(item.public_bytes(Encoding.PEM) for item in certificates) or None
