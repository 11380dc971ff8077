"""What the controller makes in a real API server, whatever changes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from pointsman.cluster.applier import AT_ONCE, Applier
from pointsman.cluster.settings import MANAGED_LABEL, MANAGER
from pointsman.sources.kubernetes.access import access
from pointsman.sources.kubernetes.api import Api
from pointsman.store import Store
from tests.kubernetes.cluster import Cluster

LIMIT_S = 30.0


def config_maps(namespace: str, names: Iterable[str]) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace, "labels": {MANAGED_LABEL: MANAGER}},
            "data": {"key": "value"},
        }
        for name in names
    ]


def made(cluster: Cluster, namespace: str) -> set[str]:
    return {item["metadata"]["name"] for item in cluster.find("configmap", namespace)}


async def until(running: asyncio.Task[None], check: Callable[[], bool]) -> None:
    """Until `check` is true, and no longer than the applier runs."""
    async with asyncio.timeout(LIMIT_S):
        while not check():
            assert not running.done(), running
            await asyncio.sleep(0.01)


async def test_what_is_wanted_no_more_while_others_are_made_is_not_made(
    control_plane: Cluster, namespace: str
) -> None:
    many = [f"first-{number}" for number in range(5 * AT_ONCE)]
    way = access(control_plane.kubeconfig, None)
    async with Api(way) as api:
        applier = Applier(Store(), api, "test", lambda: True, lambda _: False, lambda: None)
        applier.want(config_maps(namespace, many))
        running = asyncio.create_task(applier.run())
        try:
            await until(running, lambda: applier.applied > 0)
            applier.want(config_maps(namespace, ["last"]))
            await until(running, lambda: "last" in made(control_plane, namespace))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert len(made(control_plane, namespace)) < len(many)
