"""Authorities made for a test, and certificates that they sign."""

from __future__ import annotations

import base64
import datetime
import ssl
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """Signs certificates."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        builder = self._builder(self._name, self._key).add_extension(constraint, critical=True)
        self.certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
        )

    def issue(self, *names: str) -> tuple[bytes, bytes]:
        """Certificate and key in PEM for DNS names and URIs; the first is the common name too."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(name) if ":" in name else x509.DNSName(name)
                for name in names
            ]
        )
        builder = self._builder(subject, key).add_extension(alternatives, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(Encoding.PEM), _pem(key)

    def server_context(self, *names: str, clients: Authority | None = None) -> ssl.SSLContext:
        """TLS of a server with a certificate for `names`, which may ask for clients'."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load(context, *self.issue(*names))
        if clients is not None:
            context.load_verify_locations(cadata=clients.certificate.decode())
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client_context(self, client: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
        """TLS of a client that believes this authority, perhaps with a certificate of its own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.certificate.decode())
        context.set_alpn_protocols(["http/1.1"])
        if client is not None:
            _load(context, *client)
        return context

    def config_map(self, name: str, namespace: str = "default") -> str:
        """The authority as a ConfigMap."""
        lines = "".join(f"    {line}\n" for line in self.certificate.decode().splitlines())
        return (
            f"\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, "
            f"namespace: {namespace}}}\ndata:\n  ca.crt: |\n{lines}"
        )


def secret(name: str, found: tuple[bytes, bytes], namespace: str = "default") -> str:
    """A certificate and its key as a Secret."""
    chain, key = (base64.b64encode(item).decode() for item in found)
    return (
        f"\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"type: kubernetes.io/tls\ndata:\n  tls.crt: {chain}\n  tls.key: {key}\n"
    )


def _load(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_bytes(chain + key)
        context.load_cert_chain(path)
