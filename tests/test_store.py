"""The store keeps objects by name and folds changes for readers that are slow."""

from __future__ import annotations

import asyncio

import pytest

from pointsman.resources.base import ObjectMeta, Ref
from pointsman.resources.core import ConfigMap
from pointsman.store import Change, Store


def config_map(name: str, text: str = "", namespace: str = "default") -> ConfigMap:
    meta = ObjectMeta(name=name, namespace=namespace)
    return ConfigMap(api_version="v1", kind="ConfigMap", metadata=meta, data={"text": text})


def test_objects_are_found_by_class_and_name_and_listed_in_order() -> None:
    store = Store()
    b, a, far = config_map("b"), config_map("a"), config_map("a", namespace="far")
    store.apply([b, a, far])
    assert store.get(ConfigMap, "default", "a") == a
    assert store.get(ConfigMap, "far", "b") is None
    assert store.list(ConfigMap) == [a, b, far]
    assert store.list(ConfigMap, "default") == [a, b]
    assert list(store) == [a, b, far]


def test_applying_what_is_there_already_changes_nothing() -> None:
    store = Store()
    store.apply([config_map("a")])
    revision = store.revision
    assert store.apply([config_map("a")], [Ref("", "ConfigMap", "default", "nobody")]) == ()
    assert store.revision == revision


async def test_a_reader_gets_what_changed_since_it_looked_folded_by_object() -> None:
    store = Store()
    with store.subscribe() as subscription:
        store.apply([config_map("a", "1"), config_map("b")])
        store.apply([config_map("a", "2")], [config_map("b").ref])
        assert await subscription.batch() == (Change(None, config_map("a", "2")),)
        store.apply(deleted=[config_map("a").ref])
        assert await subscription.batch() == (Change(config_map("a", "2"), None),)
        assert subscription.take() == ()


async def test_a_reader_that_left_is_told_nothing() -> None:
    store = Store()
    with store.subscribe() as subscription:
        pass
    store.apply([config_map("a")])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(subscription.batch(), 0.01)
