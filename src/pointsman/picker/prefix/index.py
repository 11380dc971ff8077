"""The approximate prefix index: what each server's KV cache probably holds.

It is written at each pick, on the assumption that the server will cache the prompt that it gets.

- `match` walks a chain and keeps, as one integer, the set of servers that hold every block so far;
  a server's match ends at its first missing block, whatever it holds behind that.
- Each server holds at most as many tokens as its KV cache does (from its metrics, else
  `DEFAULT_TOKENS`), and at most `MAX_BLOCKS` blocks. The least recently used block goes first; of
  one prompt the last blocks are older than the first ones, since a chain is of no use without its
  beginning.
- Memory: about 150 bytes for each block of each server, so 150 MB for a hundred servers at their
  limit of blocks; `benchmarks/picker.py` measures it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pointsman.picker.prefix.blocks import BLOCK_TOKENS, TOKENS_UP_TO

DEFAULT_TOKENS = 500_000
"""What a KV cache holds where the server does not say: a large GPU with a mid-sized model."""
MAX_BLOCKS = 10_000
"""Of one server."""
MAX_SERVERS = 4_096


class _Server:
    __slots__ = ("bit", "blocks", "capacity_tokens", "tokens")

    def __init__(self, bit: int) -> None:
        self.bit = bit
        self.capacity_tokens = DEFAULT_TOKENS
        self.tokens = 0
        self.blocks: dict[int, int] = {}
        """Hash to tokens, the least recently used first."""


class PrefixIndex:
    """Which servers hold which blocks."""

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        """Block to the set of servers, a bit for each."""
        self._servers: dict[str, _Server] = {}
        self._free_bits: list[int] = []

    @property
    def blocks(self) -> int:
        """Blocks that some server holds."""
        return len(self._holders)

    def match(self, hashes: Sequence[int]) -> dict[str, int]:
        """Server to the tokens of this prompt that it holds; servers that hold none are absent."""
        holders = self._holders
        held = -1
        lost: list[tuple[int, int]] = []
        place = -1
        for place, value in enumerate(hashes):
            still = held & holders.get(value, 0)
            if still != held:
                if place:
                    lost.append((held & ~still, TOKENS_UP_TO[place - 1]))
                held = still
                if not held:
                    break
        if held and place >= 0:
            lost.append((held, TOKENS_UP_TO[place]))
        if not lost:
            return {}
        return {
            name: tokens
            for name, server in self._servers.items()
            for bits, tokens in lost
            if bits & server.bit
        }

    def add(self, name: str, hashes: Sequence[int], capacity_tokens: int | None = None) -> None:
        """A server gets this prompt."""
        server = self._servers.get(name)
        if server is None:
            if len(self._servers) >= MAX_SERVERS:
                return
            bit = self._free_bits.pop() if self._free_bits else 1 << len(self._servers)
            server = self._servers[name] = _Server(bit)
        if capacity_tokens is not None:
            server.capacity_tokens = capacity_tokens
        holders, blocks, bit = self._holders, server.blocks, server.bit
        # Last block first: the beginning of the chain becomes the most recently used.
        for place in range(len(hashes) - 1, -1, -1):
            value = hashes[place]
            tokens = blocks.pop(value, None)
            if tokens is None:
                tokens = BLOCK_TOKENS[place]
                server.tokens += tokens
                holders[value] = holders.get(value, 0) | bit
            blocks[value] = tokens
        while server.tokens > server.capacity_tokens or len(blocks) > MAX_BLOCKS:
            value = next(iter(blocks))
            server.tokens -= blocks.pop(value)
            self._drop(value, bit)

    def fullness(self, name: str) -> float:
        """How much of a server's cache is known to be in use, 0 to 1."""
        server = self._servers.get(name)
        return server.tokens / server.capacity_tokens if server is not None else 0.0

    def remove(self, name: str) -> None:
        """A server is gone, and what it held with it."""
        server = self._servers.pop(name, None)
        if server is None:
            return
        for value in server.blocks:
            self._drop(value, server.bit)
        self._free_bits.append(server.bit)

    def _drop(self, value: int, bit: int) -> None:
        left = self._holders[value] & ~bit
        if left:
            self._holders[value] = left
        else:
            del self._holders[value]
