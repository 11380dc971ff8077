"""The objects as they stand now: get, list, subscribe.

One writer, many readers, one event loop. Objects are frozen, so a reader may keep what it got.
Readers that watch get batches of changes; a slow reader's batches are folded together by object,
so that what waits for it is never more than one change for each object.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pointsman.resources.base import Ref, Resource
from pointsman.resources.differences import same_input

R = TypeVar("R", bound=Resource)


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one object: `old` is None when it came, `new` is None when it went."""

    old: Resource | None
    new: Resource | None

    @property
    def ref(self) -> Ref:
        """The object that changed."""
        subject = self.new if self.new is not None else self.old
        if subject is None:
            raise ValueError("a change has an object before or after it")
        return subject.ref

    @property
    def is_of_content(self) -> bool:
        """More than what a controller says about the object has changed."""
        return self.old is None or self.new is None or not same_input(self.old, self.new)


class Subscription:
    """The changes since the last look, folded by object."""

    def __init__(self) -> None:
        self._pending: dict[Ref, Change] = {}
        self._wake = asyncio.Event()

    def push(self, changes: Iterable[Change]) -> None:
        """Take in what has changed; the store calls this."""
        for change in changes:
            earlier = self._pending.pop(change.ref, None)
            old = earlier.old if earlier is not None else change.old
            if old is not None or change.new is not None:
                self._pending[change.ref] = Change(old, change.new)
        if self._pending:
            self._wake.set()

    async def batch(self) -> tuple[Change, ...]:
        """Wait until something has changed and take all of it."""
        await self._wake.wait()
        return self.take()

    def take(self) -> tuple[Change, ...]:
        """All that has changed since the last look, which may be nothing."""
        self._wake.clear()
        changes = tuple(self._pending.values())
        self._pending.clear()
        return changes

    async def __aiter__(self) -> AsyncIterator[tuple[Change, ...]]:
        """Batches, for as long as the reader wants them."""
        while True:
            if changes := await self.batch():
                yield changes


class Held(NamedTuple):
    """An object as the store has it."""

    ref: Ref
    item: Resource
    version: int
    """The revision in which it last became another, by `Change.is_of_content`."""


class Store:
    """All objects of one instance, by kind and name."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Held]] = {}
        self._sorted: dict[tuple[str, str], list[Held]] = {}
        self._kind_versions: dict[tuple[str, str], int] = {}
        self._subscriptions: set[Subscription] = set()
        self.revision = 0
        """Grows by one with each batch that changed something."""

    def apply(
        self, objects: Iterable[Resource] = (), deleted: Iterable[Ref] = ()
    ) -> tuple[Change, ...]:
        """Put `objects` in and take `deleted` out, as one batch; tells what really changed."""
        revision = self.revision + 1
        changes = [
            *(change for ref in deleted if (change := self._remove(ref)) is not None),
            *(change for item in objects if (change := self._put(item, revision)) is not None),
        ]
        if changes:
            self.revision = revision
            for change in changes:
                kind = (change.ref.group, change.ref.kind)
                self._sorted.pop(kind, None)
                if change.is_of_content:
                    self._kind_versions[kind] = revision
            for subscription in self._subscriptions:
                subscription.push(changes)
        return tuple(changes)

    def find(self, ref: Ref) -> Resource | None:
        """The object that `ref` names."""
        held = self._held(ref)
        return held.item if held is not None else None

    def get(self, cls: type[R], namespace: str, name: str) -> R | None:
        """The object of that class and name; `namespace` is "" for kinds of the cluster."""
        found = self.find(Ref(cls.KIND.group, cls.KIND.kind, namespace, name))
        return found if isinstance(found, cls) else None

    def list(self, cls: type[R], namespace: str | None = None) -> list[R]:
        """All objects of that class, in one namespace or in all, sorted by namespace and name."""
        return [
            held.item
            for held in self.held(cls)
            if isinstance(held.item, cls) and namespace in (None, held.ref.namespace)
        ]

    def held(self, cls: type[Resource]) -> Sequence[Held]:
        """All objects of a kind with their references and versions, by namespace and name."""
        kind = (cls.KIND.group, cls.KIND.kind)
        found = self._sorted.get(kind)
        if found is None:
            found = [held for _, held in sorted(self._objects.get(kind, {}).items())]
            self._sorted[kind] = found
        return found

    def version(self, ref: Ref) -> int:
        """The revision in which an object last became another; 0 where it is not there.

        Our own words about an object (its status, unless that is input) do not make it another.
        """
        held = self._held(ref)
        return held.version if held is not None else 0

    def kind_version(self, cls: type[Resource]) -> int:
        """The revision in which an object of that kind last came, went or became another."""
        return self._kind_versions.get((cls.KIND.group, cls.KIND.kind), 0)

    def __iter__(self) -> Iterator[Resource]:
        """Every object, kind by kind."""
        for _, bucket in sorted(self._objects.items()):
            yield from (held.item for _, held in sorted(bucket.items()))

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Changes from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def _held(self, ref: Ref) -> Held | None:
        return self._objects.get((ref.group, ref.kind), {}).get((ref.namespace, ref.name))

    def _put(self, item: Resource, revision: int) -> Change | None:
        ref = item.ref
        old = self._held(ref)
        if old is not None and old.item == item:
            return None
        change = Change(old.item if old is not None else None, item)
        version = revision if old is None or change.is_of_content else old.version
        bucket = self._objects.setdefault((ref.group, ref.kind), {})
        bucket[ref.namespace, ref.name] = Held(ref, item, version)
        return change

    def _remove(self, ref: Ref) -> Change | None:
        old = self._objects.get((ref.group, ref.kind), {}).pop((ref.namespace, ref.name), None)
        return Change(old.item, None) if old is not None else None
