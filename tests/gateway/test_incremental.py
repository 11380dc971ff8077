"""A translation that starts from another one is what a whole translation would be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.gateway.backends.references import Resolver
from pointsman.gateway.options import Options
from pointsman.gateway.routes import rules
from pointsman.gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTE_CONFIGURATION
from pointsman.gateway.statuses.facts import EnvoyFacts, Memory
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import Translation, translate
from pointsman.resources.base import Ref, Resource
from pointsman.resources.core import Pod
from pointsman.resources.gateway_api import GROUP, Gateway, HTTPRoute, Route
from pointsman.resources.parse import parse_text
from pointsman.store import Store
from tests.gateway.test_golden import CASES, GOLDEN, OPTIONS, contents, loaded


def objects(text: str) -> list[Resource]:
    return [item.resource for item in parse_text(text, "") if item.resource is not None]


EVERYTHING = [item for case in CASES for item in objects((GOLDEN / case / "in.yaml").read_text())]


def told(store: Store, found: Translation, options: Options, memory: Memory) -> object:
    return statuses(store, found, EnvoyFacts(connected=1), options, memory)


def changed(
    store: Store, pieces: list[Resource], data: st.DataObject, steps: int, come: int, go: int
) -> Iterator[None]:
    """Some of `pieces` come and some go, again and again, up to so many."""
    refs = [item.ref for item in pieces]
    for _ in range(data.draw(st.integers(2, steps))):
        picked = data.draw(st.lists(st.sampled_from(pieces), max_size=come))
        gone = data.draw(st.lists(st.sampled_from(refs), max_size=go))
        store.apply(picked, gone)
        yield


def follow(store: Store, options: Options, changes: Iterator[None]) -> None:
    """After each of the changes what is made from the state before is what is made anew."""
    memory = Memory()
    found = None
    for _ in changes:
        found = translate(store, options, found)
        whole = translate(store, options)
        assert [part.fault for part in whole.parts.values() if part.fault is not None] == []
        assert contents(found.snapshot) == contents(whole.snapshot)
        assert [item.key for item in found.snapshot] == [item.key for item in whole.snapshot]
        assert found.fleets.keys() == whole.fleets.keys()
        for name, served in whole.fleets.items():
            assert contents(found.fleets[name]) == contents(served)
        assert told(store, found, options, memory) == told(store, whole, options, Memory())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_after_any_changes_it_equals_a_whole_translation(data: st.DataObject) -> None:
    store = Store()
    follow(store, OPTIONS, changed(store, EVERYTHING, data, steps=5, come=40, go=12))


CONTROLLER = "example.com/controller"
IN_A_CLUSTER = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: any}}
spec: {{controllerName: {CONTROLLER}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: settings}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: front}}
spec:
  gatewayClassName: any
  infrastructure:
    parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: settings}}
  listeners: [{{name: all, protocol: HTTP, port: 80}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: models}}
spec:
  parentRefs: [{{name: front}}]
  rules:
  - backendRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: models}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: models}}
spec:
  selector: {{matchLabels: {{app: models}}}}
  targetPorts: [{{number: 8000}}]
""" + "".join(
    f"""---
apiVersion: v1
kind: Service
metadata: {{name: models-picker, annotations: {{pointsman.dev/provided: "{state.lower()}"}}}}
spec: {{selector: {{app: picker}}, ports: [{{port: 9002}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: one, labels: {{app: models}}}}
status: {{podIP: 10.0.0.1, conditions: [{{type: Ready, status: "{state}"}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: picker, labels: {{app: picker}}}}
status: {{podIP: 10.0.0.2, conditions: [{{type: Ready, status: "{state}"}}]}}
"""
    for state in ("True", "False")
)
"""A pool whose picker is provided, and all that comes one after the other around it."""


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_in_whatever_order_things_come_a_fleet_is_served_the_same(data: st.DataObject) -> None:
    store, pieces = Store(), objects(IN_A_CLUSTER)
    options = Options(controllers=frozenset({CONTROLLER}))
    follow(store, options, changed(store, pieces, data, steps=12, come=6, go=1))


SERVED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners: [{name: all, protocol: HTTP, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {selector: {app: one}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {selector: {app: two}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one}}
status: {podIP: 10.0.0.1}
""" + "".join(
    f"""---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {backend}}}
spec:
  parentRefs: [{{name: front}}]
  hostnames: [{backend}.example]
  rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]
"""
    for backend in ("one", "two")
)


def test_a_changed_route_costs_its_own_part() -> None:
    store = loaded(SERVED)
    before = translate(store, OPTIONS)
    route = store.get(HTTPRoute, "default", "two")
    assert route is not None
    spec = route.spec.model_copy(update={"hostnames": ("other.example",)})
    store.apply([route.model_copy(update={"spec": spec})])
    after = translate(store, OPTIONS, before)
    refs = list(after.parts)
    assert [after.parts[ref] is before.parts[ref] for ref in refs] == [True, False]
    assert after.scene is before.scene
    hosts, old = (item.route_configurations.hosts["default/front/all"] for item in (after, before))
    assert hosts["one.example"] is old["one.example"]
    for kind in (LISTENER, CLUSTER):
        for name, item in after.snapshot.names(kind).items():
            known = before.snapshot.names(kind).get(name)
            assert known is None or known is item or name.startswith("httproute/default/two")


def test_a_pod_that_moves_costs_its_endpoints() -> None:
    store = loaded(SERVED)
    before = translate(store, OPTIONS)
    pod = store.get(Pod, "default", "one")
    assert pod is not None
    store.apply([pod.with_status({"podIP": "10.0.0.2"})])
    after = translate(store, OPTIONS, before)
    changed = {
        item.key.type_url
        for item in after.snapshot
        if (known := before.snapshot.get(item.key)) is None or known.version != item.version
    }
    assert changed == {ENDPOINTS}
    assert after.scene is before.scene


POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: models}
spec:
  selector: {matchLabels: {app: one}}
  targetPorts: [{number: 8000}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: models}
spec:
  parentRefs: [{name: front}]
  rules:
  - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: models}]
"""


def test_a_pod_of_a_pool_that_moves_makes_no_route_anew() -> None:
    store = loaded(f"{SERVED}---{POOL}")
    before = translate(store, OPTIONS)
    pod = store.get(Pod, "default", "one")
    assert pod is not None
    store.apply([pod.with_status({"podIP": "10.0.0.2"})])
    after = translate(store, OPTIONS, before)
    ref = Ref(GROUP, "HTTPRoute", "default", "models")
    assert after.parts[ref] is before.parts[ref]
    (pool,) = after.pools.values()
    assert [item.host for item in pool.servers] == ["10.0.0.2"]


def test_our_own_words_about_an_object_change_nothing() -> None:
    store, memory = loaded(SERVED), Memory()
    before = translate(store, OPTIONS)
    first = statuses(store, before, EnvoyFacts(), OPTIONS, memory)
    for cls in (Gateway, HTTPRoute):
        store.apply([item.with_status({"said": True}) for item in store.list(cls)])
    after = translate(store, OPTIONS, before)
    assert after.scene is before.scene
    assert after.snapshot.names(ROUTE_CONFIGURATION) == before.snapshot.names(ROUTE_CONFIGURATION)
    second = statuses(store, after, EnvoyFacts(), OPTIONS, memory)
    assert all(second[ref] is first[ref] for ref in after.parts)


def test_a_fault_with_one_route_costs_that_route_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    follow = rules.follow

    def faulty(route: Route, resolver: Resolver, *, is_counted: bool = False) -> list[rules.Rule]:
        if route.metadata.name == "two":
            raise KeyError("oh")
        return follow(route, resolver, is_counted=is_counted)

    monkeypatch.setattr(rules, "follow", faulty)
    store = loaded(SERVED)
    found = translate(store, OPTIONS)
    assert [bool(part.hosts) for part in found.parts.values()] == [True, False]
    told = statuses(store, found, EnvoyFacts(connected=1), OPTIONS)
    (entry,) = told[Ref(GROUP, "HTTPRoute", "default", "two")]["parents"]
    assert entry["conditions"][0]["reason"] == "InternalError"
    assert "KeyError" in entry["conditions"][0]["message"]
