"""The values of flags, as Go programs and the libraries of Kubernetes read them.

Each function takes the text and returns the value, or raises ValueError with what to write.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

from pointsman.picker.settings.options import MAX_TARGET_PORTS
from pointsman.resources.inference_extension import EXPERIMENTAL_GROUP, GROUP
from pointsman.resources.label_query import LabelQuery

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def boolean(text: str) -> bool:
    """Go's ParseBool."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def duration_s(text: str) -> float:
    """Go's ParseDuration, in seconds.

    >>> duration_s("50ms"), duration_s("1m30s"), duration_s("0")
    (0.05, 90.0, 0.0)
    """
    if text == "0":
        return 0.0
    total, rest = 0.0, text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        after = rest[digits:]
        letters = len(after) - len(after.lstrip("nuµmsh"))
        unit = _UNITS_S.get(after[:letters])
        if not digits or unit is None:
            raise ValueError(f"{text!r} is not a duration such as 50ms or 1m30s")
        total += float(rest[:digits]) * unit
        rest = after[letters:]
    if not text:
        raise ValueError("a duration is missing")
    return total


def integer(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def positive(text: str) -> int:
    """A whole number above 0."""
    number = integer(text)
    if number < 1:
        raise ValueError(f"{text} is not above 0")
    return number


def port(text: str) -> int:
    """A TCP port; 0 lets the system choose."""
    number = integer(text)
    if not 0 <= number <= 65535:
        raise ValueError(f"{text} is not a port")
    return number


def target_ports(text: str) -> tuple[int, ...]:
    """Ports by commas, in the order of the ranks.

    >>> target_ports("8000, 8001")
    (8000, 8001)
    """
    ports = tuple(port(part.strip()) for part in text.split(","))
    if 0 in ports or len(set(ports)) != len(ports) or len(ports) > MAX_TARGET_PORTS:
        raise ValueError(f"{text!r} is not 1 to {MAX_TARGET_PORTS} different ports by commas")
    return ports


def group(text: str) -> str:
    """The API group of InferencePools, of either generation."""
    if text not in (GROUP, EXPERIMENTAL_GROUP):
        raise ValueError(f"{text!r} is neither {GROUP} nor {EXPERIMENTAL_GROUP}")
    return text


def selector(text: str) -> LabelQuery | None:
    """A label selector; empty for none, since one that means every pod is a mistake."""
    query = LabelQuery.of(text)
    return query if query.terms else None


def unix_path(text: str) -> Path:
    """The path of a Unix socket."""
    return Path(text.removeprefix("unix:"))


def address(text: str) -> str:
    """`unix:PATH` or `host:port`."""
    if not text.startswith("unix:") and not text.rpartition(":")[2].isdigit():
        raise ValueError(f"{text!r} is neither unix:PATH nor host:port")
    return text


def optional_path(text: str) -> Path | None:
    """A path; empty for none."""
    return Path(text) if text else None


def only(*served: str) -> Callable[[str], str]:
    """Some value that the reference lets one choose and that is fixed here."""

    def read(text: str) -> str:
        if text not in served:
            raise ValueError(f"{text!r} is not served, only {' or '.join(map(repr, served))}")
        return text

    return read


def encoder(text: str) -> bool:
    """Whether logs are JSON."""
    if text not in ("json", "console"):
        raise ValueError(f"{text!r} is neither json nor console")
    return text == "json"


_LOG_LEVELS = {"debug": 4, "info": 2, "warn": 1, "error": -1, "dpanic": -1, "panic": -1}


def log_level(text: str) -> int:
    """Zap's level as a verbosity: a name, or a number above 0."""
    level = _LOG_LEVELS.get(text.lower())
    if level is None:
        try:
            level = positive(text)
        except ValueError:
            raise ValueError(f"{text!r} is not debug, info, error or a number above 0") from None
    return level


_TLS_VERSIONS = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}


def tls_version(text: str) -> ssl.TLSVersion:
    """Go's name of a version; empty for the default."""
    try:
        return _TLS_VERSIONS[text or "VersionTLS12"]
    except KeyError:
        raise ValueError(f"{text!r} is not served, only {' or '.join(_TLS_VERSIONS)}") from None


_CIPHERS: Mapping[str, str] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
"""IANA's names, as Go takes them, to those of OpenSSL."""
_TLS_1_3_CIPHERS = frozenset(
    {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
)
"""Of these nobody can choose, in Go neither."""


def cipher_suites(text: str) -> tuple[str, ...]:
    """Cipher suites of TLS 1.2 by commas, as OpenSSL names them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _CIPHERS and name not in _TLS_1_3_CIPHERS:
            raise ValueError(f"{name!r} is not a cipher suite that is served")
    return tuple(dict.fromkeys(_CIPHERS[name] for name in names if name in _CIPHERS))
