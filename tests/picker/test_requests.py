"""What a request asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pointsman.inference.paths import Api, api_of
from pointsman.picker.requests.ask import Ask, BadRequestError, read_ask


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
