"""`/v1/messages`: Anthropic's protocol, plain and streamed, and its token count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from pointsman.modelserver.api.errors import RequestError, json_response
from pointsman.modelserver.api.fields import Body, Sampling, flag, integer, number, stop_strings
from pointsman.modelserver.api.generation import (
    Choice,
    Generation,
    encode,
    find_model,
    plan,
    request_id,
)
from pointsman.modelserver.api.stream import open_stream, stream_tokens
from pointsman.modelserver.api.tools import ToolCall, call, choose_tool, read_tools
from pointsman.modelserver.conversation import content_text, last_user_text, render

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""HTTP status to the `type` of an error; anything else is an `api_error`."""


def error_response(problem: RequestError, headers: dict[str, str]) -> web.Response:
    """An error in the protocol's own form."""
    error = {"type": _ERROR_TYPES.get(problem.status, "api_error"), "message": problem.message}
    return json_response({"type": "error", "error": error}, problem.status, headers)


async def messages(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """Answers one messages request."""
    served = find_model(replica, body)
    max_tokens = integer(body, "max_tokens", least=1)
    if max_tokens is None:
        raise RequestError(400, "max_tokens: Field required", param="max_tokens")
    prompt = encode(replica, _prompt(body))
    conversation = body["messages"]
    said = last_user_text(conversation)
    tool = choose_tool(
        read_tools(body), body.get("tool_choice", "auto"), said, _has_result(conversation[-1])
    )
    tool_call = None if tool is None else call(tool, said, "toolu_")
    script = replica.script_of(said) if tool_call is None else tool_call.arguments
    temperature = number(body, "temperature", 0.0, 1.0)
    sampling = Sampling(
        max_tokens=max_tokens,
        stops=stop_strings(body, "stop_sequences"),
        is_greedy=temperature is not None and temperature < 1e-5,
        ignores_eos=flag(body, "ignore_eos"),
    )
    name = request_id(request, "msg")
    choices = plan(replica, served, name, [prompt], sampling, script)
    streams = flag(body, "stream")
    async with Generation(replica, name, served, choices, streams=streams) as generation:
        if streams:
            return await _stream(replica, request, generation, tool_call)
        await generation.finished()
        return json_response(_answer(generation, tool_call), headers=replica.headers_for(request))


async def count_tokens(
    replica: Replica, request: web.BaseRequest, body: Body
) -> web.StreamResponse:
    """`/v1/messages/count_tokens`."""
    find_model(replica, body)
    return json_response({"input_tokens": len(encode(replica, _prompt(body)))})


def _prompt(body: Body) -> str:
    conversation = body.get("messages")
    system = body.get("system")
    if system is not None and isinstance(conversation, list):
        conversation = [{"role": "system", "content": content_text(system)}, *conversation]
    return render(conversation, body.get("tools"))


def _has_result(message: Any) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") == "tool_result" for part in content
    )


def _stop_reason(choice: Choice, tool_call: ToolCall | None) -> str:
    if choice.finish_reason == "length":
        return "max_tokens"
    if choice.stop_reason is not None:
        return "stop_sequence"
    return "end_turn" if tool_call is None else "tool_use"


def _usage(generation: Generation) -> dict[str, Any]:
    usage = generation.usage()
    return {
        "input_tokens": usage.prompt - usage.cached,
        "output_tokens": usage.completion,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
    }


def _message(generation: Generation, content: list[Any], stop: str | None) -> dict[str, Any]:
    return {
        "id": generation.id,
        "type": "message",
        "role": "assistant",
        "model": generation.model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": generation.choices[0].stop_reason if stop else None,
        "usage": _usage(generation),
    }


def _answer(generation: Generation, tool_call: ToolCall | None) -> dict[str, Any]:
    choice = generation.choices[0]
    text = choice.text()
    content: dict[str, Any] = {"type": "text", "text": text}
    if tool_call is not None:
        content = _tool_block(tool_call, text)
    return _message(generation, [content], _stop_reason(choice, tool_call))


def _tool_block(tool_call: ToolCall, text: str) -> dict[str, Any]:
    try:
        arguments = orjson.loads(text)
    except orjson.JSONDecodeError:
        arguments = {}  # cut off by max_tokens
    return {"type": "tool_use", "id": tool_call.id, "name": tool_call.name, "input": arguments}


def _event(kind: str, **fields: Any) -> bytes:
    data = orjson.dumps({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


async def _stream(
    replica: Replica,
    request: web.BaseRequest,
    generation: Generation,
    tool_call: ToolCall | None,
) -> web.StreamResponse:
    block: dict[str, Any] = {"type": "text", "text": ""}
    delta_type, delta_field = "text_delta", "text"
    if tool_call is not None:
        block = {"type": "tool_use", "id": tool_call.id, "name": tool_call.name, "input": {}}
        delta_type, delta_field = "input_json_delta", "partial_json"

    def event(choice: Choice, token: int, is_last: bool) -> bytes:
        pieces = choice.answer.pieces
        piece = pieces[token] if token < len(pieces) else ""
        if not piece:
            return b""
        delta = {"type": delta_type, delta_field: piece}
        return _event("content_block_delta", index=0, delta=delta)

    stream = open_stream(replica, request)
    await stream.open()
    await stream.send(
        _event("message_start", message=_message(generation, [], None))
        + _event("content_block_start", index=0, content_block=block)
    )
    await stream_tokens(generation, stream, event)
    choice = generation.choices[0]
    ending = {
        "stop_reason": _stop_reason(choice, tool_call),
        "stop_sequence": choice.stop_reason,
    }
    await stream.send(
        _event("content_block_stop", index=0)
        + _event("message_delta", delta=ending, usage=_usage(generation))
        + _event("message_stop")
    )
    return await stream.close()
