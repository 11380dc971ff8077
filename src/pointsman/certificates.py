"""Self-signed certificates, and the TLS contexts of servers.

A picker that nobody gave a certificate makes one at its start, as the reference picker does; the
gateway does not verify it. The key is on the curve P-256: its handshake costs a server a small part
of what RSA does.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
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
    now = now if now is not None else datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _general_name(host: str) -> x509.GeneralName:
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
    # The ssl module reads certificates from files only.
    with tempfile.TemporaryDirectory(prefix="pointsman-tls-") as name:
        made = Path(name)
        (made / CERTIFICATE_FILE).write_bytes(certificate)
        (made / KEY_FILE).touch(mode=0o600)
        (made / KEY_FILE).write_bytes(key)
        context.load_cert_chain(made / CERTIFICATE_FILE, made / KEY_FILE)
    return context
