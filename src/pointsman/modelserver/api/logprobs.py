"""Log probabilities that nobody computed, in the shapes that clients expect.

They are made from the token's place, so that they are repeatable: the chosen token is likely, each
alternative less so.
"""

from __future__ import annotations

from typing import Any

from pointsman.modelserver.api.generation import Choice

TOP_LIMIT = 20
"""Most alternatives per token, as in vLLM's default."""

_ALTERNATIVES = (" the", " a", " of", " train", " track", " line", " and", " in", " to", " is")


def _logprob(place: int, rank: int = 0) -> float:
    return -0.05 * (place % 7) - 1.5 * rank - 0.01


def chat_logprob(choice: Choice, place: int, top: int) -> dict[str, Any]:
    """One entry of a chat choice's `logprobs.content`."""
    piece = choice.answer.pieces[place]
    entry = _chat_token(piece, _logprob(place))
    candidates = [piece, *_alternatives(piece, top - 1)][:top]
    entry["top_logprobs"] = [
        _chat_token(text, _logprob(place, rank)) for rank, text in enumerate(candidates)
    ]
    return entry


def _chat_token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _alternatives(piece: str, count: int) -> list[str]:
    others = [text for text in _ALTERNATIVES if text != piece]
    return [others[rank % len(others)] + "s" * (rank // len(others)) for rank in range(count)]


def completion_logprobs(choice: Choice, first: int, last: int, top: int) -> dict[str, Any]:
    """The `logprobs` object of a completion for the tokens `first` to `last`."""
    pieces = choice.answer.pieces
    offset = sum(map(len, pieces[:first]))
    offsets = []
    for piece in pieces[first:last]:
        offsets.append(offset)
        offset += len(piece)
    return {
        "text_offset": offsets,
        "token_logprobs": [_logprob(place) for place in range(first, last)],
        "tokens": pieces[first:last],
        "top_logprobs": [
            {
                text: _logprob(place, rank)
                for rank, text in enumerate(
                    [pieces[place], *_alternatives(pieces[place], max(0, top - 1))]
                )
            }
            for place in range(first, last)
        ],
    }
