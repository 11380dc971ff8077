"""What the HTTP API answers, as vLLM answers it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from typing import Any

import pytest

from tests.modelserver.conftest import Served, Serving, until

CHAT = [{"role": "user", "content": "Tell me of trains."}]


async def events_of(served: Served, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of all server-sent events; `[DONE]` as text."""
    async with served.client.post(served.url + path, json={**body, "stream": True}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        text = await response.text()
    found = []
    for line in text.split("\n"):
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


async def test_models_lists_the_base_and_its_adapters_with_their_parents(served: Served) -> None:
    status, body = await served.get("/v1/models")
    assert status == 200
    cards = {card["id"]: (card["root"], card["parent"]) for card in body["data"]}
    assert cards == {
        "tiny": ("tiny", None),
        "lora-a": ("/a", "tiny"),
        "lora-b": ("/b", "tiny-base"),
    }
    assert body["data"][0]["max_model_len"] == 2048


@pytest.mark.parametrize("model", ["tiny", "lora-a", "lora-b"])
async def test_an_answer_names_the_model_that_was_asked_for(served: Served, model: str) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": "Hello"}),
        ("/v1/chat/completions", {"messages": CHAT}),
        ("/v1/responses", {"input": "Hello"}),
        ("/v1/messages", {"messages": CHAT, "max_tokens": 5}),
        ("/v1/embeddings", {"input": "Hello"}),
    ):
        status, answer = await served.post(path, {"model": model, **body})
        assert (status, answer["model"]) == (200, model)


async def test_a_request_without_a_model_gets_the_base_model(served: Served) -> None:
    _, answer = await served.post("/v1/completions", {"prompt": "Hello"})
    assert answer["model"] == "tiny"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_unknown_model_is_404_in_vllms_words(served: Served, is_stream: bool) -> None:
    status, body = await served.post(
        "/v1/completions", {"model": "nope", "prompt": "Hello", "stream": is_stream}
    )
    assert status == 404
    assert body == {
        "error": {
            "message": "The model `nope` does not exist. Valid aliases: tiny.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {}),
        ("/v1/completions", {"prompt": ""}),
        ("/v1/completions", {"prompt": [1, -1]}),
        ("/v1/completions", {"prompt": [2**31]}),
        ("/v1/completions", {"prompt": ["a", 3]}),
        ("/v1/completions", {"prompt": "a", "max_tokens": -1}),
        ("/v1/completions", {"prompt": "a", "max_tokens": 5000}),
        ("/v1/completions", {"prompt": "a", "max_tokens": "many"}),
        ("/v1/completions", {"prompt": "a", "n": 0}),
        ("/v1/completions", {"prompt": "a", "n": 1000}),
        ("/v1/completions", {"prompt": "a", "temperature": -1}),
        ("/v1/completions", {"prompt": "a", "stop": [1]}),
        ("/v1/completions", {"prompt": "a", "stream": "yes"}),
        ("/v1/completions", {"prompt": "word " * 3000}),
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": ["hi"]}),
        ("/v1/chat/completions", {"messages": [{"role": "king", "content": "hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 5}]}),
        ("/v1/chat/completions", {"messages": CHAT, "tools": [{"type": "function"}]}),
        ("/v1/responses", {"input": 5}),
        ("/v1/embeddings", {"input": "x", "encoding_format": "png"}),
        ("/tokenize", {"prompt": ["a", "b"]}),
        ("/detokenize", {"tokens": ["a"]}),
    ],
)
async def test_a_bad_request_is_400_with_an_error_body(
    served: Served, path: str, body: dict[str, Any]
) -> None:
    status, answer = await served.post(path, {"model": "tiny", **body})
    assert status == 400
    assert answer["error"]["code"] == 400
    assert answer["error"]["type"] == "BadRequestError"


@pytest.mark.parametrize("data", [b"{", b"[1]", b"null", b'"text"', b"\xff\xfe"])
async def test_bad_json_is_400(served: Served, data: bytes) -> None:
    status, body = await served.post("/v1/completions", data)
    assert status == 400
    assert body["error"]["type"] == "Bad Request"


async def test_unknown_paths_and_methods_have_the_frameworks_form(served: Served) -> None:
    assert await served.get("/nope") == (404, {"detail": "Not Found"})
    assert await served.get("/v1/completions") == (405, {"detail": "Method Not Allowed"})
    assert await served.post("/v1/models", {}) == (405, {"detail": "Method Not Allowed"})


async def test_a_body_that_is_too_large_is_413(serving: Serving) -> None:
    async with serving(max_body_bytes=1000) as served:
        status, body = await served.post("/v1/completions", {"prompt": "x" * 2000})
        assert (status, body["error"]["code"]) == (413, 413)


async def test_health_and_version_answer(served: Served) -> None:
    for path in ("/health", "/ping"):
        assert (await served.get(path))[0] == 200
    assert (await served.get("/version"))[1]["version"]


async def test_max_tokens_ends_an_answer_with_length(served: Served) -> None:
    _, answer = await served.post(
        "/v1/completions", {"prompt": "Hi", "max_tokens": 3, "ignore_eos": True}
    )
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_completions_stop_at_16_tokens_unless_told_otherwise(serving: Serving) -> None:
    async with serving(answer_median_tokens=500) as served:
        _, answer = await served.post("/v1/completions", {"prompt": "Hi"})
        assert answer["usage"]["completion_tokens"] == 16


async def test_usage_counts_the_prompt_and_what_the_cache_held(served: Served) -> None:
    body = {"prompt": list(range(100)), "max_tokens": 2}
    _, first = await served.post("/v1/completions", body)
    _, second = await served.post("/v1/completions", body)
    assert first["usage"]["prompt_tokens"] == 100
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert second["usage"]["prompt_tokens_details"] == {"cached_tokens": 96}


async def test_the_same_greedy_request_gets_the_same_answer(served: Served) -> None:
    body = {"prompt": "Hi", "temperature": 0, "max_tokens": 30}
    answers = [(await served.post("/v1/completions", body))[1]["choices"] for _ in range(2)]
    assert answers[0] == answers[1]
    _, other = await served.post("/v1/completions", {**body, "model": "lora-a"})
    assert other["choices"] != answers[0]


async def test_a_seed_makes_an_answer_repeatable_and_none_makes_it_vary(served: Served) -> None:
    async def text(**more: Any) -> str:
        _, answer = await served.post("/v1/chat/completions", {"messages": CHAT, **more})
        return str(answer["choices"][0]["message"]["content"])

    assert await text(seed=7) == await text(seed=7)
    assert len({await text() for _ in range(5)}) > 1


async def test_several_choices_and_several_prompts_are_numbered_in_order(served: Served) -> None:
    _, answer = await served.post(
        "/v1/completions", {"prompt": ["One", "Two"], "n": 3, "max_tokens": 4}
    )
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert len({choice["text"] for choice in answer["choices"]}) > 1


async def test_a_stop_string_ends_the_text_before_it(served: Served) -> None:
    body = {"prompt": "Hi", "max_tokens": 60, "ignore_eos": True, "seed": 3}
    _, whole = await served.post("/v1/completions", body)
    text = whole["choices"][0]["text"]
    word = text.split()[4]
    _, cut = await served.post("/v1/completions", {**body, "stop": [word, "unheard of"]})
    choice = cut["choices"][0]
    assert choice["text"] == text[: text.find(word)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", word)
    assert cut["usage"]["completion_tokens"] < 60


async def test_echo_repeats_the_prompt_first(served: Served) -> None:
    _, answer = await served.post("/v1/completions", {"prompt": "Once upon", "echo": True})
    assert answer["choices"][0]["text"].startswith("Once upon")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_logprobs_come_one_per_token(served: Served, path: str) -> None:
    is_chat = "chat" in path
    body: dict[str, Any] = {"max_tokens": 5, "ignore_eos": True}
    body |= {"messages": CHAT, "logprobs": True, "top_logprobs": 3} if is_chat else {
        "prompt": "Hi",
        "logprobs": 3,
    }  # fmt: skip
    _, answer = await served.post(path, body)
    logprobs = answer["choices"][0]["logprobs"]
    if is_chat:
        assert [len(entry["top_logprobs"]) for entry in logprobs["content"]] == [3] * 5
        said = "".join(entry["token"] for entry in logprobs["content"])
        assert said == answer["choices"][0]["message"]["content"]
    else:
        assert "".join(logprobs["tokens"]) == answer["choices"][0]["text"]
        assert [len(entry) for entry in logprobs["top_logprobs"]] == [3] * 5


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_a_stream_says_what_the_plain_answer_says(served: Served, path: str) -> None:
    body: dict[str, Any] = {"seed": 5, "max_tokens": 9, "prompt": "Hi"}
    if "chat" in path:
        body = {"seed": 5, "max_tokens": 9, "messages": CHAT}
    _, plain = await served.post(path, body)
    events = await events_of(served, path, {**body, "stream_options": {"include_usage": True}})
    assert events.pop() == "[DONE]"
    usage = events.pop()
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == plain["usage"]["completion_tokens"]
    choices = [event["choices"][0] for event in events]
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons[:-1] == [None] * (len(reasons) - 1)
    assert reasons[-1] == plain["choices"][0]["finish_reason"]
    if "chat" in path:
        assert choices[0]["delta"]["role"] == "assistant"
        said = "".join(choice["delta"].get("content", "") for choice in choices)
        assert said == plain["choices"][0]["message"]["content"]
    else:
        assert "".join(choice["text"] for choice in choices) == plain["choices"][0]["text"]
        assert len(choices) == plain["usage"]["completion_tokens"]


async def test_a_stream_of_several_choices_ends_each_of_them(served: Served) -> None:
    events = await events_of(served, "/v1/completions", {"prompt": "Hi", "n": 3, "max_tokens": 6})
    ended = [
        choice["index"]
        for event in events[:-1]
        for choice in event["choices"]
        if choice["finish_reason"]
    ]
    assert sorted(ended) == [0, 1, 2]


async def test_usage_can_come_with_every_chunk(served: Served) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await events_of(
        served,
        "/v1/completions",
        {"prompt": "Hi", "max_tokens": 4, "ignore_eos": True, "stream_options": options},
    )
    assert [event["usage"]["completion_tokens"] for event in events[:-1]] == [1, 2, 3, 4, 4]


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city"],
        },
    },
}


@pytest.mark.parametrize(
    ("said", "choice", "is_called"),
    [
        ("please get weather for Rome", "auto", True),
        ("hello", "auto", False),
        ("hello", "required", True),
        ("hello", {"type": "function", "function": {"name": "get_weather"}}, True),
        ("please get weather for Rome", "none", False),
    ],
)
async def test_a_tool_is_called_when_asked_for(
    served: Served, said: str, choice: Any, is_called: bool
) -> None:
    _, answer = await served.post(
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": said}], "tools": [TOOL], "tool_choice": choice},
    )
    message = answer["choices"][0]["message"]
    assert bool(message["tool_calls"]) is is_called
    if is_called:
        assert answer["choices"][0]["finish_reason"] == "tool_calls"
        arguments = json.loads(message["tool_calls"][0]["function"]["arguments"])
        assert isinstance(arguments["city"], str)
        assert arguments["days"] >= 1


async def test_after_a_tools_result_the_answer_is_text(served: Served) -> None:
    messages = [
        {"role": "user", "content": "get weather"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "sunny", "tool_call_id": "1"},
    ]
    _, answer = await served.post("/v1/chat/completions", {"messages": messages, "tools": [TOOL]})
    assert answer["choices"][0]["message"]["tool_calls"] == []


async def test_structured_output_fits_its_schema(served: Served) -> None:
    schema = {"type": "object", "properties": {"stars": {"type": "integer", "maximum": 5}}}
    _, answer = await served.post(
        "/v1/chat/completions",
        {
            "messages": CHAT,
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        },
    )
    assert json.loads(answer["choices"][0]["message"]["content"])["stars"] <= 5


async def test_images_count_as_tokens_and_equal_images_share_a_prefix(served: Served) -> None:
    def with_image(url: str) -> dict[str, Any]:
        image = {"type": "image_url", "image_url": {"url": url}}
        words = {"type": "text", "text": "What is this?"}
        return {"messages": [{"role": "user", "content": [image, words]}], "max_tokens": 1}

    usages = []
    for url in ("a.png", "a.png", "b.png"):
        _, answer = await served.post("/v1/chat/completions", with_image(url))
        usages.append(answer["usage"])
    assert usages[0]["prompt_tokens"] > 200
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached[1] > 200
    assert cached[2] < 50


async def test_tokenize_and_detokenize_are_inverse(served: Served) -> None:
    _, tokens = await served.post("/tokenize", {"prompt": "A signal, lit.", "model": "tiny"})
    assert tokens["count"] == len(tokens["tokens"])
    _, text = await served.post("/detokenize", {"tokens": tokens["tokens"]})
    assert text == {"prompt": "A signal, lit."}
    _, chat = await served.post("/tokenize", {"messages": CHAT, "return_token_strs": True})
    assert chat["count"] == len(chat["token_strs"])


async def test_embeddings_of_like_texts_are_alike(served: Served) -> None:
    texts = ["the red signal", "the red signals", "a completely other matter"]
    _, answer = await served.post("/v1/embeddings", {"input": texts, "dimensions": 64})
    one, two, three = (entry["embedding"] for entry in answer["data"])
    near = sum(a * b for a, b in zip(one, two, strict=True))
    far = sum(a * b for a, b in zip(one, three, strict=True))
    assert near > far
    assert len(one) == 64
    assert answer["usage"]["total_tokens"] > 0


async def test_a_client_that_leaves_frees_its_place_at_once(served: Served) -> None:
    body = {"prompt": "Hi", "max_tokens": 2000, "ignore_eos": True, "stream": True}
    engine = served.replica.driver.engine
    response = await served.client.post(served.url + "/v1/completions", json=body)
    await response.content.readany()
    assert engine.scheduler.running
    response.close()
    await until(lambda: engine.is_idle)
    assert engine.scheduler.pool.used == 0


async def test_a_client_that_leaves_a_plain_answer_frees_its_place_too(served: Served) -> None:
    body = {"prompt": "Hi", "max_tokens": 2000, "ignore_eos": True}
    engine = served.replica.driver.engine
    asking = asyncio.create_task(served.post("/v1/completions", body))
    await until(lambda: bool(engine.scheduler.running))
    asking.cancel()
    await until(lambda: engine.is_idle)


async def test_a_storm_of_leaving_clients_leaves_nothing_behind(serving: Serving) -> None:
    draws = random.Random(3)
    # Little room, so that some wait, some are preempted and some are deferred for an adapter.
    async with serving(capacity={"kv_blocks": 65, "max_model_len": 512, "max_loras": 1}) as served:

        async def come_and_go() -> None:
            body = {
                "model": draws.choice(["tiny", "lora-a", "lora-b"]),
                "prompt": [draws.randrange(9) for _ in range(draws.randrange(1, 200))],
                "max_tokens": draws.randrange(1, 200),
                "ignore_eos": True,
                "stream": draws.random() < 0.5,
            }
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(draws.random() * 0.5):
                    await served.post("/v1/completions", body)

        await asyncio.gather(*(come_and_go() for _ in range(150)))
        engine = served.replica.driver.engine
        await until(lambda: engine.is_idle and served.replica.idle.is_set())
        assert engine.scheduler.pool.used == 0
        status, _ = await served.post("/v1/completions", {"prompt": "Hi"})
        assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ["x"] * 1000, "n": 100},
        {"prompt": ["x"] * 1000, "max_tokens": 2000, "ignore_eos": True},
        {"prompt": ["x"] * 5000},
    ],
)
async def test_one_request_cannot_ask_for_the_moon(served: Served, body: dict[str, Any]) -> None:
    assert (await served.post("/v1/completions", body))[0] == 400


async def test_an_answer_says_which_pod_gave_it(serving: Serving) -> None:
    async with (
        serving(pod="pod-1", namespace="default") as served,
        served.client.post(served.url + "/v1/completions", json={"prompt": "Hi"}) as response,
    ):
        assert response.headers["x-inference-pod"] == "pod-1"


async def test_a_full_queue_is_503_in_vllms_words(serving: Serving) -> None:
    async with serving(capacity={"max_queued_requests": 2}) as served:
        body = {"prompt": "Hi", "max_tokens": 50, "ignore_eos": True}
        answers = await asyncio.gather(*(served.post("/v1/completions", body) for _ in range(6)))
        assert sorted(status for status, _ in answers) == [200] * 2 + [503] * 4
        refused = next(answer for status, answer in answers if status == 503)
        assert refused["error"]["type"] == "Service Unavailable"
        assert refused["error"]["code"] == 503
        text = served.replica.metrics_text().decode()
        assert (
            'vllm:admission_rejections_total{model_name="tiny",reason="max_num_queued_reqs"} 4.0'
            in text
        )


async def test_an_api_key_is_asked_for_where_one_is_set(serving: Serving) -> None:
    async with serving(api_keys=("secret",)) as served:
        body = {"prompt": "Hi"}
        refused = (401, {"error": "Unauthorized"})
        assert await served.post("/v1/completions", body) == refused
        assert await served.get("/v1/models") == refused
        status, _ = await served.post("/v1/completions", body, Authorization="Bearer secret")
        assert status == 200
        assert (await served.get("/health"))[0] == 200


async def test_a_request_id_becomes_part_of_the_answers_id(serving: Serving) -> None:
    async with (
        serving(echoes_request_id=True) as served,
        served.client.post(
            served.url + "/v1/completions", json={"prompt": "Hi"}, headers={"X-Request-Id": "r1"}
        ) as response,
    ):
        assert (await response.json())["id"] == "cmpl-r1"
        assert response.headers["X-Request-Id"] == "r1"


async def test_echo_mode_says_the_users_words(serving: Serving) -> None:
    async with serving(echoes=True) as served:
        _, answer = await served.post("/v1/chat/completions", {"messages": CHAT})
        assert answer["choices"][0]["message"]["content"] == CHAT[0]["content"]


async def test_a_server_that_names_itself_says_which_adapter_answers(serving: Serving) -> None:
    async with serving(names_itself=True) as served:
        _, answer = await served.post("/v1/chat/completions", {"model": "lora-b", "messages": CHAT})
        assert "lora-b" in answer["choices"][0]["message"]["content"]


async def test_requests_that_arrive_together_share_steps(serving: Serving) -> None:
    async with serving(capacity={"max_num_seqs": 16}) as served:
        body = {"prompt": "Hi", "max_tokens": 30, "ignore_eos": True}
        engine = served.replica.driver.engine
        most = 0

        def note(result: Any) -> None:
            nonlocal most
            most = max(most, len(result.batch.shares))

        served.replica.step_listeners.append(note)
        await asyncio.gather(*(served.post("/v1/completions", body) for _ in range(8)))
        assert most > 4
        assert engine.is_idle
