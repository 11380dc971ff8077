"""Block hashes: the name of a KV block is the hash of its tokens and of all blocks before it.

    hash_i = H(hash_{i-1}, tokens of block i, extra keys)

Two algorithms, named as vLLM names them:

- `sha256` hashes a Python pickle in vLLM and is opaque to everyone else, so here it is the fastest
  equivalent: SHA-256 over the parent and the token ids as 32-bit integers.
- `sha256_cbor` is meant to be recomputed by others and is computed exactly as vLLM does: SHA-256
  over the canonical CBOR of `[parent, [tokens...], extra keys or null]`. The first parent is the
  hash of the CBOR text of PYTHONHASHSEED or, without it, of a fixed text. Extra keys are
  `["lora", name, path]` and, in the first block, `["cache_salt", salt]`.
  (Source: vLLM 0.32, `v1/core/kv_cache_utils.py` and `utils/hashing.py`; CBOR: RFC 8949.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from pointsman.modelserver.engine.sequences import Sequence

BlockHash = bytes
ExtraKeys = tuple[tuple[str, ...], ...]
Hasher = Callable[[bytes, Any, ExtraKeys], bytes]

DEFAULT_HASH_SEED = "vllm-none-hash"
"""What vLLM 0.32 hashes for the first parent when PYTHONHASHSEED is not set."""


def _plain(parent: bytes, tokens: Any, extra: ExtraKeys) -> bytes:
    digest = hashlib.sha256(parent)
    digest.update(tokens)
    if extra:
        digest.update(repr(extra).encode())
    return digest.digest()


def _cbor(parent: bytes, tokens: Any, extra: ExtraKeys) -> bytes:
    parts = [b"\x83", _cbor_head(2, len(parent)), parent, _cbor_head(4, len(tokens))]
    parts.extend(_cbor_head(0, token) for token in tokens)
    if extra:
        parts.append(_cbor_head(4, len(extra)))
        for key in extra:
            parts.append(_cbor_head(4, len(key)))
            parts.extend(cbor_text(text) for text in key)
    else:
        parts.append(b"\xf6")
    return hashlib.sha256(b"".join(parts)).digest()


def _cbor_head(major: int, value: int) -> bytes:
    """The shortest CBOR head of a major type with an argument (RFC 8949, section 3)."""
    kind = major << 5
    if value < 24:
        return bytes((kind | value,))
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << (8 * size):
            return bytes((kind | info,)) + value.to_bytes(size, "big")
    raise OverflowError(f"{value} does not fit in a CBOR head")


def cbor_text(text: str) -> bytes:
    """A CBOR text string."""
    data = text.encode()
    return _cbor_head(3, len(data)) + data


class BlockHashes:
    """Computes the chain of a sequence as far as it is asked for, and keeps it on the sequence."""

    def __init__(
        self, block_size: int, algorithm: str = "sha256", seed: str = DEFAULT_HASH_SEED
    ) -> None:
        hashers: dict[str, Hasher] = {"sha256": _plain, "sha256_cbor": _cbor}
        if algorithm not in hashers:
            raise ValueError(f"unknown hash algorithm {algorithm!r}: one of {', '.join(hashers)}")
        self.block_size = block_size
        self._hash = hashers[algorithm]
        self.root = hashlib.sha256(cbor_text(seed)).digest()

    def of(self, sequence: Sequence, blocks: int) -> list[BlockHash]:
        """The hashes of the first `blocks` full blocks; tokens beyond the known ones are an error.

        The salt is part of the first block only, which is enough since the hashes are chained.
        """
        hashes = sequence.hashes
        size = self.block_size
        adapter: ExtraKeys = ()
        if sequence.adapter:
            adapter = (("lora", sequence.adapter, sequence.adapter_path),)
        while len(hashes) < blocks:
            index = len(hashes)
            extra = adapter
            if index == 0 and sequence.salt:
                extra = (*adapter, ("cache_salt", sequence.salt))
            parent = hashes[-1] if hashes else self.root
            tokens = sequence.slice(index * size, (index + 1) * size)
            hashes.append(self._hash(parent, tokens, extra))
        return hashes
