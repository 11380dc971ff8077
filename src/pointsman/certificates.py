"""Certificates that sign themselves, authorities that sign others, and TLS contexts of servers.

A picker that nobody gave a certificate makes one at its start, as the reference picker does; the
gateway does not verify it. The key is on the curve P-256: its handshake costs a server a small part
of what RSA does.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORGANIZATION = "Pointsman"
VALIDITY = timedelta(days=3650)
CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"


def system_authorities() -> str:
    """The file with the certificate authorities that this machine believes; "" where none is."""
    return ssl.get_default_verify_paths().cafile or ""


def self_signed(
    common_name: str, hosts: tuple[str, ...] = (), *, now: datetime | None = None
) -> tuple[bytes, bytes]:
    """A certificate and its key in PEM, valid for these host names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = _certificate(name, name, key, VALIDITY, now).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )
    if hosts:
        builder = builder.add_extension(_alternatives(hosts), critical=False)
    return _pem(builder.sign(key, hashes.SHA256())), _key_pem(key)


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs certificates: its own certificate and its key, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def create(
        cls, common_name: str, validity: timedelta, *, now: datetime | None = None
    ) -> Authority:
        """A new one, which signs nothing but certificates of servers and clients."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        signed = (
            _certificate(name, name, key, validity, now, is_authority=True)
            .add_extension(usage, critical=True)
            .add_extension(_key_id(key), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(_pem(signed), _key_pem(key))

    def issue(
        self,
        common_name: str,
        hosts: Sequence[str],
        validity: timedelta,
        *,
        now: datetime | None = None,
    ) -> tuple[bytes, bytes]:
        """A certificate and its key in PEM, for a server or a client.

        `hosts` are host names, addresses and URIs, of which the certificate says that they are
        its owner's.

        Raises:
            ValueError: this is no certificate and key of an authority.
        """
        signer = serialization.load_pem_private_key(self.key, None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is not on an elliptic curve")
        issuer = x509.load_pem_x509_certificate(self.certificate)
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        signed = (
            _certificate(_name(common_name), issuer.subject, key, validity, now)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(_alternatives(hosts), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .sign(signer, hashes.SHA256())
        )
        return _pem(signed), _key_pem(key)

    def has_issued(self, certificate: bytes) -> bool:
        """Whether a certificate is one of this authority's; not where it is none at all."""
        try:
            own = x509.load_pem_x509_certificate(self.certificate)
            x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(own)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def due(certificate: bytes) -> datetime:
    """When a certificate should be followed by another: after two thirds of its life.

    Raises:
        ValueError: this is no certificate.
    """
    found = x509.load_pem_x509_certificate(certificate)
    began, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return began + (ends - began) * 2 / 3


def expires(certificate: bytes) -> datetime:
    """When a certificate ends.

    Raises:
        ValueError: this is no certificate.
    """
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def each(bundle: bytes) -> list[bytes]:
    """The certificates that stand in one text, in PEM; what is none of them ends the list."""
    try:
        return [_pem(found) for found in x509.load_pem_x509_certificates(bundle)]
    except ValueError:
        return []


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    validity: timedelta,
    now: datetime | None,
    *,
    is_authority: bool = False,
) -> x509.CertificateBuilder:
    now = now if now is not None else datetime.now(UTC)
    path_length = 0 if is_authority else None
    # Clocks differ; what lives shortly is not dated back far, or it would be old when it is made.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(timedelta(hours=1), validity / 4))
        .not_valid_after(now + validity)
        .add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=path_length), critical=True
        )
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )


def _key_id(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _alternatives(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(host) for host in hosts])


def _general_name(host: str) -> x509.GeneralName:
    if "://" in host:
        return x509.UniformResourceIdentifier(host)
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Rotation:
    """A TLS context whose certificate follows the files of a folder.

    New connections get the new certificate; those that are open keep theirs. A certificate and a
    key that do not belong together (one file is written first) leave the last good ones.
    """

    def __init__(self, context: ssl.SSLContext, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self._seen = self._stamp()

    def refresh(self) -> bool:
        """Load the files again if they have changed; tells whether they were.

        Raises:
            OSError: a file cannot be read.
            ssl.SSLError: the files are no certificate and key that belong together.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        # On trial first: a context that has loaded only one of the two would be of no use.
        trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trial.load_cert_chain(self._folder / CERTIFICATE_FILE, self._folder / KEY_FILE)
        self._context.load_cert_chain(self._folder / CERTIFICATE_FILE, self._folder / KEY_FILE)
        self._seen = stamp
        return True

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        files = (self._folder / CERTIFICATE_FILE, self._folder / KEY_FILE)
        # A mounted Secret is swapped by a symbolic link: the inode tells, where the time may not.
        return tuple((file.stat().st_mtime_ns, file.stat().st_ino) for file in files)


def server_context(folder: Path | None, common_name: str) -> ssl.SSLContext:
    """The TLS context of a gRPC server.

    Args:
        folder: holds `tls.crt` and `tls.key`; None for a certificate made now.
        common_name: the name in a certificate made now.

    Raises:
        OSError: a file cannot be read.
        ssl.SSLError: a file is not a certificate or a key, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if folder is not None:
        context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
        return context
    certificate, key = self_signed(common_name, ("localhost", "127.0.0.1"))
    with _file_of(certificate + key) as path:
        context.load_cert_chain(path)
    return context


@contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    """A file with this content, since the ssl module reads from files only.

    In memory where the system can: in a container there may be no place to write to.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("certificate"), "wb") as memory:
            memory.write(content)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    with tempfile.NamedTemporaryFile(prefix="pointsman-tls-") as file:
        file.write(content)
        file.flush()
        yield file.name
