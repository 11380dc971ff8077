"""A Lease: of several processes that want it, one has it, until it gives it back or falls silent.

The rules are those of client-go: who has it renews it every `RENEW_S`; who has not renewed it for
`DURATION_S`, by our own clock since we saw the last change, has lost it to whoever writes first;
who cannot renew for `DEADLINE_S` stops acting before anybody else may begin. Two never write at
once, because each write names the version that it changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pointsman.resources.base import Kind
from pointsman.sources.kubernetes.api import Api, ApiError, path_of

LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
DURATION_S = 15.0
DEADLINE_S = 10.0
RENEW_S = 2.0

log = logging.getLogger(__name__)


class Lease:
    """One candidate for one Lease."""

    def __init__(
        self, api: Api, namespace: str, name: str, identity: str, *, duration_s: float = DURATION_S
    ) -> None:
        """`identity` tells this process from all others, as a pod's name does."""
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration_s = duration_s
        self._deadline_s = duration_s * DEADLINE_S / DURATION_S
        self._pause_s = duration_s * RENEW_S / DURATION_S
        self._seen: tuple[str, str] | None = None
        """Holder and time of renewal as they were last read."""
        self._seen_at = 0.0
        self._written: dict[str, Any] | None = None
        """The Lease as we wrote it last: to renew it, it need not be read."""
        self._renewed_at = 0.0
        self.is_held = False
        self.holder = ""
        """Who has it, as far as we know."""

    async def run(self, on_change: Callable[[bool], None]) -> None:
        """Try to have it, until cancelled; then give it back.

        `on_change` is told when it is won and when it is lost.
        """
        try:
            while True:
                try:
                    # A request that hangs must not keep us acting beyond the deadline.
                    async with asyncio.timeout(self._deadline_s / 2):
                        is_ours = await self._try()
                except (ApiError, TimeoutError) as error:
                    is_late = time.monotonic() - self._renewed_at > self._deadline_s / 2
                    is_ours = self.is_held and not is_late
                    log.log(
                        logging.WARNING if self.is_held else logging.DEBUG,
                        "The lease %s is not renewed: %s",
                        self._name,
                        str(error) or "no answer",
                    )
                self._set(is_ours, on_change)
                await asyncio.sleep(self._pause_s * random.uniform(0.8, 1.2))
        finally:
            was_held = self.is_held
            self._set(False, on_change)
            if was_held:
                with suppress(ApiError, TimeoutError):
                    async with asyncio.timeout(self._pause_s):
                        await self._give_back()

    def _set(self, is_held: bool, on_change: Callable[[bool], None]) -> None:
        if is_held != self.is_held:
            self.is_held = is_held
            log.info("The lease %s is %s", self._name, "ours" if is_held else "not ours any more")
            on_change(is_held)

    async def _try(self) -> bool:
        written, self._written = self._written, None
        if written is not None and await self._write("PUT", self._path, written):
            return True
        try:
            found = await self._api.get(self._path)
        except ApiError as error:
            if not error.is_missing:
                raise
            return await self._write("POST", self._collection, {"spec": {"leaseTransitions": 0}})
        spec = found.get("spec") or {}
        self.holder = str(spec.get("holderIdentity") or "")
        state = (self.holder, str(spec.get("renewTime")))
        if state != self._seen:
            self._seen, self._seen_at = state, time.monotonic()
        term_s = float(spec.get("leaseDurationSeconds") or self._duration_s)
        is_fresh = time.monotonic() - self._seen_at < term_s
        if self.holder not in ("", self._identity) and is_fresh:
            return False
        return await self._write("PUT", self._path, found)

    async def _write(self, method: str, path: str, found: dict[str, Any]) -> bool:
        spec = dict(found.get("spec") or {})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = now
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec.update(
            holderIdentity=self._identity,
            leaseDurationSeconds=max(1, round(self._duration_s)),
            renewTime=now,
        )
        began = time.monotonic()
        try:
            self._written = await self._api.request(method, path, self._object(found, spec))
        except ApiError as error:
            # Another was faster, or somebody has deleted it.
            if error.is_conflict or (error.is_missing and method == "PUT"):
                return False
            raise
        self._renewed_at = began
        self.holder = self._identity
        return True

    async def _give_back(self) -> None:
        found = await self._api.get(self._path)
        spec = dict(found.get("spec") or {})
        if spec.get("holderIdentity") == self._identity:
            spec.update(holderIdentity="", leaseDurationSeconds=1)
            await self._api.request("PUT", self._path, self._object(found, spec))

    def _object(self, found: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
        meta = found.get("metadata") or {"name": self._name, "namespace": self._namespace}
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": meta,
            "spec": spec,
        }

    @property
    def _collection(self) -> str:
        return path_of(LEASE, namespace=self._namespace)

    @property
    def _path(self) -> str:
        return path_of(LEASE, namespace=self._namespace, name=self._name)
