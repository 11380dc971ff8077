"""A prompt as a chain of block hashes.

    h_0 = blake2b(model, cache salt, tools)     h_i = hash(h_{i-1}, crc32(block i))

A block is 256 bytes (64 tokens) at the beginning of a prompt and grows with its position, so that a
long prompt needs few hashes and the error of a match stays below an eighth of its length:

    bytes 0 to 8 Ki: blocks of 256;  to 128 Ki: of 1,024;  to 512 Ki: of 4,096;  then no more

A last part that fills no block is not hashed. The CRC (7 GB/s, a fifth of what any stronger hash
costs) only has to tell apart the continuations of one and the same beginning; a client that
constructs two that collide misleads nothing but the routing of its own requests. Python's `hash` of
numbers is the same in every process, and so are the chains: replicas of a picker agree on them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any
from zlib import crc32

import orjson

from pointsman.inference.tokens import BYTES_PER_TOKEN

BILLING_HEADER = "x-anthropic-billing-header"
"""How such a part begins. It changes with every request and comes first, so with it no two prompts
would have a common beginning; model servers leave it out as well."""

_STEPS = ((256, 8 * 1024), (1024, 128 * 1024), (4096, 512 * 1024))


def _ends() -> tuple[int, ...]:
    ends: list[int] = []
    at = 0
    for size, limit in _STEPS:
        while at < limit:
            at += size
            ends.append(at)
    return tuple(ends)


BLOCK_ENDS = _ends()
"""Where the blocks end, in bytes of the prompt."""
TOKENS_UP_TO = tuple(end // BYTES_PER_TOKEN for end in BLOCK_ENDS)
"""How many tokens a prompt has at the end of each block."""
BLOCK_TOKENS = tuple(
    after - before for before, after in zip((0, *TOKENS_UP_TO), TOKENS_UP_TO, strict=False)
)


def chain(seed: bytes, prompt: bytes) -> list[int]:
    """The hashes of a prompt's blocks, first block first."""
    value = int.from_bytes(blake2b(seed, digest_size=8).digest())
    hashes: list[int] = []
    size = len(prompt)
    view = memoryview(prompt)
    start = 0
    for end in BLOCK_ENDS:
        if end > size:
            break
        value = hash((value, crc32(view[start:end])))
        hashes.append(value)
        start = end
    return hashes


def prompt_chain(model: str | None, fields: Mapping[str, Any]) -> list[int]:
    """The chain of a request's prompt; empty where there is no prompt to hash."""
    prompt = prompt_bytes(fields)
    if len(prompt) < BLOCK_ENDS[0]:
        return []
    tools = fields.get("tools")
    salt = fields.get("cache_salt") or fields.get("extra_key")
    words = "\0".join((model or "", salt if isinstance(salt, str) else "", ""))
    seed = words.encode("utf-8", "surrogatepass") + (orjson.dumps(tools) if tools else b"")
    return chain(seed, prompt)


def new_block(hashes: Sequence[int], held: Mapping[str, int]) -> int | None:
    """The first block of a prompt that no server holds; None where one holds half of the prompt.

    Args:
        hashes: of all its blocks; not empty.
        held: server to the tokens of it that it holds.
    """
    most = max(held.values(), default=0)
    if most * 2 >= TOKENS_UP_TO[len(hashes) - 1]:
        return None
    return hashes[bisect_right(TOKENS_UP_TO, most)]


def prompt_bytes(fields: Mapping[str, Any]) -> bytes:
    """A prompt in the order in which a chat template renders it, without the template's own words.

    Text counts as it is; token ids, images and anything else count as their JSON.
    """
    messages = fields.get("messages")
    if isinstance(messages, list):
        system = fields.get("system")
        first = [_system(system)] if system is not None else []
        return "\0".join([*first, *_turns(messages)]).encode("utf-8", "surrogatepass")
    for name in ("prompt", "input", "text", "token_ids", "input_ids"):
        value = fields.get(name)
        if value is None:
            continue
        instructions = fields.get("instructions")
        head = f"{instructions}\0" if isinstance(instructions, str) else ""
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return (head + "\0".join(_turns(value))).encode("utf-8", "surrogatepass")
        return (head + _text(value)).encode("utf-8", "surrogatepass")
    return b""


def _system(system: Any) -> str:
    """Anthropic's system prompt, without the part in which its clients count their requests."""
    if not isinstance(system, list):
        return _text(system)
    return _parts([part for part in system if not _counts_requests(part)])


def _counts_requests(part: Any) -> bool:
    text = part.get("text") if isinstance(part, dict) else None
    return isinstance(text, str) and text.startswith(BILLING_HEADER)


def _turns(messages: Sequence[Any]) -> list[str]:
    parts: list[str] = []
    for message in messages:
        if not isinstance(message, dict):
            parts.append(_text(message))
            continue
        role = message.get("role")
        parts.append(role if isinstance(role, str) else "")
        content = message.get("content")
        if isinstance(content, str):
            parts.append(content)
        elif content is not None:
            parts.append(_parts(content))
        if "tool_calls" in message:
            parts.append(_text(message["tool_calls"]))
    return parts


def _parts(content: Any) -> str:
    if not isinstance(content, list):
        return _text(content)
    texts = (
        part["text"]
        if isinstance(part, dict) and isinstance(part.get("text"), str)
        else _text(part)
        for part in content
    )
    return "\0".join(texts)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
