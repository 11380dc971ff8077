"""No body that a client can send makes the server fail."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.modelserver.conftest import serving_with

PATHS = (
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/tokenize",
    "/detokenize",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
)
KEYS = (
    "model", "prompt", "messages", "input", "tools", "tool_choice", "max_tokens", "n", "stop",
    "stream", "stream_options", "logprobs", "top_logprobs", "temperature", "seed", "echo",
    "response_format", "text", "system", "tokens", "dimensions", "encoding_format", "role",
    "content", "type", "function", "name", "parameters", "input_schema", "properties", "enum",
    "items", "minItems", "minimum", "maximum", "$ref", "lora_name", "lora_path", "timing",
    "failure_types", "json_schema", "schema", "minLength", "maxLength", "anyOf", "tool_calls",
    "cache_salt", "priority", "min_tokens", "instructions", "stop_sequences", "guided_json",
)  # fmt: skip
WORDS = ("user", "tool", "tiny", "required", "auto", "function", "json_schema", "object", "array",
         "integer", "string", "number", "any", "base64", "text", "#/properties/x")  # fmt: skip
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**33),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": values}),
    min_size=1,
    max_size=2,
)
bodies = st.one_of(
    values,
    st.dictionaries(st.sampled_from(KEYS), values, max_size=8),
    st.fixed_dictionaries(
        {"messages": messages, "prompt": values, "input": values, "tools": values},
        optional={
            "tool_choice": values,
            "response_format": values,
            "max_tokens": st.integers(1, 9),
            "stream": st.booleans(),
        },
    ),
)


class Background:
    """A server on a thread of its own, so that examples need no event loop."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self.port = 0

    async def _serve(self) -> None:
        # Time runs fast, since some bodies ask for thousands of tokens.
        async with serving_with(time_scale=1000.0) as served:
            self.port = served.listener.address.port
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Background:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    with Background() as server:
        yield server


@settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(PATHS), body=bodies)
def test_whatever_is_sent_the_answer_is_no_failure(
    background: Background, path: str, body: Any
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", background.port, timeout=10)
    try:
        connection.request("POST", path, json.dumps(body).encode())
        response = connection.getresponse()
        response.read()
        assert response.status < 500
    finally:
        connection.close()
