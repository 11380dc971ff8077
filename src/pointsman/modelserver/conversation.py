"""Turns a conversation into one prompt, as a chat template does."""

from __future__ import annotations

import zlib
from typing import Any

import orjson

from pointsman.modelserver.api.errors import RequestError

MEDIA_TEXT_BYTES = 600
"""Length of the text that stands for one image or sound: 200 tokens of the tokenizer."""

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))


def render(messages: Any, tools: Any) -> str:
    """The prompt for a list of messages, ending where the assistant begins to speak.

    `tools` are declared before them; none may be null.

    Raises:
        RequestError: 400 if there are none or one has no shape that clients use.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError(
            400, "messages has to be a list with at least one message.", param="messages"
        )
    parts = []
    if not isinstance(tools, list | None):
        raise RequestError(400, "tools has to be a list.", param="tools")
    if tools:
        declared = "\n".join(orjson.dumps(tool).decode() for tool in tools)
        parts.append(f"<|im_start|>tools\n{declared}<|im_end|>\n")
    for message in messages:
        role, content = _message(message)
        parts.append(f"<|im_start|>{role}\n{content}<|im_end|>\n")
    parts.append("<|im_start|>assistant\n")
    return "".join(parts)


def _message(message: Any) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise RequestError(400, "A message has to be an object.", param="messages")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(400, f"Unexpected message role {role!r}.", param="messages")
    content = content_text(message.get("content"))
    calls = message.get("tool_calls")
    if calls:
        content += orjson.dumps(calls).decode()
    return role, content


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts.

    An image or a sound stands as a text that depends on its data, so that equal media share a
    prefix and different ones do not.

    Raises:
        RequestError: 400 for anything else.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(400, "content has to be a string or a list of parts.", param="messages")
    return "".join(_part_text(part) for part in content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise RequestError(400, "A content part has to be an object.", param="messages")
    for name in ("text", "refusal", "thinking"):
        if isinstance(part.get(name), str):
            return str(part[name])
    if part.get("type") == "tool_result":
        return content_text(part.get("content"))
    if part.get("type") == "tool_use":
        return orjson.dumps(part.get("input")).decode()
    checksum = f"{zlib.crc32(orjson.dumps(part)):08x}"
    return (checksum * (MEDIA_TEXT_BYTES // len(checksum)))[:MEDIA_TEXT_BYTES]


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """What the user said last."""
    for message in reversed(messages):
        if message.get("role") == "user":
            return content_text(message.get("content"))
    return ""
