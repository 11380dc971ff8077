"""The certificates by which the controller and the Envoys know each other.

An authority of our own signs them. It lives in a Secret of the installation's namespace: `tls.crt`
and `tls.key` sign, and `ca.crt` has all authorities that are believed, the present one and those
before it for as long as they last. The leader makes it, and follows it by another after two thirds
of its life. Nobody is cut off then: the former authority is still believed, certificates that it
signed are used to their own time, and the Envoys get the new list at once.

Each Gateway's Envoys have a certificate in a Secret of their own, which says of which Gateway they
are. The kubelet brings a new one to the pods, and Envoy takes it up without a restart.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

import grpc

from pointsman.certificates import Authority, due, each, expires
from pointsman.cluster.settings import AUTHORITY_LIVES, MANAGED_LABEL, MANAGER, Installation
from pointsman.gateway import names
from pointsman.resources.base import Ref
from pointsman.resources.core import Secret
from pointsman.sources.kubernetes.api import Api, ApiError, path_of
from pointsman.store import Store

SECRET_NAME = "pointsman-authority"  # noqa: S105 - a name
TRUST_DOMAIN = "spiffe://pointsman.dev"
POLL_S = 0.2
"""While the authority is not there yet."""

log = logging.getLogger(__name__)


def identity_of(gateway: Ref) -> str:
    """The URI in the certificate of a Gateway's Envoys.

    >>> identity_of(Ref("gateway.networking.k8s.io", "Gateway", "default", "gw"))
    'spiffe://pointsman.dev/ns/default/gateway/gw'
    """
    return f"{TRUST_DOMAIN}/ns/{gateway.namespace}/gateway/{gateway.name}"


def fleet_of(context: Mapping[str, Iterable[bytes]]) -> str | None:
    """The fleet that a client's certificate is for, from gRPC's authentication context."""
    for value in context.get("peer_uri", ()):
        path = value.decode(errors="replace").removeprefix(f"{TRUST_DOMAIN}/")
        parts = path.split("/")
        if len(parts) == 4 and (parts[0], parts[2]) == ("ns", "gateway"):
            return names.fleet(Ref("", "", parts[1], parts[3]))
    return None


class KeyRing:
    """The authority, the controller's own certificate, and those of the Envoys."""

    def __init__(self, store: Store, api: Api, installation: Installation) -> None:
        self._store = store
        self._api = api
        self._installation = installation
        self._own: tuple[bytes, bytes] | None = None
        self._issued: dict[Ref, tuple[bytes, bytes, bytes]] = {}
        """What was signed for Gateways and has not been seen in their Secrets yet."""

    @property
    def _secret(self) -> Secret | None:
        return self._store.get(Secret, self._installation.namespace, SECRET_NAME)

    @property
    def authority(self) -> Authority | None:
        """Who signs now; None while there is none."""
        found = self._secret
        certificate = found.value("tls.crt") if found is not None else None
        key = found.value("tls.key") if found is not None else None
        return Authority(certificate, key) if certificate and key else None

    @property
    def believed(self) -> bytes:
        """The certificates of all authorities that are believed."""
        found = self._secret
        return (found.value("ca.crt") if found is not None else None) or b""

    async def maintain(self) -> None:
        """By the leader: make the authority, or the one that follows it, where it is time."""
        found, authority = self._secret, self.authority
        if authority is not None and datetime.now(UTC) < due(authority.certificate):
            return
        life = self._installation.certificate_life * AUTHORITY_LIVES
        made = Authority.create(f"Pointsman of {self._installation.namespace}", life)
        believed = made.certificate + _still_valid(self.believed)
        data = {"tls.crt": made.certificate, "tls.key": made.key, "ca.crt": believed}
        meta = {
            "name": SECRET_NAME,
            "namespace": self._installation.namespace,
            "labels": {MANAGED_LABEL: MANAGER},
        }
        if found is not None:
            meta["resourceVersion"] = found.metadata.resource_version
        item = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": meta,
            "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
        }
        path = path_of(Secret.KIND, namespace=self._installation.namespace)
        try:
            if found is None:
                await self._api.request("POST", path, item)
            else:
                await self._api.request("PUT", f"{path}/{SECRET_NAME}", item)
        except ApiError as error:
            # Another leader was faster, or there is no API server: the next round sees.
            log.log(
                logging.DEBUG if error.is_conflict else logging.WARNING,
                "The authority is not written: %s",
                error,
            )
            return
        log.info("A new authority signs the certificates of the control plane")

    async def ready(self) -> None:
        """Until there is an authority."""
        # The store tells of changes in batches of all kinds; this is seldom and short.
        while self.authority is None:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    def client(self, gateway: Ref) -> tuple[bytes, bytes, bytes] | None:
        """Certificate, key and authorities of a Gateway's Envoys; None while nobody signs."""
        authority = self.authority
        if authority is None:
            return None
        found = self._issued.get(gateway)
        if found is not None and found[2] == self.believed and _is_fresh(found[0], found[2]):
            return found
        life = self._installation.certificate_life
        host = f"{gateway.name}.{gateway.namespace}"
        made = authority.issue(host, [identity_of(gateway)], life)
        self._issued[gateway] = (*made, self.believed)
        return self._issued[gateway]

    def forget(self, gateways: Container[Ref]) -> None:
        """Keep nothing of any Gateway but these."""
        self._issued = {ref: item for ref, item in self._issued.items() if ref in gateways}

    def is_good(self, secret: Secret | None) -> bool:
        """Whether the certificate in a Secret can be used for some time yet."""
        certificate = secret.value("tls.crt") if secret is not None else None
        if secret is None or not certificate or not secret.value("tls.key"):
            return False
        return secret.value("ca.crt") == self.believed and _is_fresh(certificate, self.believed)

    def credentials(self) -> grpc.ServerCredentials:
        """Of the discovery service: asks each client for a certificate, and follows changes."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=True
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        certificate, key = self._own_pair()
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=self.believed
        )

    def _own_pair(self) -> tuple[bytes, bytes]:
        own = self._own
        if own is None or not _is_fresh(own[0], self.believed):
            authority = self.authority
            if authority is None:
                if own is None:
                    raise RuntimeError("there is no authority yet")
                return own
            host = self._installation.host
            own = authority.issue(host, [host], self._installation.certificate_life)
            self._own = own
        return own


def _still_valid(bundle: bytes) -> bytes:
    """The certificates of a bundle that have not expired."""
    now = datetime.now(UTC)
    return b"".join(part for part in each(bundle) if expires(part) > now)


def _is_fresh(certificate: bytes, bundle: bytes) -> bool:
    when = _due_if_issued(certificate, bundle)
    return when is not None and datetime.now(UTC) < when


@lru_cache(maxsize=4096)
def _due_if_issued(certificate: bytes, bundle: bytes) -> datetime | None:
    """When a certificate should be followed by another; None where nobody of `bundle` signed it."""
    if not any(Authority(part, b"").has_issued(certificate) for part in each(bundle)):
        return None
    return due(certificate)
