"""What is so about objects, by the translator alone: no Envoy, no files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import Key
from pointsman.gateway.statuses.facts import EnvoyFacts, Fleet
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import translate
from pointsman.resources.base import Ref
from pointsman.resources.parse import parse_text
from pointsman.store import Store
from tests.conformance.certificates import Authority, secret
from tests.conformance.sites import Conditions, by_type, reasons
from tests.gateway.test_golden import OPTIONS

IN_A_CLUSTER = replace(OPTIONS, is_alone=False)
AUTHORITY = Authority("tests")
CERTIFICATE = secret("cert", AUTHORITY.issue("a.example"))
FAR_CERTIFICATE = secret("far-cert", AUTHORITY.issue("b.example"), "far")

CLASS = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: any, generation: 3}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
"""


def loaded(text: str) -> Store:
    store = Store()
    parsed = parse_text(text, "in.yaml", strict=True)
    problems = [str(problem) for item in parsed for problem in item.problems]
    assert problems == []
    store.apply(item.resource for item in parsed if item.resource is not None)
    return store


class Judgement:
    """The statuses of all objects of a manifest, where Envoy took everything but `refused`."""

    def __init__(
        self,
        text: str,
        options: Options = OPTIONS,
        refused: Mapping[Key, str] | None = None,
        fleets: Mapping[Ref, Fleet] | None = None,
    ) -> None:
        self.store = loaded(text)
        self.translation = translate(self.store, options)
        listeners = frozenset(
            name for item in self.translation.listeners for name in item.sockets.values()
        )
        facts = EnvoyFacts(
            connected=1, listeners=listeners, refused=refused or {}, fleets=fleets or {}
        )
        found = statuses(self.store, self.translation, facts, options)
        self.statuses = {str(ref): status for ref, status in found.items()}

    def of(self, name: str) -> dict[str, tuple[str, str]]:
        """Status and reason of each condition of an object, as in `Gateway default/front`."""
        return reasons(self.conditions(name))

    def conditions(self, name: str) -> Conditions:
        return by_type(self.statuses[name]["conditions"])

    def listener(self, owner: str, name: str) -> dict[str, tuple[str, str]]:
        """The same of one listener."""
        return reasons(by_type(self.entry(owner, name)["conditions"]))

    def entry(self, owner: str, name: str) -> dict[str, Any]:
        """The entry of a listener in the status of its owner."""
        entries = self.statuses[owner]["listeners"]
        found: dict[str, Any] = next(item for item in entries if item["name"] == name)
        return found

    def parent(self, name: str, position: int = 0) -> dict[str, tuple[str, str]]:
        """The same of a route under one of its parents."""
        return reasons(by_type(self.statuses[name]["parents"][position]["conditions"]))

    def ancestor(self, name: str, position: int = 0) -> dict[str, tuple[str, str]]:
        """The same of a policy for one of its ancestors."""
        return reasons(by_type(self.statuses[name]["ancestors"][position]["conditions"]))


def gateway(listeners: str, more: str = "", name: str = "front", namespace: str = "default") -> str:
    """A Gateway, generation 5."""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}, generation: 5}}
spec:
  gatewayClassName: any
  listeners: {listeners}
  {more}
"""


def listener_set(
    listeners: str, name: str = "more", namespace: str = "default", made: str = "01"
) -> str:
    """A ListenerSet of the Gateway `front`, made on that day."""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata:
  name: {name}
  namespace: {namespace}
  generation: 6
  creationTimestamp: "2026-01-{made}T00:00:00Z"
spec:
  parentRef: {{name: front, namespace: default}}
  listeners: {listeners}
"""


def route(
    name: str = "route",
    parents: str = "[{name: front}]",
    namespace: str = "default",
    more: str = "",
    kind: str = "HTTPRoute",
) -> str:
    """A route that answers by itself, so that it needs no backend."""
    rules = (
        "[{filters: [{type: RequestRedirect, requestRedirect: {hostname: c.example}}]}]"
        if kind == "HTTPRoute"
        else "[{}]"
    )
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}, generation: 7}}
spec:
  parentRefs: {parents}
  rules: {rules}
  {more}
"""


def namespace(name: str, **labels: str) -> str:
    listed = ", ".join(f"{key}: {value}" for key, value in labels.items())
    head = "\n---\napiVersion: v1\nkind: Namespace\n"
    return f"{head}metadata: {{name: {name}, labels: {{{listed}}}}}\n"


def grant(from_kind: str, to_kind: str, from_namespace: str = "default", name: str = "") -> str:
    """A ReferenceGrant of the namespace `far`."""
    group = "" if to_kind in ("Secret", "Service", "ConfigMap") else "gateway.networking.k8s.io"
    named = f", name: {name}" if name else ""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {{name: grant-{from_kind.lower()}-{to_kind.lower()}, namespace: far}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {from_kind}, namespace: {from_namespace}}}]
  to: [{{group: "{group}", kind: {to_kind}{named}}}]
"""
