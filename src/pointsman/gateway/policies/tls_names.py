"""The names of ciphers, curves and signature algorithms that Envoy's TLS library (BoringSSL) knows.

A name that it does not know would cost the whole listener, so it is told before. Tried with the
Envoy of the wheel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pointsman.resources.client_policies import ClientTLS

_EXCHANGED = (
    *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"),
    *("AES128-SHA", "AES256-SHA", "AES128-SHA256"),
)
CIPHERS = frozenset(
    [
        *(f"ECDHE-{kind}-{name}" for kind in ("ECDSA", "RSA") for name in _EXCHANGED),
        *(
            f"ECDHE-PSK-{name}"
            for name in ("CHACHA20-POLY1305", "AES128-CBC-SHA", "AES256-CBC-SHA")
        ),
        *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA"),
        *("PSK-AES128-CBC-SHA", "PSK-AES256-CBC-SHA", "DES-CBC3-SHA", "ALL", "HIGH"),
    ]
)
_SAME_CURVES = {"prime256v1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
"""The second names of curves that have two."""
CURVES = frozenset({"X25519", "X25519MLKEM768", "MLKEM1024", *_SAME_CURVES, *_SAME_CURVES.values()})
SIGNATURES = frozenset(
    {
        *(f"rsa_pkcs1_{name}" for name in ("sha1", "sha256", "sha384", "sha512")),
        *(f"rsa_pss_rsae_{name}" for name in ("sha256", "sha384", "sha512")),
        *("ecdsa_sha1", "ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384"),
        *("ecdsa_secp521r1_sha512", "ed25519"),
    }
)


def problems(spec: ClientTLS) -> Iterator[str]:
    """The names that Envoy would refuse, and where they stand."""
    for position, text in enumerate(spec.ciphers):
        # `[A|B]` are two that are liked as much.
        for name in text.removeprefix("[").removesuffix("]").split("|"):
            if name not in CIPHERS:
                yield f"tls.ciphers[{position}]: {name!r} is no cipher that Envoy knows"
    for position, name in enumerate(spec.ecdh_curves):
        if name not in CURVES:
            yield f"tls.ecdhCurves[{position}]: {name!r} is no curve that Envoy knows"
    for position, name in enumerate(spec.signature_algorithms):
        if name not in SIGNATURES:
            yield f"tls.signatureAlgorithms[{position}]: {name!r} is none that Envoy knows"


def distinct_curves(names: Iterable[str]) -> list[str]:
    """Each curve once, by the name that comes first: Envoy refuses a listener that says one twice.

    >>> distinct_curves(["X25519", "P-384", "secp384r1", "X25519"])
    ['X25519', 'P-384']
    """
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(_SAME_CURVES.get(name, name), name)
    return list(found.values())
