"""`/v1/embeddings`: unit vectors that depend on the words, so that like texts are alike."""

from __future__ import annotations

import base64
import math
import random
import zlib
from array import array
from typing import TYPE_CHECKING, Any

from aiohttp import web

from pointsman.modelserver.api.completions import read_prompts
from pointsman.modelserver.api.errors import RequestError, json_response
from pointsman.modelserver.api.fields import Body, Sampling, integer
from pointsman.modelserver.api.generation import (
    Choice,
    Generation,
    find_model,
    request_id,
    sequence_for,
)
from pointsman.modelserver.engine.sequences import ID_TYPE
from pointsman.modelserver.prose import Answer
from pointsman.modelserver.served import Served

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica

DEFAULT_DIMENSIONS = 384
DIMENSIONS_LIMIT = 8192
_HASHED_TOKENS = 4096
"""Tokens that shape a vector; later ones do not, which bounds the work per text."""


async def embeddings(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """Embeds one text or several: each is a prefill in the engine, and no more."""
    served = find_model(replica, body)
    prompts = read_prompts(replica, body.get("input"))
    dimensions = integer(body, "dimensions", DEFAULT_DIMENSIONS, least=1) or DEFAULT_DIMENSIONS
    if dimensions > DIMENSIONS_LIMIT:
        raise RequestError(400, f"At most {DIMENSIONS_LIMIT} dimensions.", param="dimensions")
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise RequestError(400, "encoding_format is float or base64.", param="encoding_format")
    name = request_id(request, "embd")
    choices = [
        _choice(replica, served, name, prompt, index) for index, prompt in enumerate(prompts)
    ]
    async with Generation(replica, name, served, choices, streams=False) as generation:
        await generation.finished()
        tokens = generation.usage().prompt
    data = [
        {
            "index": index,
            "object": "embedding",
            "embedding": _encoded(vector_of(prompt, dimensions), encoding),
        }
        for index, prompt in enumerate(prompts)
    ]
    return json_response(
        {
            "id": name,
            "object": "list",
            "created": generation.created_s,
            "model": served.name,
            "data": data,
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
            },
        },
        headers=replica.headers_for(request),
    )


def _choice(replica: Replica, served: Served, name: str, prompt: array[int], index: int) -> Choice:
    if not 0 < len(prompt) <= replica.models.max_model_len:
        raise RequestError(
            400,
            f"This model's maximum context length is {replica.models.max_model_len} tokens."
            f" However, your input contains {len(prompt)} tokens.",
            param="input",
        )
    answer = Answer(array(ID_TYPE), [], "stop")
    return Choice(index, answer, sequence_for(served, name, prompt, Sampling(), answer, index))


def vector_of(ids: array[int], dimensions: int) -> list[float]:
    """A unit vector: the sum of one fixed random direction per token."""
    vector = [0.0] * dimensions
    counts: dict[int, int] = {}
    for token in ids[:_HASHED_TOKENS]:
        counts[token] = counts.get(token, 0) + 1
    for token, count in counts.items():
        source = random.Random(zlib.crc32(token.to_bytes(4, "big")))
        # A few places per token are enough to tell texts apart, and cheap.
        for _ in range(16):
            vector[source.randrange(dimensions)] += source.choice((-1.0, 1.0)) * count
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]


def _encoded(vector: list[float], encoding: Any) -> list[float] | str:
    if encoding == "float":
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()
