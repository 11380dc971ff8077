"""What a request asks for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from hypothesis import given
from hypothesis import strategies as st

from pointsman.inference.paths import Api, api_of
from pointsman.picker.extproc.machine import Assumptions, Decide, Machine, Mode
from pointsman.picker.prefix.blocks import prompt_chain
from pointsman.picker.requests.ask import Ask, BadRequestError, read_ask
from pointsman.picker.requests.spans import splice


def ask(path: str, content: Any, **headers: str) -> Ask:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_ask({":path": path, ":method": "POST", **named}, body)


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", Api.CHAT),
        ("/v1/completions?x=1", Api.COMPLETIONS),
        ("/anthropic/v1/messages", Api.MESSAGES),
        ("/v1/messages/count_tokens", Api.TOKENIZE),
        ("/generate", Api.GENERATE),
        ("/v1/models/", Api.MODELS),
        ("/", Api.OTHER),
    ],
)
def test_paths(path: str, api: Api) -> None:
    assert api_of(path) is api


@pytest.mark.parametrize(
    ("path", "content", "tokens"),
    [
        ("/v1/completions", {"prompt": "x" * 400}, 100),
        ("/v1/completions", {"prompt": ["x" * 40, "y" * 40]}, 20),
        ("/v1/completions", {"prompt": [1, 2, 3]}, 3),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}, 3),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 8}]}, 2),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "x" * 8},
                            {"type": "image_url", "image_url": {"url": "data:" + "x" * 999}},
                        ],
                    }
                ]
            },
            227,
        ),
        ("/v1/messages", {"system": "x" * 4, "messages": [{"content": "x" * 4}]}, 2),
        ("/v1/responses", {"instructions": "x" * 4, "input": [{"content": "x" * 4}]}, 2),
        ("/v1/embeddings", {"input": ["x" * 4, "äöüß"]}, 3),
    ],
)
def test_prompts_are_estimated(path: str, content: dict[str, Any], tokens: int) -> None:
    assert ask(path, {"model": "m", **content}).prompt_tokens == tokens


@dataclass(frozen=True)
class Real:
    """A body as a client of the API sends it, and what is read of it."""

    path: str
    body: dict[str, Any]
    api: Api
    tokens: int
    max_tokens: int | None = None
    is_stream: bool = False
    model: str | None = "m"


TURN = {"role": "user", "content": "x" * 40}
REAL = {
    "completions": Real(
        "/v1/completions",
        {"model": "m", "prompt": "x" * 40, "max_tokens": 7, "stream": True},
        Api.COMPLETIONS,
        *(10, 7, True),
    ),
    "chat": Real(
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [{"role": "system", "content": "x" * 40}, TURN],
            "max_completion_tokens": 9,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        Api.CHAT,
        *(20, 9, True),
    ),
    "chat with tool calls": Real(
        "/v1/chat/completions",
        {
            "model": "m",
            "messages": [
                TURN,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "x" * 8},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
        Api.CHAT,
        12,
    ),
    "responses": Real(
        "/v1/responses",
        {"model": "m", "instructions": "x" * 8, "input": [TURN], "max_output_tokens": 5},
        Api.RESPONSES,
        *(12, 5),
    ),
    "embeddings": Real(
        "/v1/embeddings", {"model": "m", "input": ["x" * 8, "x" * 8]}, Api.EMBEDDINGS, 4
    ),
    "images": Real(
        "/v1/images/generations",
        {"model": "m", "prompt": "x" * 8, "n": 1, "size": "64x64"},
        Api.IMAGES,
        2,
    ),
    "speech": Real(
        "/v1/audio/speech", {"model": "m", "input": "x" * 8, "voice": "v"}, Api.AUDIO, 2
    ),
    "Anthropic messages": Real(
        "/v1/messages",
        {
            "model": "m",
            "max_tokens": 3,
            "system": [{"type": "text", "text": "x" * 8, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 8}]}],
            "stream": True,
        },
        Api.MESSAGES,
        *(4, 3, True),
    ),
    "Anthropic count": Real(
        "/v1/messages/count_tokens", {"model": "m", "messages": [TURN]}, Api.TOKENIZE, 10
    ),
    "vLLM generate": Real(
        "/inference/v1/generate",
        {"model": "m", "token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 4}},
        Api.GENERATE,
        *(3, 4),
    ),
    "SGLang generate": Real(
        "/generate",
        {"text": "x" * 40, "sampling_params": {"max_new_tokens": 8}, "stream": True},
        Api.GENERATE,
        *(10, 8, True, None),
    ),
    "SGLang generate by ids": Real(
        "/generate", {"input_ids": [[1, 2], [3]], "extra_key": "s"}, Api.GENERATE, 3, model=None
    ),
    "tokenize": Real("/tokenize", {"model": "m", "prompt": "x" * 8}, Api.TOKENIZE, 2),
    "detokenize": Real("/detokenize", {"model": "m", "tokens": [1, 2]}, Api.TOKENIZE, 0),
    "rerank": Real(
        "/v1/rerank", {"model": "m", "query": "x" * 8, "documents": ["x" * 8] * 2}, Api.RANK, 6
    ),
    "score": Real("/score", {"model": "m", "text_1": "x" * 8, "text_2": ["x" * 8]}, Api.RANK, 4),
    "classify": Real("/classify", {"model": "m", "input": "x" * 8}, Api.RANK, 2),
    "another path": Real("/my/own", {"model": "m", "prompt": "x" * 8}, Api.OTHER, 2),
}


@pytest.mark.parametrize("name", REAL)
def test_every_api_is_read(name: str) -> None:
    real = REAL[name]
    data = json.dumps(real.body, indent=1).encode()
    found = ask(real.path, data, content_type="application/json; charset=utf-8")
    assert (found.api, found.model, found.prompt_tokens) == (real.api, real.model, real.tokens)
    assert (found.max_tokens, found.is_stream) == (real.max_tokens, real.is_stream)
    assert not found.is_unread
    if real.model is not None:
        assert found.span is not None
        changed = splice(data, found.span, "other")
        assert json.loads(changed) == {**real.body, "model": "other"}
        assert changed.replace(b'"other"', b'"m"', 1) == data


@given(st.sampled_from(sorted(REAL)), st.lists(st.integers(0, 400), max_size=6))
def test_a_body_means_the_same_in_whatever_pieces_it_comes(name: str, cuts: list[int]) -> None:
    real = REAL[name]
    data = json.dumps(real.body).encode()
    machine = Machine(Assumptions())
    head = pb.ProcessingRequest()
    head.request_headers.headers.headers.add(key=":path", raw_value=real.path.encode())
    head.protocol_config.request_body_mode = Mode.FULL_DUPLEX_STREAMED
    machine.receive(head)
    ends = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    asked = None
    for start, end in zip([0, *ends], ends, strict=False):
        body = pb.HttpBody(body=data[start:end], end_of_stream=end == len(data) and asked is None)
        if body.end_of_stream or end < len(data):
            asked = machine.receive(pb.ProcessingRequest(request_body=body)) or asked
    assert isinstance(asked, Decide)
    whole = read_ask({":path": real.path}, data)
    assert read_ask(asked.headers, asked.body) == whole


def test_a_prompt_of_an_agent_has_the_same_beginning_each_time() -> None:
    def chain(count: int) -> list[int]:
        parts = [
            {"type": "text", "text": f"x-anthropic-billing-header: n={count};"},
            {"type": "text", "text": "x" * 4_000},
        ]
        return prompt_chain("m", {"system": parts, "messages": [TURN]})

    assert chain(1)
    assert chain(1) == chain(2)


def test_limits_and_streaming_are_read() -> None:
    found = ask("/v1/completions", {"model": "m", "stream": True, "max_tokens": 7})
    assert (found.model, found.is_stream, found.max_tokens) == ("m", True, 7)
    nested = {"sampling_params": {"max_new_tokens": 9}, "input_ids": [1, 2]}
    generate = ask("/generate", nested)
    assert (generate.model, generate.max_tokens, generate.prompt_tokens) == (None, 9, 2)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/chat/completions", b"{", "invalid_json"),
        ("/v1/chat/completions", b"", "invalid_json"),
        ("/v1/chat/completions", b"[]", "invalid_json"),
        ("/v1/chat/completions", b'{"messages":[]}', "missing_model"),
        ("/v1/chat/completions", b'{"model":7}', "missing_model"),
    ],
)
def test_what_cannot_be_understood_is_a_400(path: str, body: bytes, code: str) -> None:
    with pytest.raises(BadRequestError) as bad:
        ask(path, body)
    assert (bad.value.error.status, bad.value.error.code) == (400, code)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/chat/completions", {"content_encoding": "gzip"}),
        ("/v1/audio/transcriptions", {"content_type": "multipart/form-data; boundary=x"}),
        ("/v1/unknown", {"content_type": "application/json"}),
        ("/v1/unknown", {}),
    ],
)
def test_what_need_not_be_understood_passes_unread(path: str, headers: dict[str, str]) -> None:
    found = ask(path, b"\x1f\x8b no json", **headers)
    assert found.is_unread
    assert found.model is None


def test_a_content_type_does_not_hide_json() -> None:
    for content_type in ("application/x-www-form-urlencoded", "application/octet-stream"):
        found = ask("/v1/completions", {"model": "m"}, content_type=content_type)
        assert found.model == "m"
    assert ask("/v1/completions", b"\x00", content_type="application/octet-stream").is_unread


def test_a_request_without_a_body_asks_for_no_model() -> None:
    found = read_ask({":path": "/v1/models", ":method": "GET"}, None)
    assert found == Ask(Api.MODELS)
