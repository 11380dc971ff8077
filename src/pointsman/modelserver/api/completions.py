"""`/v1/completions`."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from pointsman.modelserver.api.errors import RequestError, json_response
from pointsman.modelserver.api.fields import (
    Body,
    Sampling,
    flag,
    integer,
    mapping,
    read_sampling,
)
from pointsman.modelserver.api.generation import (
    Choice,
    Generation,
    as_ids,
    encode,
    find_model,
    plan,
    request_id,
    usage_after,
)
from pointsman.modelserver.api.logprobs import TOP_LIMIT, completion_logprobs
from pointsman.modelserver.api.stream import DONE, open_stream, sse, stream_tokens
from pointsman.modelserver.prose import pieces_of
from pointsman.modelserver.tokens import VOCABULARY_SIZE

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica

_DEFAULT_MAX_TOKENS = 16
"""OpenAI's and vLLM's default for completions."""

_PROMPTS_LIMIT = 1024
"""Most prompts in one request."""


async def completions(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """Answers one completion request."""
    served = find_model(replica, body)
    prompts = read_prompts(replica, body.get("prompt"))
    sampling = _sampling(body)
    name = request_id(request, "cmpl")
    choices = plan(replica, served, name, prompts, sampling, replica.script_of(body.get("prompt")))
    if flag(body, "echo"):
        for choice in choices:
            _prepend_prompt(choice)
    streams = flag(body, "stream")
    async with Generation(replica, name, served, choices, streams=streams) as generation:
        if streams:
            return await _stream(replica, request, generation, sampling, body)
        await generation.finished()
        return json_response(_answer(generation, sampling), headers=replica.headers_for(request))


def read_prompts(replica: Replica, prompt: Any) -> list[array[int]]:
    """The prompts of a body: a text, token ids, or a list of either.

    Raises:
        RequestError: 400 for anything else.
    """
    if isinstance(prompt, str):
        return [encode(replica, prompt)]
    if not isinstance(prompt, list) or not prompt:
        raise RequestError(400, "Either prompt or prompt_embeds must be provided.", param="prompt")
    if isinstance(prompt[0], int):
        return [_checked_ids(prompt)]
    if len(prompt) > _PROMPTS_LIMIT:
        raise RequestError(400, f"At most {_PROMPTS_LIMIT} prompts, got {len(prompt)}.")
    prompts = []
    for entry in prompt:
        if isinstance(entry, str):
            prompts.append(encode(replica, entry))
        elif isinstance(entry, list):
            prompts.append(_checked_ids(entry))
        else:
            raise RequestError(400, "A prompt is a text or a list of token ids.", param="prompt")
    return prompts


def _checked_ids(ids: list[Any]) -> array[int]:
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int):
            raise RequestError(400, "Token ids have to be integers.", param="prompt")
        if not 0 <= token < VOCABULARY_SIZE:
            raise RequestError(400, f"Token id {token} is out of vocabulary.", param="prompt")
    return as_ids(ids)


def _sampling(body: Body) -> Sampling:
    max_tokens = integer(body, "max_tokens", _DEFAULT_MAX_TOKENS, least=1)
    sampling = read_sampling(body, max_tokens)
    top = integer(body, "logprobs", least=0)
    if top is not None and top > TOP_LIMIT:
        raise RequestError(400, f"Requested sample logprobs of {top}, at most {TOP_LIMIT}.")
    sampling.top_logprobs = top
    return sampling


def _prepend_prompt(choice: Choice) -> None:
    """`echo`: the text begins with the prompt, told with the first token."""
    pieces = choice.answer.pieces
    if pieces:
        pieces[0] = "".join(pieces_of(choice.sequence.prompt)) + pieces[0]


def _answer(generation: Generation, sampling: Sampling) -> dict[str, Any]:
    return {
        "id": generation.id,
        "object": "text_completion",
        "created": generation.created_s,
        "model": generation.model,
        "choices": [_choice(choice, sampling) for choice in generation.choices],
        "usage": generation.usage().openai(),
        "service_tier": None,
        "system_fingerprint": None,
        "kv_transfer_params": None,
    }


def _choice(choice: Choice, sampling: Sampling) -> dict[str, Any]:
    logprobs = None
    if sampling.top_logprobs is not None:
        tokens = choice.sequence.generated
        logprobs = completion_logprobs(choice, 0, tokens, sampling.top_logprobs)
    return {
        "index": choice.index,
        "text": choice.text(),
        "logprobs": logprobs,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "prompt_logprobs": None,
    }


async def _stream(
    replica: Replica,
    request: web.BaseRequest,
    generation: Generation,
    sampling: Sampling,
    body: Body,
) -> web.StreamResponse:
    options = mapping(body, "stream_options")
    wants_usage = bool(options.get("include_usage"))
    always_usage = wants_usage and bool(options.get("continuous_usage_stats"))
    envelope = {
        "id": generation.id,
        "object": "text_completion",
        "created": generation.created_s,
        "model": generation.model,
    }
    head = b"data: " + orjson.dumps(envelope)[:-1] + b',"choices":[{"index":'
    between = b',"text":'
    tail = b',"logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
    dumps = orjson.dumps

    def event(choice: Choice, token: int, is_last: bool) -> bytes:
        pieces = choice.answer.pieces
        piece = pieces[token] if token < len(pieces) else ""
        if not is_last and not always_usage and sampling.top_logprobs is None:
            return b"%b%d%b%b%b" % (head, choice.index, between, dumps(piece), tail)
        entry = {
            "index": choice.index,
            "text": piece,
            "logprobs": None
            if sampling.top_logprobs is None or token >= len(pieces)
            else completion_logprobs(choice, token, token + 1, sampling.top_logprobs),
            "finish_reason": choice.finish_reason if is_last else None,
            "stop_reason": choice.stop_reason if is_last else None,
        }
        chunk = {**envelope, "choices": [entry]}
        if always_usage:
            chunk["usage"] = usage_after(choice, min(token + 1, len(pieces)))
        return sse(chunk)

    stream = open_stream(replica, request)
    await stream.open()
    await stream_tokens(generation, stream, event)
    ending = b""
    if wants_usage:
        ending = sse({**envelope, "choices": [], "usage": generation.usage().openai()})
    await stream.send(ending + DONE)
    return await stream.close()
