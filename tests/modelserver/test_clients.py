"""The official client libraries, as they are, against the server."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from tests.modelserver.conftest import Served

WEATHER: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


@pytest.fixture
async def client(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{served.url}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def claude(served: Served) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=served.url, api_key="none", max_retries=0
    ) as client:
        yield client


async def test_openai_lists_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["tiny", "lora-a", "lora-b"]


async def test_openai_completions(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(
        model="lora-a",
        prompt=[1, 2, 3],
        max_tokens=4,
        n=2,
        logprobs=2,
        extra_body={"ignore_eos": True},
    )
    assert answer.model == "lora-a"
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert answer.choices[0].logprobs is not None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8


async def test_openai_chat_plain_and_streamed(client: openai.AsyncOpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
    plain = await client.chat.completions.create(model="tiny", messages=messages, seed=1)
    text = ""
    usage = None
    stream = await client.chat.completions.create(
        model="tiny",
        messages=messages,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        usage = chunk.usage or usage
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    assert text == plain.choices[0].message.content
    assert usage is not None
    assert plain.usage is not None
    assert usage.completion_tokens == plain.usage.completion_tokens


async def test_openai_tool_calls_streamed(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(
        model="tiny",
        messages=[{"role": "user", "content": "go"}],
        tools=[
            {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}},
        ],
        tool_choice="required",
    ) as stream:
        final = await stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"]


async def test_openai_structured_output(client: openai.AsyncOpenAI) -> None:
    class Station(BaseModel):
        name: str
        platforms: int

    answer = await client.chat.completions.parse(
        model="tiny", messages=[{"role": "user", "content": "go"}], response_format=Station
    )
    assert isinstance(answer.choices[0].message.parsed, Station)


async def test_openai_errors_have_their_classes(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await client.completions.create(model="nope", prompt="x")
    assert "does not exist" in missing.value.message
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model="tiny", prompt="x", max_tokens=10**6)


async def test_openai_embeddings_in_both_encodings(client: openai.AsyncOpenAI) -> None:
    # The client asks for base64 unless told otherwise, and decodes it.
    decoded = await client.embeddings.create(model="tiny", input=["one", "two"])
    plain = await client.embeddings.create(
        model="tiny", input=["one", "two"], encoding_format="float"
    )
    assert len(decoded.data) == 2
    assert decoded.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    raw = await client.embeddings.create(model="tiny", input="one", encoding_format="base64")
    data = raw.data[0].embedding
    if isinstance(data, str):
        assert len(struct.unpack("384f", base64.b64decode(data))) == 384


async def test_openai_responses_plain_and_streamed(client: openai.AsyncOpenAI) -> None:
    plain = await client.responses.create(model="lora-b", input="Hello", temperature=0)
    assert plain.status == "completed"
    assert plain.model == "lora-b"
    assert plain.output_text
    assert plain.usage is not None
    async with client.responses.stream(model="lora-b", input="Hello", temperature=0) as stream:
        deltas = [
            event.delta async for event in stream if event.type == "response.output_text.delta"
        ]
        final = await stream.get_final_response()
    assert "".join(deltas) == plain.output_text == final.output_text


async def test_openai_responses_call_functions(client: openai.AsyncOpenAI) -> None:
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}
    async with client.responses.stream(
        model="tiny",
        input="get weather please",
        tools=[tool],  # type: ignore[list-item]
    ) as stream:
        final = await stream.get_final_response()
    [item] = final.output
    assert item.type == "function_call"
    assert json.loads(item.arguments)["city"]


async def test_openai_responses_cut_short_are_incomplete(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.create(
        model="tiny", input="Hello", max_output_tokens=3, extra_body={"ignore_eos": True}
    )
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


async def test_anthropic_messages_plain_and_streamed(claude: anthropic.AsyncAnthropic) -> None:
    plain = await claude.messages.create(
        model="lora-a",
        max_tokens=200,
        extra_body={"temperature": 0},
        system="Be brief.",
        messages=[{"role": "user", "content": "Hello"}],
    )
    assert plain.model == "lora-a"
    assert plain.stop_reason == "end_turn"
    [block] = plain.content
    assert block.type == "text"
    async with claude.messages.stream(
        model="lora-a",
        max_tokens=200,
        extra_body={"temperature": 0},
        system="Be brief.",
        messages=[{"role": "user", "content": "Hello"}],
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == block.text
    assert final.usage.output_tokens == plain.usage.output_tokens


async def test_anthropic_tools_and_limits(claude: anthropic.AsyncAnthropic) -> None:
    async with claude.messages.stream(
        model="tiny",
        max_tokens=100,
        messages=[{"role": "user", "content": "hello"}],
        tools=[{"name": "get_weather", "input_schema": WEATHER}],
        tool_choice={"type": "any"},
    ) as stream:
        final = await stream.get_final_message()
    assert final.stop_reason == "tool_use"
    [block] = final.content
    assert block.type == "tool_use"
    assert isinstance(block.input, dict)
    assert block.input["city"]
    cut = await claude.messages.create(
        model="tiny", max_tokens=1, messages=[{"role": "user", "content": "hello"}]
    )
    assert cut.stop_reason == "max_tokens"


async def test_anthropic_counts_tokens_and_names_errors(claude: anthropic.AsyncAnthropic) -> None:
    count = await claude.messages.count_tokens(
        model="tiny", messages=[{"role": "user", "content": "Hello"}]
    )
    assert count.input_tokens > 0
    with pytest.raises(anthropic.NotFoundError) as missing:
        await claude.messages.create(
            model="nope", max_tokens=5, messages=[{"role": "user", "content": "Hello"}]
        )
    assert missing.value.body == {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "The model `nope` does not exist. Valid aliases: tiny.",
        },
    }
