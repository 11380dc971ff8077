"""What a model without weights says: plain sentences, the same for the same seed.

An answer is a walk through a fixed set of sentences that starts where the seed says. The text is
tokenized once when the server starts, so that an answer costs no more than slicing lists.
"""

from __future__ import annotations

import hashlib
import math
import random
from array import array
from dataclasses import dataclass

from pointsman.modelserver.engine.sequences import ID_TYPE
from pointsman.modelserver.tokens import Tokenizer, spelling

_SENTENCES = (
    "A signal box stands where two lines meet.",
    "The pointsman reads the timetable and sets the track before the train arrives.",
    "Most mornings begin with a slow freight train and a cup of tea.",
    "When the yard is full, the next train waits at the outer signal.",
    "A good junction sends every train to the platform that will be free first.",
    "Some trains carry heavy loads and need a longer run before they stop.",
    "The express never waits if there is a clear track beside it.",
    "Coaches that were already warm leave sooner than those that stood in the cold.",
    "He keeps a small book in which each arrival has one line.",
    "If the telegraph is silent, he trusts the book.",
    "Old news of the line is worse than a careful guess.",
    "Two short bells mean that the section is clear.",
    "Nobody claps when everything arrives on time.",
    "On a busy day the work is to say no early and kindly.",
    "A train that has left the station is not called back.",
    "In winter the points are heated so that they move freely.",
    "The night shift likes long trains, because they come seldom.",
    "A spare track is worth more than a faster engine.",
    "Every lever has a number, and every number has a reason.",
    "The map on the wall shows which section holds which train.",
    "Passengers only notice the junction when it fails.",
    "So the rule is simple, look first, then pull the lever.",
    "By evening the lamps are lit and the last local train goes home.",
    "Rain makes the rails slow, and the book takes note of it.",
    "There is always one more wagon than the siding can hold.",
    "An empty platform is an invitation.",
    "He measures twice and moves once.",
    "The shortest queue is not always the quickest one.",
    "Trains that travel the same way are best sent by the same track.",
    "When a bridge is closed, the timetable bends but does not break.",
    "Some days the only thing to do is to wait for the green light.",
    "At the end of the line someone is always glad to see the train.",
)

LENGTH_MEDIAN_TOKENS = 96
LENGTH_SPREAD = 0.6
"""Answers that may end by themselves have a lognormal length: this median, this sigma. Made up,
in the range of published chat traces (ShareGPT answers: median around 100 to 200 tokens)."""


@dataclass(slots=True)
class Answer:
    """A planned answer: its tokens, and what each of them adds to the text."""

    ids: array[int]
    pieces: list[str]
    finish_reason: str
    """`stop` or `length`."""
    stop_reason: str | None = None
    """The stop string that ended it."""

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


class Prose:
    """Makes answers. Holds the tokenized sentences and nothing else."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._first = [_tokenized(tokenizer, text) for text in _SENTENCES]
        self._next = [_tokenized(tokenizer, " " + text) for text in _SENTENCES]

    def write(
        self, seed: int, tokens: int, *, ends_sentence: bool = False
    ) -> tuple[array[int], list[str]]:
        """Prose of `tokens` tokens, or of as many more as end the sentence, and its pieces."""
        ids = array(ID_TYPE)
        pieces: list[str] = []
        count = len(_SENTENCES)
        place = seed % count
        # An odd stride visits every sentence, since their number is a power of two.
        stride = 2 * (seed // count % (count // 2)) + 1
        sentences = self._first
        while len(pieces) < tokens:
            more_ids, more_pieces = sentences[place % count]
            ids.extend(more_ids)
            pieces += more_pieces
            place += stride
            sentences = self._next
        if ends_sentence:
            return ids, pieces
        return ids[:tokens], pieces[:tokens]

    def spell(self, text: str) -> tuple[array[int], list[str]]:
        """The tokens and pieces of a given text."""
        return _tokenized(self.tokenizer, text)


def _tokenized(tokenizer: Tokenizer, text: str) -> tuple[array[int], list[str]]:
    ids = tokenizer.encode(text)
    return ids, pieces_of(ids)


def pieces_of(ids: array[int]) -> list[str]:
    """What each token adds to the text.

    A token that ends within a character adds nothing yet; the one that completes it adds it all,
    so a stream may have chunks without text, as vLLM's has.
    """
    pieces = []
    held = b""
    last = len(ids) - 1
    for index, token in enumerate(ids):
        held += spelling(token)
        whole = held if index == last else held[: _whole_characters(held)]
        pieces.append(whole.decode("utf-8", "replace"))
        held = held[len(whole) :]
    return pieces


def _whole_characters(data: bytes) -> int:
    """How many bytes make whole characters; at most 3 at the end may wait for more."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        size = 2 if byte >= 0xC0 else 1
        if byte >= 0xE0:
            size = 3 if byte < 0xF0 else 4
        return len(data) if size <= back else len(data) - back
    return len(data)


def seed_of(*parts: object) -> int:
    """A number that depends on nothing but these parts, the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def natural_length(seed: int, median_tokens: float = LENGTH_MEDIAN_TOKENS) -> int:
    """How long an answer becomes if nobody limits it, in tokens."""
    draw = random.Random(seed).gauss(0.0, LENGTH_SPREAD)
    return max(1, round(median_tokens * math.exp(draw)))


def cut_at_stop(pieces: list[str], stops: list[str], *, keeps_stop: bool) -> tuple[int, str] | None:
    """Finds the first stop string in a text given in pieces, and cuts the pieces there.

    Returns the number of tokens that were generated to find it and the string, or None. `pieces`
    then ends with that token, and the text before (or, with `keeps_stop`, through) the string.
    """
    text = ""
    for index, piece in enumerate(pieces):
        start = len(text)
        text += piece
        found = [
            (place, stop)
            for stop in stops
            if stop and (place := text.find(stop, max(0, start - len(stop) + 1))) >= 0
        ]
        if found:
            place, stop = min(found)
            keep = place + len(stop) if keeps_stop else place
            _shorten(pieces, index, keep)
            return index + 1, stop
    return None


def _shorten(pieces: list[str], last: int, keep: int) -> None:
    """Cuts pieces after `last`, and their text to `keep` characters."""
    del pieces[last + 1 :]
    used = 0
    for index, piece in enumerate(pieces):
        pieces[index] = piece[: max(0, keep - used)]
        used += len(piece)
