"""HTTPS listeners: certificates from Secrets, told apart by name, rotated while they serve."""

from __future__ import annotations

import base64
import datetime
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pointsman.cli.run import example_path
from tests.e2e.instances import Instance, eventually, running

pytestmark = pytest.mark.e2e

LISTENERS = """\
    - name: one
      protocol: HTTPS
      port: 8443
      hostname: one.example.com
      tls: {certificateRefs: [{name: one}]}
    - name: two
      protocol: HTTPS
      port: 8443
      hostname: two.example.com
      tls: {certificateRefs: [{name: two}]}
    - name: broken
      protocol: HTTPS
      port: 8443
      hostname: broken.example.com
      tls: {certificateRefs: [{name: broken}]}
"""


def secret(name: str, common_name: str) -> str:
    """A Secret with a certificate that was made just now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    chain = base64.b64encode(certificate.public_bytes(Encoding.PEM)).decode()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\n"
        f"data:\n  tls.crt: {chain}\n  tls.key: {base64.b64encode(private).decode()}\n"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("https") / "m"
    shutil.copytree(example_path(), path)
    gateway = path / "gateway.yaml"
    text = gateway.read_text()
    plain = "    - name: http\n      protocol: HTTP\n      port: 8080\n"
    assert plain in text
    gateway.write_text(text.replace(plain, plain + LISTENERS))
    (path / "one.yaml").write_text(secret("one", "first"))
    (path / "two.yaml").write_text(secret("two", "second"))
    broken = secret("broken", "x").replace("tls.key: ", "tls.key: AAAA")
    (path / "broken.yaml").write_text(broken)
    return path


@pytest.fixture(scope="module")
def instance(folder: Path) -> Iterator[Instance]:
    with running(folder, ports=(8080, 8443)) as found:
        yield found


def handshake(instance: Instance, name: str) -> tuple[str, str | None]:
    """The common name of the certificate that is served for a server name, and the protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", instance.ports[8443]), 5) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        found = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
        attribute = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0]
        return str(attribute.value), client.selected_alpn_protocol()


def test_each_name_gets_its_own_certificate_and_http2(instance: Instance) -> None:
    assert handshake(instance, "one.example.com") == ("first", "h2")
    assert handshake(instance, "two.example.com") == ("second", "h2")


def test_a_request_is_answered_over_tls(instance: Instance) -> None:
    context = ssl._create_unverified_context()
    with (
        socket.create_connection(("127.0.0.1", instance.ports[8443]), 5) as plain,
        context.wrap_socket(plain, server_hostname="one.example.com") as client,
    ):
        body = b'{"model": "support", "prompt": "x", "max_tokens": 2}'
        head = (
            b"POST /v1/completions HTTP/1.1\r\nhost: one.example.com\r\ncontent-length: %d\r\n\r\n"
        )
        client.sendall(head % len(body) + body)
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_a_name_that_no_listener_takes_is_not_served(instance: Instance) -> None:
    with pytest.raises((ssl.SSLError, OSError)):
        handshake(instance, "other.example.com")


def test_a_certificate_that_is_none_hurts_only_its_listener(instance: Instance) -> None:
    gateway = instance.object("gateway", "llm")
    listeners = {item["name"]: item["conditions"] for item in gateway["status"]["listeners"]}
    found = {item["type"]: item for item in listeners["broken"]}
    assert found["ResolvedRefs"]["reason"] == "InvalidCertificateRef"
    assert "private key" in found["ResolvedRefs"]["message"]
    assert found["Programmed"]["status"] == "False"
    good = {item["type"] for item in listeners["one"] if item["status"] == "True"}
    assert good == {"Accepted", "Programmed", "ResolvedRefs"}
    assert instance.complete(8080, "support").status == 200


def test_a_rotated_certificate_is_served_at_once(instance: Instance, folder: Path) -> None:
    (folder / "one.yaml").write_text(secret("one", "renewed"))
    assert eventually(lambda: handshake(instance, "one.example.com")[0] == "renewed", 5)


def test_no_private_key_is_printed(instance: Instance, folder: Path) -> None:
    assert "private_key" not in instance.cli("translate", str(folder), fails=True)
