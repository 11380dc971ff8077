"""KV blocks: who holds them, which are free, and which free ones still hold a known prefix.

Rules, as vLLM's block pool has them:

- Block 0 is never given out, so a pool of `n` blocks has room for `n - 1`.
- A block is held by any number of sequences (a shared prefix) and free when none holds it.
- A full block has a hash. When it becomes free it keeps hash and content, and moves to the end of
  the free queue; a later sequence with the same prefix takes it back out of the middle.
- New blocks come from the front of the free queue: the content released longest ago is evicted
  first. A sequence releases its blocks from the last to the first, so that the end of a prompt
  goes before its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from pointsman.modelserver.engine.hashing import BlockHash


@dataclass(frozen=True, slots=True)
class Stored:
    """Full blocks entered the prefix cache: `hashes` in order, after `parent`."""

    hashes: list[BlockHash]
    parent: BlockHash | None
    tokens: list[int]
    block_size: int
    adapter: str | None


@dataclass(frozen=True, slots=True)
class Removed:
    """A cached block was evicted."""

    hashes: list[BlockHash]


@dataclass(frozen=True, slots=True)
class Cleared:
    """The whole prefix cache was dropped."""


BlockEvent = Stored | Removed | Cleared


class BlockPool:
    """All KV blocks of one engine. The capacity is fixed: nothing in here grows beyond it."""

    def __init__(self, blocks: int, *, records_events: bool = False) -> None:
        if blocks < 2:
            raise ValueError("a pool needs at least 2 blocks: one is never given out")
        self.capacity = blocks - 1
        self._fresh = 1
        """Lowest block that was never given out. Those come before all released ones, so they need
        no place in the queue, and an idle pool costs nothing."""
        self._released: OrderedDict[int, None] = OrderedDict()
        self._holders: dict[int, int] = {}
        self._hash_of: dict[int, BlockHash] = {}
        self._block_of: dict[BlockHash, int] = {}
        self._records_events = records_events
        self.events: list[BlockEvent] = []
        """What changed in the prefix cache since someone last emptied this list. Recorded only
        when asked for; the engine empties it after every step."""

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.capacity + 1 - self._fresh + len(self._released)

    @property
    def used(self) -> int:
        """Blocks that some sequence holds."""
        return len(self._holders)

    @property
    def usage(self) -> float:
        """Share of blocks that are held, 0 to 1; cached but free blocks count as free."""
        return self.used / self.capacity

    @property
    def cached(self) -> int:
        """Blocks with a known content, held or free."""
        return len(self._block_of)

    def match(self, hashes: Iterable[BlockHash]) -> list[int]:
        """The cached blocks for the longest known beginning of a chain."""
        found = []
        for name in hashes:
            block = self._block_of.get(name)
            if block is None:
                break
            found.append(block)
        return found

    def idle(self, blocks: Iterable[int]) -> int:
        """How many of these blocks nobody holds: taking them uses up free blocks."""
        return sum(1 for block in blocks if block not in self._holders)

    def hold(self, blocks: Iterable[int]) -> None:
        """Adds a holder to each of these cached blocks."""
        holders = self._holders
        for block in blocks:
            if block in holders:
                holders[block] += 1
            else:
                del self._released[block]
                holders[block] = 1

    def allocate(self, count: int) -> list[int]:
        """Takes blocks for new content, evicting what was cached in them.

        Raises:
            ValueError: if fewer are free; nothing has changed then.
        """
        if count > self.free:
            raise ValueError(f"{count} blocks asked for, {self.free} free")
        taken = []
        for _ in range(count):
            if self._fresh <= self.capacity:
                block = self._fresh
                self._fresh += 1
            else:
                block, _none = self._released.popitem(last=False)
                self._forget(block)
            self._holders[block] = 1
            taken.append(block)
        return taken

    def release(self, blocks: list[int]) -> None:
        """Drops one holder of each block, from the last to the first."""
        holders = self._holders
        for block in reversed(blocks):
            if holders[block] > 1:
                holders[block] -= 1
            else:
                del holders[block]
                self._released[block] = None

    def register(self, blocks: list[int], hashes: list[BlockHash]) -> list[BlockHash]:
        """Makes full blocks findable by their hashes, and returns the hashes that are new.

        A content that is already cached in another block keeps its first place; the copy stays
        unnamed and is reused first come.
        """
        new = []
        for block, name in zip(blocks, hashes, strict=True):
            if name in self._block_of:
                continue
            self._block_of[name] = block
            self._hash_of[block] = name
            new.append(name)
        return new

    def note_stored(self, event: Stored) -> None:
        """Records that blocks entered the cache, if events are wanted."""
        if self._records_events:
            self.events.append(event)

    def clear(self) -> bool:
        """Drops the prefix cache. Only possible while nobody holds a block; False otherwise."""
        if self.used:
            return False
        self._block_of.clear()
        self._hash_of.clear()
        if self._records_events:
            self.events.append(Cleared())
        return True

    def _forget(self, block: int) -> None:
        name = self._hash_of.pop(block, None)
        if name is None:
            return
        del self._block_of[name]
        if self._records_events:
            self.events.append(Removed([name]))
