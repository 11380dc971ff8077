"""Objectives and rewrites as requests meet them, and whose word on an objective counts."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from pointsman.inference.headers import MODEL_NAME_REWRITE_NAMES, OBJECTIVE_NAMES
from pointsman.picker.decisions import Decision
from pointsman.picker.director import Trust
from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.settings.flags import parse
from pointsman.picker.settings.options import Options
from pointsman.resources.base import Resource
from tests.picker.conftest import PROCESS, Running, model, resource, until

OURS = (("x-pointsman-pool", "default/pool"),)
TRUSTED = (*OURS, ("x-pointsman-trust-objective", "true"))


def objective(name: str, priority: int) -> Resource:
    return resource(
        apiVersion="llm-d.ai/v1alpha2",
        kind="InferenceObjective",
        metadata={"name": name, "namespace": "default"},
        spec={"priority": priority, "poolRef": {"name": "pool"}},
    )


def rewrite(name: str, becomes: str) -> Resource:
    return resource(
        apiVersion="llm-d.ai/v1alpha2",
        kind="InferenceModelRewrite",
        metadata={"name": name, "namespace": "default"},
        spec={
            "poolRef": {"name": "pool"},
            "rules": [
                {"matches": [{"model": {"value": name}}], "targets": [{"modelRewrite": becomes}]}
            ],
        },
    )


async def ask(running: Running, metadata: Any, model_name: str = "m", **headers: str) -> Any:
    """One buffered request; the answer to its body."""
    process = running.channel.stream_stream(
        PROCESS,
        request_serializer=pb.ProcessingRequest.SerializeToString,
        response_deserializer=pb.ProcessingResponse.FromString,
    )
    stream = process(metadata=metadata, timeout=10)
    head = pb.ProcessingRequest()
    head.protocol_config.request_body_mode = 2
    for name, value in {":method": "POST", ":path": "/v1/completions", **headers}.items():
        head.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    await stream.write(head)
    await stream.read()
    data = json.dumps({"model": model_name, "prompt": "hi"}).encode()
    await stream.write(
        pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=True))
    )
    answer = await stream.read()
    stream.cancel()
    return answer


def last(running: Running) -> Decision:
    return list(running.picker.director.ring)[-1]


async def know(running: Running, *objects: Resource) -> None:
    running.store.apply(objects)
    view = running.picker.pools.all()[0]
    await until(lambda: running.picker.pools.all()[0] is not view)


@pytest.mark.parametrize("header", OBJECTIVE_NAMES)
async def test_our_gateways_clients_are_believed_only_where_the_route_says_so(
    running: Running, header: str
) -> None:
    await know(running, objective("high", 7))
    for metadata, priority in ((OURS, 0), (TRUSTED, 7)):
        answer = await ask(running, metadata, **{header: "high"})
        assert last(running).wanted.priority == priority
        removed = answer.request_body.response.header_mutation.remove_headers
        assert header in removed


async def test_an_objective_that_nobody_wrote_leaves_the_models_priority(running: Running) -> None:
    await know(running, model("m", "Critical"), objective("o", -3))
    for name, priority in (("o", -3), ("unknown", 1)):
        await ask(running, TRUSTED, **{OBJECTIVE_NAMES[0]: name})
        assert last(running).wanted.priority == priority


@pytest.mark.parametrize(("flags", "priority"), [([], 7), (["--trust-objective-header=false"], 0)])
async def test_foreign_gateways_are_believed_unless_the_flag_says_no(
    running: Running, flags: list[str], priority: int
) -> None:
    await know(running, objective("high", 7))
    service = running.picker.ext_proc
    service._default_pool = "default/pool"
    service._foreign_trust = Trust(objective=parse(flags).trust_objective_header)
    await ask(running, (), **{OBJECTIVE_NAMES[0]: "high"})
    assert last(running).wanted.priority == priority


def test_the_flag_behaves_as_the_reference_by_default() -> None:
    assert Options().trust_objective_header


async def test_under_saturation_only_negative_objectives_give_way(running: Running) -> None:
    await know(running, objective("low", -1), objective("mid", 0), objective("high", 1))
    running.picker.scraper.change([], list(running.picker.table))
    for endpoint in running.picker.table:
        endpoint.measures = Measures(time.monotonic(), waiting=9)
    status = {}
    for name in ("low", "mid", "high", "none"):
        answer = await ask(running, TRUSTED, **{OBJECTIVE_NAMES[0]: name})
        status[name] = answer.immediate_response.status.code
    assert status == {"low": 429, "mid": 0, "high": 0, "none": 0}


async def test_a_rewrite_splices_the_name_and_lets_others_pass(running: Running) -> None:
    await know(running, rewrite("m", "m-lora"))
    answer = await ask(running, OURS)
    changed = answer.request_body.response.body_mutation.body
    assert json.loads(changed) == {"model": "m-lora", "prompt": "hi"}
    answer = await ask(running, OURS, "other")
    assert not answer.request_body.response.HasField("body_mutation")


@pytest.mark.parametrize("header", MODEL_NAME_REWRITE_NAMES)
async def test_a_model_that_a_believed_header_names_is_asked_for_in_place_of_the_bodys(
    running: Running, header: str
) -> None:
    await know(running, rewrite("mine", "mine-lora"))
    expected = {
        (OURS, "mine"): "m",
        (TRUSTED, "mine"): "mine-lora",
        (TRUSTED, "other"): "other",
    }
    for (metadata, name), target in expected.items():
        answer = await ask(running, metadata, **{header: name})
        assert (last(running).model, last(running).wanted.model) == ("m", target)
        common = answer.request_body.response
        assert header in common.header_mutation.remove_headers
        body = common.body_mutation.body or b'{"model": "m", "prompt": "hi"}'
        assert json.loads(body)["model"] == target
