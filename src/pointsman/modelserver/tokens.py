r"""A tokenizer without a vocabulary: the id of a token spells the token.

Text is cut into words with the space before them, runs of space, and marks, and each piece into
chunks. An id spells its chunk, so every text survives a round trip, nothing is stored, and the
same text has the same ids everywhere. English prose comes to about 1.5 tokens a word, which is
near what real vocabularies give.

    bit 30 set    up to 6 characters of `ALPHABET`, 5 bits each (1 to 31, 0 ends), the first lowest
    bit 30 clear  up to 3 bytes of UTF-8, the first lowest, their number in bits 24 and 25

Ids that spell nothing (a client may send any token ids) read as U+FFFD, as they do in vLLM.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable

from pointsman.modelserver.engine.sequences import ID_TYPE

ALPHABET = " abcdefghijklmnopqrstuvwxyz\n.,'"
VOCABULARY_SIZE = 1 << 31
"""Ids are below this; vLLM refuses ids beyond its vocabulary, and so does the server."""

_LETTERS = 1 << 30
_LETTER_CHUNK = 6
_BYTE_CHUNK = 3
LONGEST_TOKEN = _LETTER_CHUNK
"""Characters that one token stands for at most."""

_CODE = {letter: code for code, letter in enumerate(ALPHABET, start=1)}
_PIECES = re.compile(r" ?[^\W_]+|\s+|[\W_]")
_UNKNOWN = "\ufffd".encode()
_REMEMBERED_PIECES = 65_536
"""Pieces remembered per tokenizer; the memory is emptied when full (a few MB)."""


class Tokenizer:
    """Text to ids and back. Remembers pieces it has seen, up to a bound, to be fast."""

    def __init__(self) -> None:
        self._ids_of: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str) -> array[int]:
        """The ids of a text. Half surrogates, which UTF-8 cannot hold, read as question marks."""
        ids = array(ID_TYPE)
        known = self._ids_of
        for piece in _PIECES.findall(text):
            found = known.get(piece)
            if found is None:
                if len(known) >= _REMEMBERED_PIECES:
                    known.clear()
                found = known[piece] = _encode_piece(piece)
            ids.extend(found)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; a character cut in half reads as U+FFFD."""
        return b"".join(spelling(token) for token in ids).decode("utf-8", "replace")


def spelling(token: int) -> bytes:
    """The bytes that an id spells.

    >>> [spelling(token) for token in Tokenizer().encode("the signal box")]
    [b'the', b' signa', b'l', b' box']
    """
    if token >= VOCABULARY_SIZE:
        return _UNKNOWN
    if token & _LETTERS:
        code = token & (_LETTERS - 1)
        letters = []
        while code & 31:
            letters.append(ALPHABET[(code & 31) - 1])
            code >>= 5
        return "".join(letters).encode() or _UNKNOWN
    size = token >> 24
    if not 1 <= size <= _BYTE_CHUNK:
        return _UNKNOWN
    return (token & 0xFFFFFF).to_bytes(3, "little")[:size]


def _encode_piece(piece: str) -> tuple[int, ...]:
    if all(letter in _CODE for letter in piece):
        step = _LETTER_CHUNK
        return tuple(_pack_letters(piece[i : i + step]) for i in range(0, len(piece), step))
    data = piece.encode("utf-8", "replace")
    step = _BYTE_CHUNK
    return tuple(_pack_bytes(data[i : i + step]) for i in range(0, len(data), step))


def _pack_letters(chunk: str) -> int:
    token = _LETTERS
    for place, letter in enumerate(chunk):
        token |= _CODE[letter] << (5 * place)
    return token


def _pack_bytes(chunk: bytes) -> int:
    return int.from_bytes(chunk, "little") | len(chunk) << 24
