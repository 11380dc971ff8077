"""A running instance with the backends behind it, and requests to it."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.servers import Server, running_servers
from tests.e2e.instances import Answer, Instance, eventually, running

NOBODY = "nobody listens"
"""What `becomes` takes for the answer where a connection is refused."""

Conditions = dict[str, dict[str, Any]]


@dataclass
class Site:
    """An instance and the servers behind it."""

    instance: Instance
    servers: dict[str, Server]
    folder: Path

    def get(
        self,
        path: str,
        *,
        host: str = "any.example",
        method: str = "GET",
        port: int = 80,
        address: str = "127.0.0.1",
        headers: dict[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> Answer:
        """One request; with `tls` as that client, who asks for `server_name`."""
        real = self.instance.ports.get(port, port)
        connection = http.client.HTTPConnection(address, real, timeout=10)
        if tls is not None:
            connection.connect()
            connection.sock = tls.wrap_socket(connection.sock, server_hostname=server_name or host)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for key, value in {"host": host, **(headers or {})}.items():
                connection.putheader(key, value)
            connection.endheaders()
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def to(self, path: str, **more: Any) -> str | int:
        """The name of the server that answers, or the status where none does."""
        answer = self.get(path, **more)
        return str(answer.json["name"]) if answer.status == 200 else answer.status

    def conditions(self, kind: str, name: str, namespace: str = "default") -> Conditions:
        """The conditions of an object by type: its own, or those under its first parent."""
        status = self.instance.object(kind, name, namespace)["status"]
        for field in ("parents", "ancestors"):
            if status.get(field):
                return by_type(status[field][0]["conditions"])
        return by_type(status.get("conditions", []))

    def write(self, name: str, text: str) -> None:
        """Put a file among the manifests, or replace it."""
        (self.folder / name).write_text(text)

    def becomes(self, wanted: Any, path: str, **more: Any) -> None:
        """Wait until `path` is answered so."""

        def answer() -> str | int:
            try:
                return self.to(path, **more)
            except OSError:
                return NOBODY

        eventually(lambda: answer() == wanted, 10)


def by_type(found: Sequence[dict[str, Any]]) -> Conditions:
    return {item["type"]: item for item in found}


def reasons(found: Conditions) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    return {kind: (item["status"], item["reason"]) for kind, item in found.items()}


@contextmanager
def running_site(
    folder: Path, manifest: str, *servers: Server, ports: Sequence[int] = (80,)
) -> Iterator[Site]:
    """An instance of `manifest` with the Services and Pods of `servers`."""
    with running_servers(*servers) as found:
        text = manifest + "".join(item.manifest() for item in servers)
        (folder / "all.yaml").write_text(text)
        with running(folder, ports=ports) as instance:
            yield Site(instance, found, folder)
