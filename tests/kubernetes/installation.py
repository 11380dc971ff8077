"""Pointsman in a cluster: installed by its plain manifests, with the rights that these give."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.instances import Answer, eventually
from tests.kubernetes.cluster import CHECKOUT, Cluster

NAMESPACE = "pointsman-system"
MANIFESTS = CHECKOUT / "deploy" / "pointsman.yaml"
FOR_ENVOY_GATEWAY = CHECKOUT / "deploy" / "pointsman-with-envoy-gateway-classes.yaml"
GUIDE = CHECKOUT.parent / "shared" / "guide"

GUIDE_PICKER = CHECKOUT / "deploy" / "kgateway-guide-picker.yaml"

READY_S = 60.0


@dataclass(frozen=True)
class Door:
    """A Gateway as clients see it."""

    host: str
    port: int

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 15.0,
    ) -> Answer:
        """One request on a connection of its own."""
        content = json.dumps(body).encode() if body is not None else None
        given = {"content-type": "application/json", **(headers or {})}
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, content, given)
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def complete(self, model: str, **more: Any) -> Answer:
        """A completion of a few tokens."""
        body = {"model": model, "prompt": "Say something.", "max_tokens": 4, **more}
        return self.request("POST", "/v1/completions", body)

    def answers(self, model: str) -> Answer:
        """The first good answer."""

        def ask() -> Answer | None:
            try:
                found = self.complete(model)
            except OSError:
                return None
            return found if found.status == 200 else None

        return eventually(ask, READY_S)


def install(cluster: Cluster, manifests: Path = MANIFESTS) -> None:
    """Bring up the controller, and wait until every replica is ready; the kinds are there."""
    cluster.apply(manifests, NAMESPACE)
    cluster.await_rollout("pointsman", NAMESPACE)


def door(cluster: Cluster, gateway: str, port: int, namespace: str = "default") -> Door:
    """The way in that the status of a Gateway tells, once it is programmed."""
    cluster.kubectl(
        "wait",
        f"gateway/{gateway}",
        "--for=condition=Programmed",
        f"--timeout={READY_S:g}s",
        "-n",
        namespace,
    )
    (address,) = cluster.get("gateway", gateway, namespace)["status"]["addresses"]
    return Door(address["value"], port)
