"""HPACK: header blocks to headers, with blocks that repeat remembered.

The server announces SETTINGS_HEADER_TABLE_SIZE = 0. Once the peer has taken that in, its dynamic
table is empty and stays so, a block means the same whenever it comes, and the gateway's blocks
repeat byte for byte. What a peer sends before (with its dynamic table of 4,096 bytes) is decoded
afresh each time. A peer that keeps its table is served too, only without the memory.
"""

from __future__ import annotations

from hpack import Decoder
from hpack.exceptions import HPACKError

from pointsman.wire.frames import ConnectionBrokenError, ErrorCode

Headers = tuple[tuple[bytes, bytes], ...]

REMEMBERED_BLOCKS = 256
"""How many blocks one connection remembers; a full memory is emptied, not sorted."""
REMEMBERED_BLOCK_BYTES = 4_096


class HeaderDecoder:
    """The decoding side of HPACK for one connection."""

    def __init__(self, max_header_list_bytes: int) -> None:
        self._decoder = Decoder(max_header_list_size=max_header_list_bytes)
        self._known: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """The headers of a block, names in the order in which they came.

        Raises:
            ConnectionBrokenError: the block is broken or its headers are too large; the shared
                state of HPACK is lost then, so the connection cannot go on.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        was_stateless = self._decoder.header_table_size == 0
        try:
            headers: Headers = tuple(
                (bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)
            )
        except (HPACKError, ValueError, IndexError) as error:
            raise ConnectionBrokenError(
                ErrorCode.COMPRESSION_ERROR, f"a header block cannot be read: {error}"
            ) from error
        is_stateless = was_stateless and self._decoder.header_table_size == 0
        if is_stateless and len(block) <= REMEMBERED_BLOCK_BYTES:
            if len(self._known) >= REMEMBERED_BLOCKS:
                self._known.clear()
            self._known[block] = headers
        elif self._known:
            # The peer has taken a dynamic table again, so an index may now mean something else.
            self._known.clear()
        return headers


def literal(name: bytes, value: bytes) -> bytes:
    """A header in HPACK's plainest form: literal, not indexed, no Huffman code."""
    return b"\x00" + _sized(name) + _sized(value)


def _sized(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    head = bytearray((127,))
    rest = length - 127
    while rest >= 128:
        head.append(rest & 127 | 128)
        rest >>= 7
    head.append(rest)
    return bytes(head) + text
