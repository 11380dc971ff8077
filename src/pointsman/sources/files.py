"""Objects from files and folders that are watched.

A change on disk is in the store within a moment. What cannot be read stays as it was and is
reported; everything else goes on. Statuses live in the store only: files are the users' own.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from pointsman.resources.base import Ref, Resource
from pointsman.resources.core import Pod
from pointsman.resources.differences import changed_fields, same_content
from pointsman.resources.parse import Parsed
from pointsman.resources.problems import Problem
from pointsman.resources.updates import immutable_changes
from pointsman.sources import apply_status
from pointsman.sources.clock import now_text
from pointsman.sources.folders import STDIN, Scan, Signature, read_text, rescan, scan, text_of
from pointsman.sources.ledger import EMPTY, Page, loses, page_of, winners
from pointsman.sources.watching import Watch
from pointsman.store import Store

SETTLE_S = 0.15
"""How long a file that lost something must stay so before that is believed.

Editors truncate and write, or rename away and write anew; in between a file looks empty or gone.
"""
RESCAN_S = 1.0
"""Pause between looks at the disk without having been woken, as a net below the watching."""
RESCAN_SHARE = 100
"""A look that takes long is followed by a pause of this many times as long."""
READ_DEADLINE_S = 60.0
"""For one look at the disk; a network file system that hangs is given up until the next."""
STDIN_NAME = "<stdin>"


def _nothing(_: object) -> None:
    """The default for who wants no reports."""


@dataclass(slots=True)
class _Doubt:
    """A file that lost something, and since when it has looked like that."""

    signature: Signature | None
    since_s: float


class FileSource:
    """Keeps a store as the files under some paths say. See `pointsman.sources.Source`."""

    def __init__(
        self,
        store: Store,
        paths: Sequence[str],
        *,
        on_change: Callable[[str], None] = _nothing,
        on_problem: Callable[[Problem], None] = _nothing,
        stdin: BinaryIO | None = None,
        now: Callable[[], str] = now_text,
    ) -> None:
        """`on_change` gets a line for each changed object, `on_problem` each new problem."""
        self._store = store
        self._paths = tuple(dict.fromkeys(paths))
        self._on_change = on_change
        self._on_problem = on_problem
        self._stdin = stdin
        self._now = now
        self._seen = Scan()
        self._was_enough = True
        self._signatures: dict[str, Signature | None] = {}
        self._pages: dict[str, Page] = {}
        self._doubts: dict[str, _Doubt] = {}
        self._applied: dict[Ref, Parsed] = {}
        self._versions = 0
        self.problems: tuple[Problem, ...] = ()
        """Everything that is wrong with the files at this moment."""

    async def start(self) -> None:
        """Read all files once. stdin (`-`) is read here and never again."""
        if STDIN in self._paths:
            self._pages[STDIN_NAME] = await _in_thread(self._stdin_page)
        await self._look(settle=False)

    async def follow(self) -> None:
        """Apply changes as they come, until cancelled."""
        watch = Watch(self._paths, self._on_problem)
        touched: frozenset[str] | None = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch.run())
            while True:
                began = time.monotonic()
                await self._look(settle=True, touched=touched)
                pause = max(RESCAN_S, (time.monotonic() - began) * RESCAN_SHARE)
                # A folder that is new may be filled before its watch stands: look again soon.
                is_unsettled = self._doubts or (touched and not self._was_enough)
                touched = await watch.wait(SETTLE_S if is_unsettled else pause)

    async def write_status(self, ref: Ref, status: dict[str, Any]) -> None:
        """Statuses are kept in the store, across reloads of the file."""
        apply_status(self._store, ref, status)

    def _stdin_page(self) -> Page:
        stream = self._stdin if self._stdin is not None else sys.stdin.buffer
        return page_of(lambda: text_of(stream), STDIN_NAME, EMPTY)

    async def _look(self, *, settle: bool, touched: frozenset[str] | None = None) -> None:
        """Read what has changed and bring the store up to date; `touched` None: look at all."""
        try:
            found = await _in_thread(self._scan, touched)
            changed = self._changed(found, settle)
            pages = await _in_thread(self._read, changed)
        except TimeoutError:
            message = f"the files could not be read within {READ_DEADLINE_S:g} s"
            self._on_problem(Problem("error", ", ".join(self._paths), 0, "", message))
            return
        self._seen = found
        taken = [self._accept(name, item, found, settle) for name, item in pages]
        # The first look (settle is off) also takes over what came from standard input.
        if any(taken) or found.problems or self.problems or not settle:
            self._reconcile(found)

    def _scan(self, touched: frozenset[str] | None) -> Scan:
        found = rescan(self._seen, touched) if touched is not None else None
        self._was_enough = found is not None
        return found if found is not None else scan(self._paths)

    def _changed(self, found: Scan, settle: bool) -> list[str]:
        names = [name for name, mark in found.files.items() if mark != self._signatures.get(name)]
        doubted = self._doubts if settle else ()
        gone = [name for name in self._signatures if name not in found.files]
        return [name for name in dict.fromkeys([*names, *doubted, *gone]) if not found.hides(name)]

    def _read(self, names: Iterable[str]) -> list[tuple[str, Page]]:
        return [(name, self._page(name)) for name in names]

    def _page(self, name: str) -> Page:
        return page_of(lambda: read_text(name), name, self._pages.get(name, EMPTY))

    def _accept(self, name: str, after: Page, found: Scan, settle: bool) -> bool:
        """Take a page over, unless its file may be in the middle of being written."""
        signature = found.files.get(name)
        before = self._pages.get(name, EMPTY)
        if settle and loses(before, after):
            doubt = self._doubts.get(name)
            if doubt is None or doubt.signature != signature:
                self._doubts[name] = _Doubt(signature, time.monotonic())
                return False
            if time.monotonic() - doubt.since_s < SETTLE_S:
                return False
        self._doubts.pop(name, None)
        if signature is None:
            self._signatures.pop(name, None)
            self._pages.pop(name, None)
        else:
            self._signatures[name] = signature
            self._pages[name] = after
        return True

    def _in_order(self, found: Scan) -> list[str]:
        return [name for name in (STDIN_NAME, *found.files) if name in self._pages]

    def _reconcile(self, found: Scan) -> None:
        present = {name: self._pages[name] for name in self._in_order(found)}
        vanished = [item for name, item in self._pages.items() if name not in present]
        chosen, problems = winners(present.values(), vanished)
        problems += found.problems
        fresh: list[Resource] = []
        lines: list[str] = []
        for ref, parsed in chosen.items():
            if self._applied.get(ref) is parsed or parsed.resource is None:
                continue
            old = self._store.find(ref) if ref in self._applied else None
            refused = immutable_changes(old, parsed.resource) if old is not None else []
            if refused:
                origin, subject = parsed.origin, str(ref)
                problems += [
                    Problem("error", origin.file, origin.line, item.field, item.message, subject)
                    for item in refused
                ]
                continue
            self._applied[ref] = parsed
            new = self._stamped(old, parsed.resource)
            if new is not None:
                fresh.append(new)
                lines.append(_line(old, new))
        gone = [ref for ref in self._applied if ref not in chosen]
        for ref in gone:
            del self._applied[ref]
        self._store.apply(fresh, gone)
        for line in [*lines, *(f"- {ref}" for ref in gone)]:
            self._on_change(line)
        self._report(problems)

    def _stamped(self, old: Resource | None, new: Resource) -> Resource | None:
        """`new` with what an API server would add; None when nothing differs from `old`."""
        meta = new.metadata
        if old is None:
            return self._with_version(
                new.with_metadata(
                    uid=meta.uid or str(uuid.uuid4()),
                    generation=1,
                    creation_timestamp=meta.creation_timestamp or self._now(),
                )
            )
        is_same = same_content(old, new)
        stamped = new.with_metadata(
            uid=meta.uid or old.metadata.uid,
            generation=old.metadata.generation + (0 if is_same else 1),
            creation_timestamp=meta.creation_timestamp or old.metadata.creation_timestamp,
            resource_version=old.metadata.resource_version,
        ).with_status(_status(old, new))
        return None if stamped == old else self._with_version(stamped)

    def _with_version(self, item: Resource) -> Resource:
        self._versions += 1
        return item.with_metadata(resource_version=str(self._versions))

    def _report(self, problems: list[Problem]) -> None:
        known = set(self.problems)
        self.problems = tuple(dict.fromkeys(problems))
        for problem in self.problems:
            if problem not in known:
                self._on_problem(problem)


def _status(old: Resource, new: Resource) -> dict[str, Any] | None:
    # A Pod in a file is an external server, and its status says where: that is the user's to say.
    if isinstance(new, Pod) and new.status is not None:
        return new.status
    return old.status if old.status is not None else new.status


def _line(old: Resource | None, new: Resource) -> str:
    if old is None:
        return f"+ {new.ref}"
    fields = ", ".join(changed_fields(old, new))
    return f"~ {new.ref} ({fields})" if fields else f"~ {new.ref}"


async def _in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    async with asyncio.timeout(READ_DEADLINE_S):
        return await asyncio.to_thread(function, *arguments)
