"""The loop of the control plane: what it folds, what it passes over, and what it survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from pointsman.gateway.names import SHARED_FLEET
from pointsman.gateway.snapshot import ROUTE_CONFIGURATION, Snapshot
from pointsman.resources.base import Ref
from pointsman.resources.gateway_api import HTTPRoute
from pointsman.sources import apply_status
from pointsman.store import Store
from pointsman.xds.controller import Controller
from pointsman.xds.publisher import Publisher
from tests.gateway.test_golden import OPTIONS, loaded

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners: [{name: all, protocol: HTTP, port: 80}]
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{number}}}
spec:
  parentRefs: [{{name: front}}]
  hostnames: [h{number}.example]
  rules: [{{filters: [{{type: RequestRedirect, requestRedirect: {{hostname: c.example}}}}]}}]
"""
LIMIT_S = 10.0
TRANSLATE = "pointsman.xds.controller.translate"


class Loop:
    """A controller that runs, and what it has served."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.written: list[Ref] = []
        self.served: list[Snapshot] = []
        self.controller = Controller(store, OPTIONS, Publisher(store, self._write).publish)
        self.controller.discovery.serve = self._serve  # type: ignore[method-assign]  # a spy

    def _serve(self, found: Mapping[str, Snapshot]) -> None:
        self.served.append(found[SHARED_FLEET])

    async def _write(self, ref: Ref, status: dict[str, Any]) -> None:
        self.written.append(ref)
        apply_status(self.store, ref, status)

    async def settled(self) -> None:
        """Wait until everything that has changed is served."""
        async with asyncio.timeout(LIMIT_S):
            while not self.controller.is_current or not self.served:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(text: str) -> AsyncIterator[Loop]:
    loop = Loop(loaded(text))
    task = asyncio.create_task(loop.controller.run())
    try:
        await loop.settled()
        yield loop
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def routes(number: int) -> list[Any]:
    return loaded(GATEWAY + ROUTE.format(number=number)).list(HTTPRoute)


async def test_a_burst_of_changes_becomes_few_updates_and_loses_nothing() -> None:
    async with running(GATEWAY) as loop:
        before = len(loop.served)
        for number in range(100):
            loop.store.apply(routes(number))
            await asyncio.sleep(0)
        await loop.settled()
        assert len(loop.served) - before < 50
        content = loop.served[-1].names(ROUTE_CONFIGURATION)["default/front/all"].content
        assert all(f"h{number}.example".encode() in content for number in range(100))


async def test_our_own_statuses_are_no_reason_to_begin_again() -> None:
    async with running(GATEWAY + ROUTE.format(number=1)) as loop:
        await asyncio.sleep(0)
        served, written = len(loop.served), len(loop.written)
        assert written
        route = loop.store.list(HTTPRoute)[0]
        loop.store.apply([route.with_status({**(route.status or {}), "said": "by another"})])
        await loop.settled()
        assert len(loop.served) == served
        assert len(loop.written) == written


async def test_a_verdict_is_heard_beside_what_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Envoy refuses a route just when somebody writes a status."""
    async with running(GATEWAY + ROUTE.format(number=1)) as loop:
        route = loop.store.list(HTTPRoute)[0]
        judge = loop.controller._judge
        monkeypatch.setattr(judge, "refused", lambda: {route.ref: "no"})
        loop.store.apply([route.with_status({**(route.status or {}), "said": "by another"})])
        loop.controller._on_verdict()
        await loop.settled()
        content = loop.served[-1].names(ROUTE_CONFIGURATION)["default/front/all"].content
        assert b"h1.example" not in content


async def test_a_change_that_is_taken_back_beside_a_verdict_is_taken_back() -> None:
    async with running(GATEWAY) as loop:
        (route,) = routes(1)
        loop.store.apply([route])
        loop.controller._on_verdict()
        await asyncio.sleep(0)
        loop.store.apply((), [route.ref])
        await loop.settled()
        content = loop.served[-1].names(ROUTE_CONFIGURATION)["default/front/all"].content
        assert b"h1.example" not in content


async def test_a_fault_of_ours_leaves_what_is_served_and_the_next_change_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faulty(*_arguments: Any) -> Any:
        raise RuntimeError("oh")

    async with running(GATEWAY) as loop:
        served = len(loop.served)
        monkeypatch.setattr(TRANSLATE, faulty)
        loop.store.apply(routes(1))
        await loop.settled()
        assert len(loop.served) == served
        monkeypatch.undo()
        loop.store.apply(routes(2))
        await loop.settled()
        content = loop.served[-1].names(ROUTE_CONFIGURATION)["default/front/all"].content
        assert b"h1.example" in content
        assert b"h2.example" in content
