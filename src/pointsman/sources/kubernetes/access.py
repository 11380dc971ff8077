"""How an API server is reached, and as whom.

In a pod by its service account, whose token the kubelet renews in its file; elsewhere by a
kubeconfig with all that belongs to one: contexts, several files merged, client certificates,
tokens, OIDC, commands that give credentials (`exec`), proxies, TLS server names. A kubeconfig is
read by kubernetes_asyncio, which is loaded only then.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG = "~/.kube/config"
TOKEN_INTERVAL_S = 60.0
"""How long a token is used before its file is looked at again; kubelets renew theirs long before
they expire."""
CREDENTIALS_INTERVAL_S = 600.0
"""The same for a kubeconfig, whose commands may take seconds. What expires earlier is answered with
401, and is asked for anew at once."""
CREDENTIALS_TIMEOUT_S = 60.0
"""For a command that gives credentials, or an identity provider."""


class AccessError(Exception):
    """The API server cannot be spoken to; the text says what is missing and where."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where to, and as whom, at this moment."""

    server: str
    """`https://host:port`, perhaps with a path, without a slash at the end."""
    tls: ssl.SSLContext | None
    """None for plain HTTP."""
    authorization: str | None = None
    """The value of that header: a secret."""
    server_hostname: str | None = None
    """The name that its certificate must have, where that is not the host."""
    proxy: str | None = None


class Access(Protocol):
    """The way to one API server."""

    @property
    def namespace(self) -> str:
        """The namespace that counts where none is said."""

    async def connection(self, *, renew: bool = False) -> Connection:
        """How to connect now; with `renew` credentials that were refused are not used again.

        Raises:
            AccessError: there is no way.
        """


class _Kept(ABC):
    """A connection that is read by one for all who want it, and anew after a while."""

    INTERVAL_S: ClassVar[float]

    def __init__(self) -> None:
        self._known: Connection | None = None
        self._read_at = 0.0
        self._reading: asyncio.Task[Connection] | None = None

    async def connection(self, *, renew: bool = False) -> Connection:
        """How to connect now; see `Access`."""
        is_old = time.monotonic() - self._read_at > self.INTERVAL_S
        if self._known is not None and not renew and not is_old:
            return self._known
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_anew(renew=renew))
        # Whoever gives up takes it from nobody else.
        return await asyncio.shield(self._reading)

    async def _read_anew(self, *, renew: bool) -> Connection:
        try:
            self._known = await self._read(renew=renew)
            self._read_at = time.monotonic()
            return self._known
        finally:
            self._reading = None

    @abstractmethod
    async def _read(self, *, renew: bool) -> Connection:
        """Read it. Raises AccessError."""


class InCluster(_Kept):
    """A pod's service account: by the token and the authority that are in the folder."""

    INTERVAL_S = TOKEN_INTERVAL_S

    def __init__(
        self, folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ
    ) -> None:
        """Raises AccessError outside of a cluster."""
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port:
            raise AccessError("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
        super().__init__()
        self._server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._folder = folder

    @property
    def namespace(self) -> str:
        """The namespace of the pod."""
        return namespace_in(self._folder) or "default"

    async def _read(self, *, renew: bool) -> Connection:
        try:
            return await asyncio.to_thread(self._parse)
        except (OSError, ssl.SSLError, UnicodeDecodeError) as error:
            if self._known is None or renew:
                raise AccessError(f"service account in {self._folder}: {error}") from error
            return self._known

    def _parse(self) -> Connection:
        token = (self._folder / "token").read_text().strip()
        before = self._known
        if before is not None and before.authorization == f"Bearer {token}":
            return before
        authority = ssl.create_default_context(cafile=str(self._folder / "ca.crt"))
        return Connection(self._server, authority, f"Bearer {token}")


class Kubeconfig(_Kept):
    """One context of a kubeconfig: by what the files, and what they name, say."""

    INTERVAL_S = CREDENTIALS_INTERVAL_S

    def __init__(self, paths: str, context: str | None = None) -> None:
        """`paths`: one file, or several as in KUBECONFIG, of which the earlier count first."""
        super().__init__()
        self._paths = paths
        self._context = context
        self._namespace = "default"

    @property
    def namespace(self) -> str:
        """The context's, once it has been read."""
        return self._namespace

    async def _read(self, *, renew: bool) -> Connection:
        try:
            async with asyncio.timeout(CREDENTIALS_TIMEOUT_S):
                return await self._load()
        except AccessError:
            raise
        # The loader tells of wrong files by whatever exception they lead to.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise AccessError(f"kubeconfig {self._paths}: {self._hint(reason)}") from error

    def _hint(self, reason: str) -> str:
        if self._context is not None and self._context in reason:
            return f"there is no context {self._context!r} ({reason})"
        return reason

    async def _load(self) -> Connection:
        try:
            from kubernetes_asyncio.client import Configuration  # noqa: PLC0415 - large, seldom
            from kubernetes_asyncio.config import load_kube_config  # noqa: PLC0415
        except ImportError as error:
            raise AccessError(
                "reading a kubeconfig needs kubernetes_asyncio: pip install 'pointsman[kubeconfig]'"
            ) from error
        found = Configuration()
        # What stands in the file as base64 goes through temporary files, which no one else may
        # read, and which the library takes away at the end of the process.
        loader = await load_kube_config(
            config_file=self._paths,
            context=self._context,
            client_configuration=found,
            persist_config=False,
        )
        host = found.host or ""
        tls = _tls(found) if host.startswith("https://") else None
        current = loader.current_context or {}
        self._namespace = current.get("context", {}).get("namespace") or "default"
        return Connection(
            host.rstrip("/"),
            tls,
            found.api_key.get("BearerToken"),
            found.tls_server_name or None,
            found.proxy or None,
        )


def _tls(found: object) -> ssl.SSLContext:
    """The TLS that a kubeconfig asks for."""
    authority = getattr(found, "ssl_ca_cert", None)
    context = ssl.create_default_context(cafile=authority or None)
    if getattr(found, "verify_ssl", True) is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = getattr(found, "cert_file", None)
    if certificate:
        context.load_cert_chain(certificate, getattr(found, "key_file", None))
    return context


def access(kubeconfig: Path | None = None, context: str | None = None) -> Access:
    """The way that is asked for; without a word, that of the pod, else that of kubectl.

    Raises:
        AccessError: there is none.
    """
    if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return InCluster()
    paths = str(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG", "")
    if not paths:
        paths = str(Path(DEFAULT_KUBECONFIG).expanduser())
    files = [path for path in paths.split(os.pathsep) if path]
    if not any(Path(path).is_file() for path in files):
        raise AccessError(
            f"this is no pod of a cluster, and there is no kubeconfig {' or '.join(files)}; "
            "use --kubeconfig or KUBECONFIG"
        )
    return Kubeconfig(paths, context)


def namespace_in(folder: Path = SERVICE_ACCOUNT) -> str:
    """The namespace of this pod; "" where this is none."""
    try:
        return (folder / "namespace").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
