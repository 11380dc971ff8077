"""Tool calls: when one is made, and with which arguments.

A required or named tool is always called. With `auto`, a tool is called when the user's last
message names it (`get_weather`, or "get weather"), so that a test can choose; once a tool has
answered, the reply is text.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import orjson

from pointsman.modelserver.api.errors import RequestError
from pointsman.modelserver.api.fields import Body
from pointsman.modelserver.jsonvalues import value_for
from pointsman.modelserver.prose import seed_of


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the answer consists of."""

    id: str
    name: str
    arguments: str
    """JSON text."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the client offers."""

    name: str
    schema: Any


def read_tools(body: Body) -> list[Tool]:
    """The functions offered, whether nested as in chat or flat as in responses and messages.

    Raises:
        RequestError: 400 for a tool without a name.
    """
    entries = body.get("tools")
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise RequestError(400, "tools has to be a list.", param="tools")
    tools = []
    for entry in entries:
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError(400, "A tool needs a name.", param="tools")
        schema = function.get("parameters", function.get("input_schema"))
        tools.append(Tool(function["name"], schema))
    return tools


def choose_tool(tools: list[Tool], choice: Any, user_text: str, has_result: bool) -> Tool | None:
    """The tool to call, or None to answer in words.

    Raises:
        RequestError: 400 if the choice names a tool that is not offered.
    """
    if not tools or choice == "none":
        return None
    name, is_required = _named(choice)
    if name is not None:
        for tool in tools:
            if tool.name == name:
                return tool
        raise RequestError(400, f"tool_choice names {name!r}, which is not in tools.")
    said = user_text.lower()
    for tool in tools:
        spoken = tool.name.lower()
        if spoken in said or spoken.replace("_", " ") in said:
            return None if has_result and not is_required else tool
    return tools[0] if is_required else None


def _named(choice: Any) -> tuple[str | None, bool]:
    """A tool's name if one is asked for, and whether some call has to be made."""
    if isinstance(choice, str):
        return None, choice in ("required", "any")
    if not isinstance(choice, dict):
        return None, False
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, dict) else None
    if isinstance(name, str):
        return name, True
    return None, choice.get("type") in ("required", "any")


def call(tool: Tool, seed_text: str, prefix: str = "chatcmpl-tool-") -> ToolCall:
    """A call with arguments that fit the tool's schema, the same for the same text."""
    arguments = value_for(tool.schema, seed_of(tool.name, seed_text) % 10_007)
    return ToolCall(
        id=prefix + secrets.token_hex(8),
        name=tool.name,
        arguments=orjson.dumps(arguments).decode(),
    )
