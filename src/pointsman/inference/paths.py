"""The paths of the APIs that model servers speak, and what kind of question each asks.

Matched by the longest suffix, since gateways put prefixes before them (`/v1`, `/openai/v1`).
"""

from __future__ import annotations

from enum import Enum


class Api(Enum):
    """The kind of a request."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    IMAGES = "images"
    AUDIO = "audio"
    MESSAGES = "messages"
    """Anthropic's."""
    GENERATE = "generate"
    """vLLM's and SGLang's own."""
    TOKENIZE = "tokenize"
    RANK = "rank"
    """Rerank, score, classify, pool."""
    MODELS = "models"
    OTHER = "other"
    """Anything else: passed through, and balanced all the same."""


_SUFFIXES: tuple[tuple[str, Api], ...] = (
    ("/chat/completions/render", Api.CHAT),
    ("/chat/completions", Api.CHAT),
    ("/completions/render", Api.COMPLETIONS),
    ("/completions", Api.COMPLETIONS),
    ("/responses", Api.RESPONSES),
    ("/conversations", Api.RESPONSES),
    ("/embeddings", Api.EMBEDDINGS),
    ("/images/generations", Api.IMAGES),
    ("/images/edits", Api.IMAGES),
    ("/audio/transcriptions", Api.AUDIO),
    ("/audio/translations", Api.AUDIO),
    ("/audio/speech", Api.AUDIO),
    ("/messages/count_tokens", Api.TOKENIZE),
    ("/messages", Api.MESSAGES),
    ("/inference/v1/generate", Api.GENERATE),
    ("/generate", Api.GENERATE),
    ("/tokenize", Api.TOKENIZE),
    ("/detokenize", Api.TOKENIZE),
    ("/rerank", Api.RANK),
    ("/score", Api.RANK),
    ("/classify", Api.RANK),
    ("/pooling", Api.RANK),
    ("/models", Api.MODELS),
)

NAMES_A_MODEL = frozenset(
    {Api.CHAT, Api.COMPLETIONS, Api.RESPONSES, Api.EMBEDDINGS, Api.MESSAGES, Api.RANK}
)
"""A request of these kinds must name a model in its JSON body."""


def api_of(path: str) -> Api:
    """The kind of request that a path (query and all) stands for.

    >>> api_of("/v1/chat/completions?x=1"), api_of("/openai/v1/models"), api_of("/health")
    (<Api.CHAT: 'chat'>, <Api.MODELS: 'models'>, <Api.OTHER: 'other'>)
    """
    path = path.partition("?")[0].rstrip("/")
    for suffix, api in _SUFFIXES:
        if path.endswith(suffix):
            return api
    return Api.OTHER
