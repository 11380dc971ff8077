"""Sessions stay on their server, by an id of the client's or by a token of ours."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.picker.config import ConfigError, PickerConfig, read_config
from pointsman.picker.endpoints.table import Seen
from pointsman.picker.scheduling.request import Wanted, attribute_header
from pointsman.picker.scheduling.sessions import EncodedEndpoint, SessionAffinity, token_of
from tests.picker.conftest import Running
from tests.picker.test_process import body, chat, headers, mutations

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
SERVERS = [Seen(name, None, 0, 0, name=f"default/{name}-rank-0") for name in "abc"]


def plugins(text: str) -> PickerConfig:
    return read_config(f"{HEAD}plugins: [{text}]")


def test_sessions_stay_until_they_are_forgotten() -> None:
    now = 0.0
    memory = SessionAffinity(lambda: now, ("x-first", "x-session-id"), 300)
    mine = Wanted(headers={"x-session-id": "s"})
    assert memory.keep(SERVERS, mine) == SERVERS
    memory.picked("b", mine)
    assert memory.score(SERVERS, mine) == [0, 1, 0]
    assert memory.keep(SERVERS, mine) == SERVERS[1:2]
    assert memory.keep(SERVERS[:1], mine) == SERVERS[:1]
    assert memory.score(SERVERS, Wanted(headers={"x-session-id": "t"})) == [0, 0, 0]
    both = Wanted(headers={"x-first": "s", "x-session-id": "t"})
    assert memory.score(SERVERS, both) == [0, 1, 0]
    now = 301.0
    assert memory.score(SERVERS, mine) == [0, 0, 0]


@pytest.mark.parametrize(
    ("token", "kept"),
    [
        (token_of("default/b-rank-0"), "b"),
        (token_of("default/gone-rank-0"), "abc"),
        (token_of(""), "abc"),
        ("", "abc"),
        ("no base64!", "abc"),
        ("/////w==", "abc"),
    ],
)
def test_a_token_leads_back_to_its_server(token: str, kept: str) -> None:
    plugin = EncodedEndpoint()
    wanted = Wanted(headers={"x-session-token": token})
    assert [each.address for each in plugin.keep(SERVERS, wanted)] == list(kept)
    scores = plugin.score(SERVERS, wanted)
    assert scores == ([0, 1, 0] if kept == "b" else [0, 0, 0])


def test_a_session_may_be_an_agents_or_a_cookies() -> None:
    config = plugins(
        "{type: agent-identity, parameters: {additionalSessionHeaders: [X-Mine]}},"
        "{type: session-id-producer, parameters: {cookieName: chat}},"
        "{type: session-affinity-scorer, parameters: {strategy: session_id, sessionIdConfig: "
        "{sources: [{header: X-Session-Id}, {attribute: agent-identity},"
        " {attribute: session-id}]}}}"
    )
    found = {each.header: each.read for each in config.attributes}
    agent, cookie = found[attribute_header("agent-identity")], found[attribute_header("session-id")]
    assert agent({"session-id": "codex", "x-mine": "first"}) == "first"
    assert agent({"session_id": "old"}) == "old"
    assert cookie({"cookie": 'a=1; chat="7"; b=2'}) == "7"
    assert (agent({}), cookie({})) == ("", "")
    (profile,) = config.profiles.values()
    (memory,) = profile.listeners
    memory.picked("c", Wanted(headers={attribute_header("agent-identity"): "s"}))
    mine = Wanted(headers={attribute_header("session-id"): "s"})
    assert profile.scorers[0].score(SERVERS, mine) == [0, 0, 1]


@pytest.mark.parametrize(
    "parameters",
    [
        "{strategy: cookie}",
        "{sessionIdConfig: {sources: []}}",
        "{sessionIdConfig: {sources: [{header: a, attribute: agent-identity}]}}",
        "{sessionIdConfig: {sources: [{attribute: other}]}}",
        "{encodedEndpointHeaderConfig: {header: 'a b'}}",
        "{profileName: prefill}",
    ],
)
def test_what_makes_no_session_is_refused(parameters: str) -> None:
    with pytest.raises(ConfigError, match=r"plugins\[0\].parameters"):
        plugins(f"{{type: session-affinity-filter, parameters: {parameters}}}")


async def picked(running: Running, pool: str | None, **more: Any) -> tuple[Any, str, Any]:
    """The pick's headers, the answer to the request's headers, and that to the response's."""
    mode = 2 if pool else 4
    stream = running.stream(pool)
    await stream.write(headers(mode=mode, **more))
    first = await stream.read() if pool else None
    await stream.write(body(chat()))
    answer = await stream.read()
    common = (answer.request_body if pool else answer.request_headers).response
    if not pool:
        await stream.read()
    await stream.write(pb.ProcessingRequest(response_headers=pb.HttpHeaders()))
    response = (await stream.read()).response_headers.response
    stream.cancel()
    return first, mutations(common)["x-gateway-destination-endpoint"], mutations(response)


@pytest.mark.parametrize("pool", ["default/pool", None])
async def test_a_client_that_sends_its_token_back_comes_to_the_same_server(
    running: Running, pool: str | None
) -> None:
    service = running.picker.ext_proc
    service._default_pool = "default/pool"
    running.picker.director.config = plugins(
        "{type: session-affinity-filter}, {type: random-picker}"
    )
    first, destination, response = await picked(running, pool)
    token = response["x-session-token"]
    if pool is not None:
        assert first.mode_override.response_header_mode == 1
    for _ in range(5):
        _, again, response = await picked(running, pool, x_session_token=token)
        assert (again, response["x-session-token"]) == (destination, token)
