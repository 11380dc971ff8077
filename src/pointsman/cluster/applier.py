"""Brings about the objects that should be there, by server-side apply, and takes away the others.

What was applied is told apart by a digest in an annotation. An object that has it, and that nobody
has changed since, is as it should be and costs nothing: by its generation, where it has one, else
by its version. Applying once more what is there already changes nothing in the API server. An
object of the same name that is not ours is left alone, and told of.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pointsman.cluster.settings import INSTALLATION_ANNOTATION, MANAGED_LABEL, MANAGER
from pointsman.resources import kinds
from pointsman.resources.base import Ref, Resource
from pointsman.sources.kubernetes.api import APPLY_PATCH, Api, ApiError, path_of
from pointsman.store import Store

DIGEST_ANNOTATION = "pointsman.dev/applied"
RETRY_S = (0.5, 30.0)
AT_ONCE = 8

Object = dict[str, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Applied:
    """An object as the last apply left it."""

    generation: int
    """0 for kinds that have none."""
    version: str
    seen: str
    """Its version in the store at that time: the watch will tell of the new one."""

    def is_still(self, found: Resource) -> bool:
        """Nobody has changed it since."""
        meta = found.metadata
        if meta.resource_version == self.seen:
            return True
        return meta.generation == self.generation and (
            self.generation > 0 or meta.resource_version == self.version
        )


class TakenError(Exception):
    """An object of that name is there and is somebody else's."""


class Applier:
    """Knows what should be there, and what was applied."""

    def __init__(
        self,
        store: Store,
        api: Api,
        installation: str,
        is_leader: Callable[[], bool],
        is_abandoned: Callable[[Resource], bool],
        on_change: Callable[[], None],
    ) -> None:
        """`installation` is in an annotation of all that is ours.

        `is_abandoned`: something of ours is for nobody any more.

        `on_change` is called when the problems have changed.
        """
        self._store = store
        self._api = api
        self._installation = installation
        self._is_leader = is_leader
        self._is_abandoned = is_abandoned
        self._on_change = on_change
        self._wanted: dict[Ref, tuple[Object, str]] = {}
        self._applied: dict[Ref, _Applied] = {}
        self._retries: dict[Ref, tuple[float, float]] = {}
        self._wake = asyncio.Event()
        self._has_plan = False
        self.problems: dict[Ref, str] = {}
        """Why an object could not be applied."""
        self.applied = 0

    def want(self, objects: Iterable[Object]) -> None:
        """These, and no others, should be there."""
        wanted = {}
        for item in objects:
            ref = _ref(item)
            known = self._wanted.get(ref)
            is_same = known is not None and (known[0] is item or known[0] == item)
            wanted[ref] = known if known is not None and is_same else (item, _digest(item))
        if wanted != self._wanted or not self._has_plan:
            self._wanted = wanted
            self._has_plan = True
            self._wake.set()

    def look_again(self) -> None:
        """Some object may not be as it was."""
        self._wake.set()

    async def run(self) -> None:
        """Apply until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if not self._is_leader():
                self._retries = {}  # another tries now
            elif self._has_plan:
                await self._round()

    def _pause_s(self) -> float | None:
        if not self._retries:
            return None
        return max(0.05, min(at for at, _ in self._retries.values()) - time.monotonic())

    async def _round(self) -> None:
        before = dict(self.problems)
        now = time.monotonic()
        self._retries = {ref: item for ref, item in self._retries.items() if ref in self._wanted}
        self.problems = {ref: item for ref, item in self.problems.items() if ref in self._wanted}
        due = [
            ref
            for ref in self._wanted
            if self._needs(ref) and now >= self._retries.get(ref, (0.0, 0.0))[0]
        ]
        gate = asyncio.Semaphore(AT_ONCE)

        async def bring_about(ref: Ref) -> None:
            async with gate:
                if self._is_leader():
                    await self._apply(ref)

        await asyncio.gather(*(bring_about(ref) for ref in due))
        await asyncio.gather(*(self._delete(item) for item in self._superfluous()))
        if before != self.problems:
            self._on_change()

    def _needs(self, ref: Ref) -> bool:
        found = self._store.find(ref)
        if (
            found is None
            or found.metadata.annotations.get(DIGEST_ANNOTATION) != self._wanted[ref][1]
        ):
            return True
        known = self._applied.get(ref)
        return known is not None and not known.is_still(found)

    async def _apply(self, ref: Ref) -> None:
        wanted = self._wanted.get(ref)
        if wanted is None:
            return  # since this round began
        item, digest = wanted
        meta = item["metadata"]
        annotations = {
            **meta.get("annotations", {}),
            INSTALLATION_ANNOTATION: self._installation,
            DIGEST_ANNOTATION: digest,
        }
        body = {**item, "metadata": {**meta, "annotations": annotations}}
        path = _path(ref)
        params = {"fieldManager": MANAGER, "force": "true"}
        try:
            await self._check_owner(ref, path)
            made = await self._api.request(
                "PATCH", path, body, params=params, content_type=APPLY_PATCH
            )
        except (ApiError, TakenError) as error:
            _, pause_s = self._retries.get(ref, (0.0, RETRY_S[0]))
            if self.problems.get(ref) != str(error):
                log.warning("%s cannot be made: %s", ref, error)
            self.problems[ref] = str(error)
            at = time.monotonic() + pause_s * random.uniform(0.5, 1.0)
            self._retries[ref] = (at, min(pause_s * 2, RETRY_S[1]))
            return
        self._retries.pop(ref, None)
        self.problems.pop(ref, None)
        before = self._store.find(ref)
        meta = made.get("metadata") or {}
        self._applied[ref] = _Applied(
            int(meta.get("generation") or 0),
            str(meta.get("resourceVersion") or ""),
            before.metadata.resource_version if before is not None else "",
        )
        self.applied += 1
        log.info("%s: applied", ref)

    async def _check_owner(self, ref: Ref, path: str) -> None:
        found = self._store.find(ref)
        if found is not None:
            labels: Mapping[str, str] = found.metadata.labels
            annotations: Mapping[str, str] = found.metadata.annotations
        elif ref in self._applied:
            return
        else:
            try:
                meta = (await self._api.get(path)).get("metadata") or {}
            except ApiError as error:
                if error.is_missing:
                    return
                raise
            labels = meta.get("labels") or {}
            annotations = meta.get("annotations") or {}
        if labels.get(MANAGED_LABEL) != MANAGER:
            raise TakenError(f"{ref} is there already, and was not made by Pointsman")
        maker = annotations.get(INSTALLATION_ANNOTATION)
        if maker != self._installation:
            raise TakenError(f"{ref} is there already, and is of another Pointsman ({maker})")

    def _superfluous(self) -> list[Resource]:
        """What was made for somebody who is still there and needs it no more."""
        return [
            item
            for item in self._store
            if item.metadata.annotations.get(INSTALLATION_ANNOTATION) == self._installation
            and item.metadata.labels.get(MANAGED_LABEL) == MANAGER
            and item.ref not in self._wanted
            and item.metadata.deletion_timestamp is None
            and self._is_abandoned(item)
        ]

    async def _delete(self, item: Resource) -> None:
        try:
            preconditions = {"preconditions": {"uid": item.metadata.uid}}
            await self._api.request("DELETE", _path(item.ref), preconditions)
        except ApiError as error:
            if not error.is_missing and not error.is_conflict:
                log.warning("%s is not needed any more and cannot be deleted: %s", item.ref, error)
                self._retries.setdefault(item.ref, (time.monotonic() + RETRY_S[1], RETRY_S[1]))
            return
        self._applied.pop(item.ref, None)
        log.info("%s: deleted", item.ref)


def problem_of(gateway: Ref, name: str, problems: Mapping[Ref, str]) -> str | None:
    """Why something that a Gateway needs is not there."""
    found = [
        text
        for ref, text in problems.items()
        if (ref.namespace, ref.name) == (gateway.namespace, name)
    ]
    return "; ".join(found) or None


def _digest(item: Object) -> str:
    content = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=12).hexdigest()


def _ref(item: Object) -> Ref:
    group = str(item["apiVersion"]).rpartition("/")[0]
    meta = item["metadata"]
    return Ref(group, str(item["kind"]), str(meta["namespace"]), str(meta["name"]))


def _path(ref: Ref) -> str:
    cls = kinds.lookup(ref.group, ref.kind)
    if cls is None:
        raise ValueError(f"{ref} is of no known kind")
    return path_of(cls.KIND, namespace=ref.namespace, name=ref.name)
