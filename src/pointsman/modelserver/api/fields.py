"""Reads the fields of a request body, and says what is wrong in the way vLLM says it: 400."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from pointsman.modelserver.api.errors import RequestError
from pointsman.modelserver.prose import seed_of

Body = dict[str, Any]

CHOICES_LIMIT = 128
"""Most choices of one request (OpenAI's limit)."""


def parse_body(data: bytes) -> Body:
    """The JSON object of a request.

    Raises:
        RequestError: 400 if it is none.
    """
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"JSON decode error: {error}", "Bad Request") from None
    if not isinstance(body, dict):
        raise RequestError(400, "The body has to be a JSON object.", "Bad Request")
    return body


def integer(
    body: Body, name: str, default: int | None = None, *, least: int | None = None
) -> int | None:
    """A whole number; null counts as absent."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(400, f"{name} has to be an integer, got {value!r}.", param=name)
    if least is not None and value < least:
        raise RequestError(400, f"{name} must be at least {least}, got {value}.", param=name)
    return value


def number(body: Body, name: str, least: float, most: float) -> float | None:
    """A number within bounds; null counts as absent."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(400, f"{name} has to be a number, got {value!r}.", param=name)
    if not least <= value <= most:
        raise RequestError(400, f"{name} must be in [{least}, {most}], got {value}.", param=name)
    return float(value)


def flag(body: Body, name: str) -> bool:
    """A boolean; null counts as false."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise RequestError(400, f"{name} has to be a boolean, got {value!r}.", param=name)
    return value


def text(body: Body, name: str) -> str | None:
    """A string; null counts as absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise RequestError(400, f"{name} has to be a string, got {value!r}.", param=name)
    return value


def mapping(body: Body, name: str) -> Body:
    """An object; null counts as empty."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(400, f"{name} has to be an object, got {value!r}.", param=name)
    return value


def stop_strings(body: Body, name: str = "stop") -> list[str]:
    """Stop strings: one or a list."""
    value = body.get(name)
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise RequestError(400, f"{name} has to be a string or a list of strings.", param=name)
    if "" in value:
        raise RequestError(400, f"{name} cannot contain an empty string.", param=name)
    return value


@dataclass(slots=True)
class Sampling:
    """How an answer is wished for, whatever protocol it came by."""

    max_tokens: int | None = None
    min_tokens: int = 0
    choices: int = 1
    stops: list[str] = field(default_factory=list)
    ignores_eos: bool = False
    keeps_stop: bool = False
    seed: int | None = None
    is_greedy: bool = False
    priority: int = 0
    salt: str = ""
    top_logprobs: int | None = None
    """None: no logprobs; else alternatives per token, which may be 0."""

    def seed_base(self, count: int) -> int:
        """The seed of this request: its own, or a new one for each request that wants chance."""
        if self.seed is not None:
            return self.seed
        return 0 if self.is_greedy else seed_of(count)


def read_sampling(body: Body, max_tokens: int | None) -> Sampling:
    """The fields that completions and chat share; `max_tokens` is already read.

    Raises:
        RequestError: 400 for a value out of bounds.
    """
    temperature = number(body, "temperature", 0.0, float("inf"))
    number(body, "top_p", 0.0, 1.0)
    number(body, "presence_penalty", -2.0, 2.0)
    number(body, "frequency_penalty", -2.0, 2.0)
    choices = integer(body, "n", 1, least=1) or 1
    if choices > CHOICES_LIMIT:
        raise RequestError(400, f"n must be at most {CHOICES_LIMIT}, got {choices}.", param="n")
    minimum = integer(body, "min_tokens", 0, least=0) or 0
    if max_tokens is not None and minimum > max_tokens:
        raise RequestError(
            400, f"min_tokens must be at most max_tokens={max_tokens}, got {minimum}."
        )
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=minimum,
        choices=choices,
        stops=stop_strings(body),
        ignores_eos=flag(body, "ignore_eos"),
        keeps_stop=flag(body, "include_stop_str_in_output"),
        seed=integer(body, "seed"),
        is_greedy=temperature is not None and temperature < 1e-5,
        priority=integer(body, "priority", 0) or 0,
        salt=text(body, "cache_salt") or "",
    )
