"""The three variants of the guide, with no byte changed. They are other people's files and stand
beside the checkout where they are there at all."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instances import Instance, eventually, running

GUIDE = Path(__file__).parents[3] / "shared" / "guide"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not GUIDE.is_dir(), reason="the guide's files are not beside the checkout"),
]

CURL = {
    "model": "tweet-summary",
    "prompt": "Write as if you were a critic: San Francisco",
    "max_tokens": 100,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def eg() -> Iterator[Instance]:
    with running(GUIDE / "eg", ports=(8080, 8081)) as instance:
        yield instance


def test_the_guides_curl_is_answered_by_the_adapter(eg: Instance) -> None:
    answer = eg.request(8081, "POST", "/v1/completions", CURL)
    assert (answer.status, answer.json["model"]) == (200, "tweet-summary-1")


def test_the_listener_without_routes_answers_404(eg: Instance) -> None:
    assert eg.request(8080, "GET", "/").status == 404


def test_the_gateways_address_is_printed(eg: Instance) -> None:
    path = "jsonpath={.status.addresses[0].value}"
    assert eg.cli("get", "gtw", "inference-gateway", "-o", path) == "127.0.0.1"


def test_every_object_is_accepted_and_every_patch_applied(eg: Instance) -> None:
    patches = eg.object("envoypatchpolicy", "custom-response-patch-policy")
    conditions = patches["status"]["ancestors"][0]["conditions"]
    assert [(item["type"], item["status"]) for item in conditions] == [
        ("Accepted", "True"),
        ("Programmed", "True"),
    ]
    status = eg.cli("status")
    assert "NACKED" not in status
    assert not re.findall(r"\bFalse\b|\bUnknown\b", status)


def test_answers_are_streamed(eg: Instance) -> None:
    answer = eg.request(8081, "POST", "/v1/completions", {**CURL, "stream": True})
    chunks = [line for line in answer.body.split(b"\n\n") if line]
    assert chunks[-1] == b"data: [DONE]"
    assert json.loads(chunks[0].removeprefix(b"data: "))["model"] == "tweet-summary-1"


def test_a_body_far_above_the_buffers_of_the_guide_passes(eg: Instance) -> None:
    answer = eg.request(8081, "POST", "/v1/completions", {**CURL, "prompt": "word " * 400})
    assert answer.status == 200
    too_long = eg.request(8081, "POST", "/v1/completions", {**CURL, "prompt": "word " * 200_000})
    assert too_long.status == 400
    assert too_long.json["error"]["message"]


def test_a_client_cannot_name_its_own_destination(eg: Instance) -> None:
    header = {"x-gateway-destination-endpoint": "127.0.0.1:1"}
    answer = eg.request(8081, "POST", "/v1/completions", CURL, header)
    assert (answer.status, answer.json["model"]) == (200, "tweet-summary-1")
    assert eg.request(8081, "GET", "/v1/models", headers=header).status == 200


def test_an_unknown_model_and_a_bad_body_are_answered_in_the_apis_language(eg: Instance) -> None:
    unknown = eg.complete(8081, "nobody")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    broken = eg.request(8081, "POST", "/v1/completions", b'{"model": ')
    assert (broken.status, broken.json["error"]["type"]) == (400, "invalid_request_error")
    nameless = eg.request(8081, "POST", "/v1/completions", {"prompt": "x"})
    assert (nameless.status, nameless.json["error"]["param"]) == (400, "model")


def test_the_buffered_mode_works_too(tmp_path: Path) -> None:
    shutil.copytree(GUIDE / "eg", tmp_path / "eg")
    path = tmp_path / "eg" / "patch-policy.yaml"
    path.chmod(0o644)
    text = path.read_text()
    path.write_text(text[: text.index("# Comment the below to disable full duplex streaming")])
    with running(tmp_path / "eg", ports=(8080, 8081)) as instance:
        answer = instance.request(8081, "POST", "/v1/completions", CURL)
        assert (answer.status, answer.json["model"]) == (200, "tweet-summary-1")
        large = {**CURL, "user": "u" * 300_000}
        answer = instance.request(8081, "POST", "/v1/completions", large)
        assert (answer.status, answer.json["model"]) == (200, "tweet-summary-1")


def test_a_picker_that_the_policy_names_and_the_files_lack_is_provided(tmp_path: Path) -> None:
    shutil.copytree(GUIDE / "eg", tmp_path / "eg")
    brought = tmp_path / "eg" / "inference-extension.yaml"
    brought.unlink()
    with running(tmp_path / "eg", ports=(8080, 8081)) as instance:
        answer = instance.request(8081, "POST", "/v1/completions", CURL)
        assert (answer.status, answer.json["model"]) == (200, "tweet-summary-1")
        policy = instance.object("envoyextensionpolicy", "ext-proc-policy")
        accepted = policy["status"]["ancestors"][0]["conditions"][0]
        assert accepted["status"] == "True"
        assert "Service default/vllm-llama2-7b-epp is not defined" in accepted["message"]
        assert "Pointsman provides the endpoint picker" in accepted["message"]
        shutil.copy(GUIDE / "eg" / "inference-extension.yaml", brought)
        eventually(lambda: instance.said("+ Service default/vllm-llama2-7b-epp"), 5)
        eventually(lambda: "app" in _selector(instance))
        eventually(lambda: len(instance.pids("pointsman picker")) == 1)
        eventually(
            lambda: instance.request(8081, "POST", "/v1/completions", CURL).status == 200, 10
        )


def _selector(instance: Instance) -> dict[str, str]:
    found: dict[str, str] = instance.object("service", "vllm-llama2-7b-epp")["spec"]["selector"]
    return found


def test_a_route_straight_to_a_pool_works_without_class_and_picker() -> None:
    with running(GUIDE / "kgateway", ports=(8080, 8081)) as instance:
        answer = instance.request(8081, "POST", "/v1/completions", CURL)
        assert (answer.status, answer.json["model"]) == (200, "tweet-summary-1")
        assert instance.request(8080, "GET", "/").status == 404
        pool = instance.object("inferencepools.inference.networking.x-k8s.io", "qwen-pool")
        resolved = pool["status"]["parent"][0]["conditions"][1]
        assert (resolved["type"], resolved["status"]) == ("ResolvedRefs", "True")
        assert "Pointsman provides the endpoint picker" in resolved["message"]


def test_changed_weights_change_the_split(tmp_path: Path) -> None:
    folder = tmp_path / "fakellm"
    shutil.copytree(GUIDE / "fakellm", folder)
    with running(folder, ports=(80,)) as instance:
        assert instance.complete(80, "fake-llm").json["model"] == "fake-llm-lora-a"
        path = folder / "inferencemodel.yaml"
        path.chmod(0o644)
        more = "\n  - name: fake-llm-lora-b\n    weight: 30\n"
        path.write_text(path.read_text().replace("weight: 100", "weight: 70").rstrip() + more)
        eventually(lambda: instance.complete(80, "fake-llm").json["model"] == "fake-llm-lora-b")
        counts = Counter(instance.complete(80, "fake-llm").json["model"] for _ in range(400))
        expected = {"fake-llm-lora-a": 280.0, "fake-llm-lora-b": 120.0}
        assert counts.keys() == expected.keys()
        chi_squared = sum((counts[name] - n) ** 2 / n for name, n in expected.items())
        # One degree of freedom: beyond 15.1 lies one fair split in ten thousand.
        assert chi_squared < 15.1
