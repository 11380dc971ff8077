"""Writes statuses to the API server: only by the leader, only what has changed, not too fast.

Each write names the version of the object that it was made from. One that meets another version is
made again from that, so that nothing that others have said is lost.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from pointsman.cluster.merging import (
    has_entries,
    merge_patch,
    merged_status,
    without_entries,
)
from pointsman.gateway.statuses.facts import Status
from pointsman.resources import (
    client_policies,
    envoy_gateway,
    envoy_proxy,
    gateway_api,
    inference_extension,
    kinds,
    traffic_policies,
)
from pointsman.resources.base import Ref, Resource
from pointsman.sources.clock import now_text
from pointsman.sources.kubernetes.api import MERGE_PATCH, Api, ApiError, path_of
from pointsman.store import Store

WRITES_PER_S = 50.0
BURST = 200
"""Writes that may go at once after a quiet time."""
AT_ONCE = 8
"""Writes that wait for their answers."""
CONFLICT_TRIES = 5
RETRY_S = (1.0, 30.0)
"""First and longest pause after the API server did not take a status."""
SEEN_WITHIN_S = 10.0
"""A write is heard of by the watch; until then the object is not looked at again."""

WITH_ENTRIES: tuple[type[Resource], ...] = (
    gateway_api.HTTPRoute,
    gateway_api.GRPCRoute,
    gateway_api.BackendTLSPolicy,
    inference_extension.InferencePool,
    inference_extension.InferencePoolV1Alpha2,
    envoy_gateway.EnvoyExtensionPolicy,
    envoy_gateway.EnvoyPatchPolicy,
    envoy_proxy.EnvoyProxy,
    traffic_policies.BackendTrafficPolicy,
    client_policies.ClientTrafficPolicy,
)
"""The kinds in whose statuses each controller has entries of its own."""

log = logging.getLogger(__name__)


class Pace:
    """How fast something may go: a bucket of tokens."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = time.monotonic()

    async def wait(self) -> None:
        """Until one more may go."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate_per_s)
        self._at = now
        self._tokens -= 1.0
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / self._rate_per_s)


class StatusWriter:
    """Keeps the statuses in the cluster as they should be."""

    def __init__(
        self,
        store: Store,
        api: Api,
        controllers: frozenset[str],
        is_leader: Callable[[], bool],
        gateways: Callable[[], frozenset[tuple[str, str]]],
        versions: Callable[[type[Resource]], str | None] = lambda _: None,
    ) -> None:
        """`gateways`: namespace and name of those that are ours; `versions`: served in which."""
        self._store = store
        self._api = api
        self._controllers = controllers
        self._is_leader = is_leader
        self._gateways = gateways
        self._versions = versions
        self._wanted: Mapping[Ref, Status] = {}
        self._is_told = False
        """Something has been published: before that nothing is known to be superfluous."""
        self._wake = asyncio.Event()
        self._pace = Pace(WRITES_PER_S, BURST)
        self._awaited: dict[Ref, tuple[str, float]] = {}
        """Objects that were written: the version before, and until when the next is awaited."""
        self._failed: dict[Ref, tuple[float, float]] = {}
        """Objects that could not be written: when to try again, and the pause after that."""
        self._good: dict[Ref, tuple[Status | None, Resource]] = {}
        """Objects as they should be, each with what we say of it: nothing is to be compared."""
        self._good_for: frozenset[tuple[str, str]] = frozenset()
        """The Gateways with which that was found."""
        self.writes = 0
        self.conflicts = 0
        self.errors = 0

    async def publish(self, found: Mapping[Ref, Status]) -> None:
        """Take the statuses of all objects as they should be now."""
        self._wanted = found
        self._is_told = True
        self._wake.set()

    def look_again(self) -> None:
        """Something has changed that may need writing."""
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._until_woken()
            if self._is_leader() and self._is_told:
                await self._round()
            else:
                # Another writes now: nothing of ours is awaited.
                self._awaited, self._failed = {}, {}

    async def _until_woken(self) -> None:
        pauses = [at for _, at in self._awaited.values()] + [at for at, _ in self._failed.values()]
        try:
            async with asyncio.timeout_at(self._loop_time(min(pauses)) if pauses else None):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _loop_time(self, at: float) -> float:
        return asyncio.get_running_loop().time() + max(0.05, at - time.monotonic())

    async def _round(self) -> None:
        now = time.monotonic()
        gateways = self._gateways()
        if gateways != self._good_for:
            self._good, self._good_for = {}, gateways
        self._awaited = {
            ref: item for ref, item in self._awaited.items() if self._is_awaited(ref, now)
        }
        candidates = self._candidates()
        dirty = [ref for ref in candidates if self._is_due(ref, now) and self._is_wrong(ref)]
        gate = asyncio.Semaphore(AT_ONCE)

        async def write(ref: Ref) -> None:
            async with gate:
                await self._pace.wait()
                if self._is_leader():
                    await self._write(ref)

        await asyncio.gather(*(write(ref) for ref in dirty))
        # What is well by itself by now is not waited for.
        tried = frozenset(dirty)
        self._failed = {
            ref: item
            for ref, item in self._failed.items()
            if (ref in tried or item[0] > now) and self._store.find(ref) is not None
        }
        if len(self._good) > len(candidates):
            self._good = {ref: self._good[ref] for ref in candidates if ref in self._good}

    def _candidates(self) -> list[Ref]:
        """What we speak of, and what still has words of ours though we serve it no more."""
        left = [
            held.ref
            for cls in WITH_ENTRIES
            for held in self._store.held(cls)
            if held.ref not in self._wanted and has_entries(held.item.status, self._controllers)
        ]
        return [*self._wanted, *left]

    def _is_awaited(self, ref: Ref, now: float) -> bool:
        """Whether what was written has not come back yet."""
        version, until = self._awaited.get(ref, ("", 0.0))
        item = self._store.find(ref)
        return item is not None and item.metadata.resource_version == version and now < until

    def _is_due(self, ref: Ref, now: float) -> bool:
        return ref not in self._awaited and now >= self._failed.get(ref, (0.0, 0.0))[0]

    def _is_wrong(self, ref: Ref) -> bool:
        try:
            return self._differs(ref)
        except Exception:
            # A fault of ours with one object must cost no other its status.
            log.exception("The status of %s cannot be made", ref)
            return False

    def _differs(self, ref: Ref) -> bool:
        item, ours = self._store.find(ref), self._wanted.get(ref)
        if item is None:
            return False
        said, known = self._good.get(ref, (None, None))
        if known is item and (said is ours or said == ours):
            return False
        differs = self._status(ref, item.status) != (item.status or {})
        if not differs:
            self._good[ref] = (ours, item)
        return differs

    def _status(self, ref: Ref, old: Mapping[str, Any] | None) -> dict[str, Any]:
        ours = self._wanted.get(ref)
        return merged_status(
            old,
            ours if ours is not None else without_entries(old or {}),
            namespace=ref.namespace,
            controllers=self._controllers,
            gateways=self._gateways(),
            now=now_text(),
        )

    async def _write(self, ref: Ref) -> None:
        item = self._store.find(ref)
        cls = kinds.lookup(ref.group, ref.kind)
        if item is None or cls is None:
            return
        seen = item.metadata.resource_version
        path = path_of(cls.KIND, self._versions(cls) or "", ref.namespace, ref.name)
        try:
            await self._patch(ref, path, seen, item.status)
        except ApiError as error:
            if error.is_missing:
                return
            self.errors += 1
            _, pause_s = self._failed.get(ref, (0.0, RETRY_S[0]))
            log.log(
                logging.DEBUG if ref in self._failed else logging.WARNING,
                "The status of %s is not written: %s",
                ref,
                error,
            )
            at = time.monotonic() + pause_s * random.uniform(0.5, 1.0)
            self._failed[ref] = (at, min(pause_s * 2, RETRY_S[1]))
            return
        self._failed.pop(ref, None)
        self._awaited[ref] = (seen, time.monotonic() + SEEN_WITHIN_S)

    async def _patch(
        self, ref: Ref, path: str, version: str, status: Mapping[str, Any] | None
    ) -> None:
        for tries_left in range(CONFLICT_TRIES - 1, -1, -1):
            patch = merge_patch(status, self._status(ref, status))
            if not patch:
                return
            body = {"metadata": {"resourceVersion": version}, "status": patch}
            try:
                await self._api.request("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)
            except ApiError as error:
                if not error.is_conflict or not tries_left:
                    raise
                self.conflicts += 1
                await asyncio.sleep(random.uniform(0.0, 0.1))
                found = await self._api.get(path)
                version, status = found["metadata"]["resourceVersion"], found.get("status")
            else:
                self.writes += 1
                return
