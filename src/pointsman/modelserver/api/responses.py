"""`/v1/responses`: OpenAI's newer protocol, plain and streamed. Nothing is stored."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
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
    number,
    text,
)
from pointsman.modelserver.api.generation import (
    Choice,
    Generation,
    encode,
    find_model,
    plan,
    request_id,
)
from pointsman.modelserver.api.stream import EventStream, open_stream, stream_tokens
from pointsman.modelserver.api.tools import ToolCall, call, choose_tool, read_tools
from pointsman.modelserver.conversation import last_user_text, render
from pointsman.modelserver.jsonvalues import value_for
from pointsman.modelserver.prose import seed_of

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica


async def responses(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """Answers one responses request."""
    served = find_model(replica, body)
    if body.get("previous_response_id") is not None:
        raise RequestError(
            404, "Responses are not stored here.", "NotFoundError", "previous_response_id"
        )
    conversation = _conversation(body)
    prompt = encode(replica, render(conversation, body.get("tools")))
    said = last_user_text(conversation)
    tool = choose_tool(
        read_tools(body),
        body.get("tool_choice", "auto"),
        said,
        conversation[-1].get("role") == "tool",
    )
    tool_call = None if tool is None else call(tool, said, "call_")
    script = replica.script_of(said)
    if tool_call is not None:
        script = tool_call.arguments
    elif (schema := _text_schema(body)) is not None:
        script = orjson.dumps(value_for(schema, seed_of(said) % 10_007)).decode()
    temperature = number(body, "temperature", 0.0, float("inf"))
    sampling = Sampling(
        max_tokens=integer(body, "max_output_tokens", least=1),
        is_greedy=temperature is not None and temperature < 1e-5,
        ignores_eos=flag(body, "ignore_eos"),
        salt=text(body, "cache_salt") or "",
    )
    name = request_id(request, "resp")
    choices = plan(replica, served, name, [prompt], sampling, script)
    streams = flag(body, "stream")
    async with Generation(replica, name, served, choices, streams=streams) as generation:
        writer = _Writer(generation, body, tool_call)
        if streams:
            return await _stream(replica, request, writer)
        await generation.finished()
        return json_response(writer.finished(), headers=replica.headers_for(request))


def _conversation(body: Body) -> list[dict[str, Any]]:
    """The input as chat messages.

    Raises:
        RequestError: 400 if there is none.
    """
    given = body.get("input")
    messages: list[dict[str, Any]] = []
    instructions = text(body, "instructions")
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    elif isinstance(given, list) and given:
        messages += [_message(item) for item in given]
    else:
        raise RequestError(400, "input has to be a text or a list of items.", param="input")
    return messages


def _message(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise RequestError(400, "An input item has to be an object.", param="input")
    kind = item.get("type", "message")
    if kind == "function_call_output":
        return {"role": "tool", "content": str(item.get("output", ""))}
    if kind == "function_call":
        return {"role": "assistant", "content": str(item.get("arguments", ""))}
    if kind == "reasoning":
        return {"role": "assistant", "content": ""}
    return {"role": item.get("role"), "content": item.get("content")}


def _text_schema(body: Body) -> Any:
    wanted = mapping(mapping(body, "text"), "format")
    return wanted.get("schema") if wanted.get("type") == "json_schema" else None


@dataclass(slots=True)
class _Writer:
    """Writes the response object and its one output item, in whatever state they are."""

    generation: Generation
    body: Body
    tool_call: ToolCall | None
    item_id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(8)}")

    @property
    def choice(self) -> Choice:
        return self.generation.choices[0]

    def part(self, said: str) -> dict[str, Any]:
        return {"type": "output_text", "text": said, "annotations": [], "logprobs": None}

    def item(self, status: str, said: str, *, has_part: bool = True) -> dict[str, Any]:
        if self.tool_call is not None:
            return {
                "type": "function_call",
                "id": self.item_id,
                "call_id": self.tool_call.id,
                "name": self.tool_call.name,
                "arguments": said,
                "status": status,
            }
        return {
            "type": "message",
            "id": self.item_id,
            "role": "assistant",
            "status": status,
            "content": [self.part(said)] if has_part else [],
        }

    def response(self, status: str, output: list[Any]) -> dict[str, Any]:
        body = self.body
        is_cut = status == "incomplete"
        return {
            "id": self.generation.id,
            "object": "response",
            "created_at": self.generation.created_s,
            "model": self.generation.model,
            "status": status,
            "output": output,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "temperature": body.get("temperature", 1.0),
            "tool_choice": body.get("tool_choice", "auto"),
            "tools": body.get("tools") or [],
            "top_p": body.get("top_p", 1.0),
            "max_output_tokens": body.get("max_output_tokens"),
            "text": body.get("text"),
            "truncation": body.get("truncation", "disabled"),
            "usage": self._usage() if status != "in_progress" else None,
        }

    def finished(self) -> dict[str, Any]:
        status = "incomplete" if self.choice.finish_reason == "length" else "completed"
        return self.response(status, [self.item(status, self.choice.text())])

    def _usage(self) -> dict[str, Any]:
        usage = self.generation.usage()
        return {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.prompt + usage.completion,
        }


class _Numbered:
    """Events with the running number that the protocol asks for."""

    def __init__(self) -> None:
        self._next = 0

    def event(self, kind: str, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._next, **fields})
        self._next += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


async def _stream(
    replica: Replica, request: web.BaseRequest, writer: _Writer
) -> web.StreamResponse:
    events = _Numbered()
    stream = open_stream(replica, request)
    await stream.open()
    place = {"item_id": writer.item_id, "output_index": 0}
    opening = [
        events.event("response.created", response=writer.response("in_progress", [])),
        events.event("response.in_progress", response=writer.response("in_progress", [])),
        events.event(
            "response.output_item.added",
            output_index=0,
            item=writer.item("in_progress", "", has_part=False),
        ),
    ]
    kind = "response.function_call_arguments"
    if writer.tool_call is None:
        kind = "response.output_text"
        place["content_index"] = 0
        opening.append(events.event("response.content_part.added", **place, part=writer.part("")))
    await stream.send(b"".join(opening))
    extra: dict[str, Any] = {"logprobs": []} if writer.tool_call is None else {}

    def event(choice: Choice, token: int, is_last: bool) -> bytes:
        pieces = choice.answer.pieces
        piece = pieces[token] if token < len(pieces) else ""
        return events.event(f"{kind}.delta", **place, delta=piece, **extra) if piece else b""

    await stream_tokens(writer.generation, stream, event)
    await _close(stream, events, writer, place, extra)
    return await stream.close()


async def _close(
    stream: EventStream,
    events: _Numbered,
    writer: _Writer,
    place: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    said = writer.choice.text()
    final = writer.finished()
    if writer.tool_call is None:
        ending = [
            events.event("response.output_text.done", **place, text=said, **extra),
            events.event("response.content_part.done", **place, part=writer.part(said)),
        ]
    else:
        name = writer.tool_call.name
        ending = [
            events.event(
                "response.function_call_arguments.done", **place, name=name, arguments=said
            )
        ]
    ending += [
        events.event("response.output_item.done", output_index=0, item=final["output"][0]),
        events.event(f"response.{final['status']}", response=final),
    ]
    await stream.send(b"".join(ending))
