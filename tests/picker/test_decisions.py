"""What is remembered of decisions, and to whom it is told."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.picker.decisions import MAX_TOLD_BYTES, Decision
from pointsman.picker.director import Trust
from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.endpoints.table import Seen
from pointsman.picker.scheduling.profile import DEFAULT
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.settings.flags import parse
from tests.picker.conftest import Running
from tests.picker.test_process import body, chat, headers, mutations


def decision(count: int = 3, model: str = "m", **changes: Any) -> Decision:
    seen = tuple(
        Seen(f"10.0.{n // 250}.{n % 250}:8000", Measures(0.0, waiting=n, kv_cache=0.1), n, 0)
        for n in range(count)
    )
    facts: dict[str, Any] = {
        "at": 0.0,
        "pool": "default/pool",
        "request_id": "r",
        "api": "chat",
        "model": model,
        "wanted": Wanted(model),
        "candidates": seen,
        "candidates_total": count,
        "endpoints": tuple(each.address for each in seen[:1]),
        "status": 0,
        "reason": "",
        "duration_us": 81.6,
    }
    return Decision(**facts | changes)


def test_a_decision_is_told_with_its_reasons() -> None:
    told = json.loads(decision().told(DEFAULT))
    assert (told["endpoint"], told["candidates"], told["us"]) == ("10.0.0.0:8000", 3, 82)
    assert list(told["totals"]) == ["10.0.0.0:8000", "10.0.0.1:8000", "10.0.0.2:8000"]
    assert told["scores"]["10.0.0.1:8000"]["queue-scorer"] == 0.5
    assert told["weights"]["active-request-scorer"] == 3
    assert told["dropped"]["lora-affinity-filter"] == []


@pytest.mark.parametrize("count", [1, 9, 64])
@pytest.mark.parametrize("model", ["m", "\U0001f600" * 1_024, 'a"\r\nx-evil: 1'])
def test_what_is_told_fits_into_a_header(count: int, model: str) -> None:
    text = decision(count, model).told(DEFAULT)
    assert len(text) <= MAX_TOLD_BYTES
    assert text.isascii()
    assert text.isprintable()
    told = json.loads(text)
    assert (told["endpoint"], told["candidates"]) == ("10.0.0.0:8000", count)


def test_an_error_is_told_with_its_reason() -> None:
    told = json.loads(decision(0, endpoints=(), status=503, reason="no_endpoint").told(DEFAULT))
    assert (told["status"], told["reason"]) == (503, "no_endpoint")
    assert "endpoint" not in told


@pytest.mark.parametrize(
    ("flags", "asked", "is_told"),
    [
        (["--trust-debug-header"], "true", True),
        (["--trust-debug-header"], "no", False),
        ([], "true", False),
    ],
)
async def test_foreign_gateways_add_it_to_the_answer_where_the_flag_says_so(
    running: Running, flags: list[str], asked: str, is_told: bool
) -> None:
    service = running.picker.ext_proc
    service._default_pool = "default/pool"
    service._foreign_trust = Trust(debug=parse(flags).trust_debug_header)
    stream = running.stream(None)
    await stream.write(headers(mode=4, x_pointsman_debug=asked))
    await stream.write(body(chat()))
    picked = (await stream.read()).request_headers.response
    assert "x-pointsman-debug" in picked.header_mutation.remove_headers
    await stream.read()
    response = pb.ProcessingRequest(response_headers=pb.HttpHeaders())
    await stream.write(response)
    set_headers = mutations((await stream.read()).response_headers.response)
    assert ("x-pointsman-decision" in set_headers) == is_told
    if is_told:
        told = json.loads(set_headers["x-pointsman-decision"])
        assert told["endpoint"] == mutations(picked)["x-gateway-destination-endpoint"]
    stream.cancel()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["a", "b", "c"]),
        ("?limit=1", ["c"]),
        ("?limit=0", []),
        ("?request_id=b", ["b"]),
        ("?model=m", ["a", "b"]),
        ("?model=m-lora", ["b"]),
        ("?endpoint=10.0.0.0:8000", ["a", "c"]),
        ("?endpoint=10.0.0.9", ["b"]),
        ("?pool=default/pool&model=m&limit=1", ["b"]),
        ("?pool=default/other", []),
        ("?endpoints=x", "'endpoints' is none of"),
        ("?limit=many", "limit: 'many' is no number"),
    ],
)
async def test_decisions_are_narrowed_where_they_are_kept(
    running: Running, query: str, found: list[str] | str
) -> None:
    ring = running.picker.director.ring
    ring.add(decision(request_id="a"))
    ring.add(decision(request_id="b", wanted=Wanted("m-lora"), endpoints=("10.0.0.9:8000",)))
    ring.add(decision(request_id="c", model="other", wanted=Wanted("other")))
    path = running.picker.options.admin_socket
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get(f"http://a/decisions{query}") as response,
    ):
        if isinstance(found, str):
            assert response.status == 400
            assert found in await response.text()
        else:
            assert [each["request_id"] for each in await response.json()] == found


async def test_headers_that_are_no_text_break_no_record_and_no_answer(running: Running) -> None:
    service = running.picker.ext_proc
    service._default_pool = "default/pool"
    service._foreign_trust = Trust(objective=True, debug=True)
    for name in ("x-request-id", "x-gateway-model-name-rewrite", "x-gateway-inference-objective"):
        message = headers(mode=4, x_pointsman_debug="true")
        message.request_headers.headers.headers.add(key=name, raw_value=b"\xff\xed\xa0\x80")
        stream = running.stream(None)
        await stream.write(message)
        await stream.write(body(chat()))
        assert (await stream.read()).HasField("request_headers")
        sent = (await stream.read()).request_body.response.body_mutation.streamed_response.body
        assert json.loads(sent)["messages"]
        stream.cancel()
    path = running.picker.options.admin_socket
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://a/decisions") as response,
    ):
        assert len(await response.json()) == 3
