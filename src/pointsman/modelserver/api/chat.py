"""`/v1/chat/completions`."""

from __future__ import annotations

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
    encode,
    find_model,
    plan,
    request_id,
    usage_after,
)
from pointsman.modelserver.api.logprobs import TOP_LIMIT, chat_logprob
from pointsman.modelserver.api.stream import DONE, TokenEvent, open_stream, sse, stream_tokens
from pointsman.modelserver.api.tools import ToolCall, call, choose_tool, read_tools
from pointsman.modelserver.conversation import last_user_text, render
from pointsman.modelserver.jsonvalues import value_for
from pointsman.modelserver.prose import seed_of

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica


async def chat(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """Answers one chat request."""
    served = find_model(replica, body)
    messages = body.get("messages")
    tools = read_tools(body)
    prompt = encode(replica, render(messages, body.get("tools")))
    assert isinstance(messages, list)  # noqa: S101 - render has refused everything else
    said = last_user_text(messages)
    tool = choose_tool(
        tools, body.get("tool_choice", "auto"), said, messages[-1].get("role") == "tool"
    )
    tool_call = None if tool is None else call(tool, said)
    script = replica.script_of(said)
    if tool_call is not None:
        script = tool_call.arguments
    elif (schema := _response_schema(body)) is not None:
        script = orjson.dumps(value_for(schema, seed_of(said) % 10_007)).decode()
    sampling = _sampling(body)
    name = request_id(request, "chatcmpl")
    choices = plan(replica, served, name, [prompt], sampling, script)
    streams = flag(body, "stream")
    async with Generation(replica, name, served, choices, streams=streams) as generation:
        if streams:
            return await _stream(replica, request, generation, sampling, body, tool_call)
        await generation.finished()
        return json_response(
            _answer(generation, sampling, tool_call), headers=replica.headers_for(request)
        )


def _sampling(body: Body) -> Sampling:
    max_tokens = integer(body, "max_completion_tokens", least=1)
    if max_tokens is None:
        max_tokens = integer(body, "max_tokens", least=1)
    sampling = read_sampling(body, max_tokens)
    if flag(body, "logprobs"):
        top = integer(body, "top_logprobs", 0, least=0) or 0
        if top > TOP_LIMIT:
            raise RequestError(400, f"Requested sample logprobs of {top}, at most {TOP_LIMIT}.")
        sampling.top_logprobs = top
    return sampling


def _response_schema(body: Body) -> Any:
    """The schema that the answer has to fit, if the request sets one."""
    wanted = mapping(body, "response_format")
    if wanted.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    if wanted.get("type") == "json_schema":
        return mapping(wanted, "json_schema").get("schema")
    return body.get("guided_json")


def _finish_reason(choice: Choice, tool_call: ToolCall | None) -> str:
    if tool_call is not None and choice.finish_reason == "stop":
        return "tool_calls"
    return choice.finish_reason


def _answer(
    generation: Generation, sampling: Sampling, tool_call: ToolCall | None
) -> dict[str, Any]:
    return {
        "id": generation.id,
        "object": "chat.completion",
        "created": generation.created_s,
        "model": generation.model,
        "choices": [_choice(choice, sampling, tool_call) for choice in generation.choices],
        "usage": generation.usage().openai(),
        "service_tier": None,
        "system_fingerprint": None,
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def _choice(choice: Choice, sampling: Sampling, tool_call: ToolCall | None) -> dict[str, Any]:
    text = choice.text()
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning": None,
    }
    if tool_call is not None:
        message["content"] = None
        message["tool_calls"] = [_tool_message(tool_call, text)]
    logprobs = None
    if sampling.top_logprobs is not None:
        places = range(choice.sequence.generated)
        logprobs = {
            "content": [chat_logprob(choice, place, sampling.top_logprobs) for place in places]
        }
    return {
        "index": choice.index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": _finish_reason(choice, tool_call),
        "stop_reason": choice.stop_reason,
        "token_ids": None,
    }


def _tool_message(tool_call: ToolCall, arguments: str) -> dict[str, Any]:
    return {
        "id": tool_call.id,
        "type": "function",
        "function": {"name": tool_call.name, "arguments": arguments},
    }


async def _stream(
    replica: Replica,
    request: web.BaseRequest,
    generation: Generation,
    sampling: Sampling,
    body: Body,
    tool_call: ToolCall | None,
) -> web.StreamResponse:
    options = mapping(body, "stream_options")
    wants_usage = bool(options.get("include_usage"))
    always_usage = wants_usage and bool(options.get("continuous_usage_stats"))
    envelope = {
        "id": generation.id,
        "object": "chat.completion.chunk",
        "created": generation.created_s,
        "model": generation.model,
    }
    stream = open_stream(replica, request)
    await stream.open()
    opening = [_opening(choice.index, tool_call) for choice in generation.choices]
    await stream.send(b"".join(sse({**envelope, "choices": [entry]}) for entry in opening))
    if always_usage or sampling.top_logprobs is not None or tool_call is not None:
        event = _full_event(envelope, sampling, tool_call, always_usage)
    else:
        event = _text_event(envelope)
    await stream_tokens(generation, stream, event)
    ending = b""
    if wants_usage:
        ending = sse({**envelope, "choices": [], "usage": generation.usage().openai()})
    await stream.send(ending + DONE)
    return await stream.close()


def _opening(index: int, tool_call: ToolCall | None) -> dict[str, Any]:
    """The first chunk of a choice says who speaks, or which tool is called."""
    delta: dict[str, Any] = {"role": "assistant", "content": ""}
    if tool_call is not None:
        delta["content"] = None
        delta["tool_calls"] = [{"index": 0, **_tool_message(tool_call, "")}]
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


def _text_event(envelope: dict[str, Any]) -> TokenEvent:
    """The common case, where only the text differs from chunk to chunk."""
    head = b"data: " + orjson.dumps(envelope)[:-1] + b',"choices":[{"index":'
    between = b',"delta":{"content":'
    tail = b'},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
    dumps = orjson.dumps

    def event(choice: Choice, token: int, is_last: bool) -> bytes:
        pieces = choice.answer.pieces
        piece = pieces[token] if token < len(pieces) else ""
        if not is_last:
            return b"%b%d%b%b%b" % (head, choice.index, between, dumps(piece), tail)
        entry = {
            "index": choice.index,
            "delta": {"content": piece},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
            "token_ids": None,
        }
        return sse({**envelope, "choices": [entry]})

    return event


def _full_event(
    envelope: dict[str, Any],
    sampling: Sampling,
    tool_call: ToolCall | None,
    always_usage: bool,
) -> TokenEvent:
    """Chunks with log probabilities, tool arguments or running usage."""

    def event(choice: Choice, token: int, is_last: bool) -> bytes:
        pieces = choice.answer.pieces
        piece = pieces[token] if token < len(pieces) else ""
        delta: dict[str, Any] = {"content": piece}
        if tool_call is not None:
            delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        logprobs = None
        if sampling.top_logprobs is not None and token < len(pieces):
            logprobs = {"content": [chat_logprob(choice, token, sampling.top_logprobs)]}
        entry = {
            "index": choice.index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": _finish_reason(choice, tool_call) if is_last else None,
            "stop_reason": choice.stop_reason if is_last else None,
        }
        chunk = {**envelope, "choices": [entry]}
        if always_usage:
            chunk["usage"] = usage_after(choice, min(token + 1, len(pieces)))
        return sse(chunk)

    return event
