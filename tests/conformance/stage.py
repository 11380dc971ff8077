"""The stage of the inference extension's conformance suite, on one machine.

Two Gateways, five pools, each with a picker that is not ours, as the suite's base resources have
them. Loopback addresses stand for pods: `primary-0` is 127.61.1.1 and so on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.echo_servers import EchoServers, echo_servers
from tests.e2e.foreign_picker import ForeignPicker, foreign_picker, pod, service
from tests.e2e.instances import Answer, Instance, running, unix_json
from tests.ports import free_port

PRIMARY = 9180
SECONDARY = 9181
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
POOL = "inference.networking.k8s.io"

GATEWAYS = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: primary}}
spec:
  gatewayClassName: pointsman
  listeners:
    - name: http
      protocol: HTTP
      port: {PRIMARY}
      allowedRoutes: {{namespaces: {{from: All}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: secondary}}
spec:
  gatewayClassName: pointsman
  listeners: [{{name: http, protocol: HTTP, port: {SECONDARY}, hostname: secondary.example.com}}]
"""


@dataclass
class Stage:
    """All of it, running."""

    instance: Instance
    folder: Path
    servers: EchoServers
    pickers: dict[str, ForeignPicker]
    addresses: dict[str, tuple[str, ...]]
    """Of each pool."""

    @contextmanager
    def given(self, name: str, text: str) -> Iterator[None]:
        """Objects that are there inside the block."""
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object as it stands."""
        query = f"/api/objects?kind={kind}&namespace=default&name={name}"
        items = unix_json(self.instance.folder / "admin.sock", query)["items"]
        found: dict[str, Any] | None = items[0] if items else None
        return found

    def conditions(self, kind: str, name: str, gateway: str) -> dict[str, tuple[str, str]]:
        """Status and reason by type, of the entry for a Gateway; {} without one.

        Raises:
            AssertionError: a condition is not about the object as it stands.
        """
        item = self.get(kind, name)
        status = (item or {}).get("status") or {}
        generation = (item or {}).get("metadata", {}).get("generation")
        for entry in status.get("parents", status.get("parent", ())):
            if entry["parentRef"]["name"] == gateway:
                if any(each["observedGeneration"] != generation for each in entry["conditions"]):
                    return {}
                return {
                    each["type"]: (each["status"], each["reason"]) for each in entry["conditions"]
                }
        return {}

    def parents(self, pool: str) -> list[str]:
        """The Gateways that a pool's status names."""
        status = (self.get("InferencePool", pool) or {}).get("status") or {}
        return [entry["parentRef"]["name"] for entry in status.get("parents", ())]

    def ask(
        self,
        path: str = "/",
        *,
        port: int = PRIMARY,
        host: str | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        given = {**({"host": host} if host else {}), **(headers or {})}
        method = "GET" if body is None else "POST"
        return self.instance.request(port, method, path, body, given)

    def served_by(self, answer: Answer) -> str:
        assert answer.status == 200, (answer.status, answer.body)
        address: str = answer.json["address"]
        return address

    def reaches(self, pool: str, path: str, **more: Any) -> bool:
        """Whether such a request is answered by that pool, now."""
        answer = self.ask(path, **more)
        return answer.status == 200 and answer.json["address"] in self.addresses[pool]


def pool(
    name: str,
    app: str,
    *,
    picker: str | None,
    ports: Sequence[int] = (3000,),
    protocol: str | None = None,
    failure_mode: str | None = None,
) -> str:
    """An InferencePool."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": app}},
        "targetPorts": [{"number": port} for port in ports],
    }
    if protocol is not None:
        spec["appProtocol"] = protocol
    if picker is not None:
        spec["endpointPickerRef"] = {"name": picker, "port": {"number": 9002}}
        if failure_mode is not None:
            spec["endpointPickerRef"]["failureMode"] = failure_mode
    return "\n---\n" + json.dumps(
        {
            "apiVersion": f"{POOL}/v1",
            "kind": "InferencePool",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


def backend(name: str, **more: Any) -> dict[str, Any]:
    """A backendRef to a pool."""
    return {"group": POOL, "kind": "InferencePool", "name": name, **more}


def route(
    name: str,
    gateways: Sequence[str],
    rules: Sequence[tuple[str, Sequence[dict[str, Any]]]],
    hostnames: Sequence[str] = (),
) -> str:
    """An HTTPRoute with a rule for each path prefix."""
    return "\n---\n" + json.dumps(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": name},
            "spec": {
                "parentRefs": [{"name": gateway} for gateway in gateways],
                "hostnames": list(hostnames),
                "rules": [
                    {
                        "matches": [{"path": {"type": "PathPrefix", "value": prefix}}],
                        "backendRefs": list(refs),
                    }
                    for prefix, refs in rules
                ],
            },
        }
    )


@contextmanager
def raised(folder: Path) -> Iterator[Stage]:
    """The stage, with everything ready and no routes."""
    hosts = {
        "primary": [f"127.61.1.{n}" for n in (1, 2, 3)],
        "secondary": [f"127.61.2.{n}" for n in (1, 2, 3)],
        "appprotocol": [f"127.61.3.{n}" for n in (1, 2)],
        "dp": [f"127.61.4.{n}" for n in (1, 2, 3)],
    }
    port = free_port([host for each in hosts.values() for host in each])
    more = [free_port(hosts["dp"]), free_port(hosts["dp"])]
    h2c = free_port(hosts["appprotocol"])
    addresses = {
        name: tuple(f"{host}:{port}" for host in hosts[name])
        for name in ("primary", "secondary", "appprotocol")
    }
    addresses["dp"] = tuple(f"{host}:{number}" for host in hosts["dp"] for number in (port, *more))
    addresses["h2c"] = tuple(f"{host}:{h2c}" for host in hosts["appprotocol"])
    maps = {
        "dp": {3000: port, 3002: more[0], 3004: more[1]},
        "appprotocol": {3000: port, 3001: h2c},
    }
    with ExitStack() as stack:
        plain = [item for name, each in addresses.items() if name != "h2c" for item in each]
        servers = stack.enter_context(echo_servers(plain, addresses["h2c"]))
        pickers = {
            name: stack.enter_context(
                foreign_picker(f"{name}-epp", each, has_health=name == "secondary")
            )
            for name, each in addresses.items()
        }
        parts = [GATEWAYS]
        for picker in pickers.values():
            parts += [picker.manifest(), service(picker.name)]
        for name, each in hosts.items():
            mapped = maps.get(name, {3000: port})
            parts += [pod(f"{name}-{n}", name, host, mapped) for n, host in enumerate(each)]
        parts += [
            pool("primary", "primary", picker="primary-epp"),
            pool("secondary", "secondary", picker="secondary-epp", failure_mode="FailOpen"),
            pool("appprotocol", "appprotocol", picker="appprotocol-epp", protocol="http"),
            pool(
                "h2c",
                "appprotocol",
                picker="h2c-epp",
                ports=[3001],
                protocol="kubernetes.io/h2c",
            ),
            pool("dp", "dp", picker="dp-epp", ports=[3000, 3002, 3004]),
        ]
        (folder / "base.yaml").write_text("".join(parts))
        instance = stack.enter_context(running(folder, ports=(PRIMARY, SECONDARY)))
        yield Stage(instance, folder, servers, pickers, addresses)
