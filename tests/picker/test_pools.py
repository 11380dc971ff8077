"""Pools, their members and their models, as the store says."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.picker.endpoints.table import Endpoint, Table
from pointsman.picker.pools import Pools
from pointsman.resources.base import Resource
from pointsman.store import Store
from tests.picker.conftest import model, pod, pool, resource


def members(*objects: Resource, key: str = "default/pool") -> list[str]:
    store = Store()
    store.apply(objects)
    pools = Pools(store, Table())
    pools.refresh()
    view = pools.get(key)
    return [] if view is None else [endpoint.address for endpoint in view.endpoints]


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (pod("a", "10.0.0.1"), ["10.0.0.1:8000"]),
        (pod("a", "10.0.0.1", app="other"), []),
        (pod("a", "10.0.0.1", ready=False), []),
        (pod("a", "10.0.0.1", deletionTimestamp="2026-01-01T00:00:00Z"), []),
        (
            pod("a", "127.0.0.1", annotations={"pointsman.dev/ports": "8000=3123"}),
            ["127.0.0.1:3123"],
        ),
        (
            pod("a", "10.0.0.1", annotations={"inference.networking.k8s.io/active-ports": "8001"}),
            [],
        ),
    ],
)
def test_members_are_ready_pods_that_are_selected(member: Resource, expected: list[str]) -> None:
    assert members(pool(), member) == expected


def test_each_target_port_of_a_pod_is_an_endpoint() -> None:
    wide = resource(
        apiVersion="inference.networking.k8s.io/v1",
        kind="InferencePool",
        metadata={"name": "pool", "namespace": "default"},
        spec={
            "selector": {"matchLabels": {"app": "pool"}},
            "targetPorts": [{"number": 8000}, {"number": 8001}],
        },
    )
    assert members(wide, pod("a", "10.0.0.1")) == ["10.0.0.1:8000", "10.0.0.1:8001"]


def older_pool(port: int) -> Resource:
    return resource(
        apiVersion="inference.networking.x-k8s.io/v1alpha2",
        kind="InferencePool",
        metadata={"name": "pool", "namespace": "default"},
        spec={
            "selector": {"app": "pool"},
            "targetPortNumber": port,
            "extensionRef": {"name": "epp"},
        },
    )


def test_the_older_generation_is_read_and_gives_way_to_the_newer() -> None:
    assert members(older_pool(9000), pod("a", "10.0.0.1")) == ["10.0.0.1:9000"]
    assert members(older_pool(9000), pool(), pod("a", "10.0.0.1")) == ["10.0.0.1:8000"]


def test_changes_keep_the_load_of_those_who_stay() -> None:
    store = Store()
    store.apply([pool(), pod("a", "10.0.0.1"), pod("b", "10.0.0.2")])
    heard: list[tuple[list[Endpoint], list[Endpoint]]] = []
    pools = Pools(store, Table(), lambda came, went: heard.append((came, went)))
    pools.refresh()
    view = pools.get("default/pool")
    assert view is not None
    view.endpoints[0].reserve(5)
    store.apply([pod("c", "10.0.0.3")], [view_ref("b")])
    pools.refresh()
    view = pools.get("default/pool")
    assert view is not None
    assert [(e.address, e.requests) for e in view.endpoints] == [
        ("10.0.0.1:8000", 1),
        ("10.0.0.3:8000", 0),
    ]
    assert [(len(came), len(went)) for came, went in heard] == [(2, 0), (1, 1)]


def view_ref(name: str) -> Any:
    return pod(name, "10.0.0.9").ref


def test_models_belong_to_their_pool() -> None:
    store = Store()
    store.apply([pool(), pool("other"), model("m", "Sheddable")])
    pools = Pools(store, Table())
    pools.refresh()
    views = {view.name: view for view in pools.all()}
    assert views["pool"].models.exact["m"].priority == -1
    assert not views["other"].models
