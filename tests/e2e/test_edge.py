"""What clients get where the gateway answers itself, and what is written of each request."""

from __future__ import annotations

import json
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any

import pytest

from pointsman.cli.run import access_log_of, example_path
from pointsman.gateway.listeners.access_logs import JSON_ON_STDOUT, TEXT_ON_STDOUT, AccessLog
from tests.conformance.stage import backend, pool
from tests.e2e.foreign_picker import pod
from tests.e2e.instances import Instance, eventually, running
from tests.ports import free_port

pytestmark = pytest.mark.e2e

EXAMPLE = 8080
PLAIN = 9290
MODELS = 9291
LIMITED = 9292
OVER_THE_LIMIT = 51 * 1024 * 1024
EXTENSIONS = "type.googleapis.com/envoy.extensions"
NAMES = ("nobody", "dead", "silent", "not-there")

RATE_LIMIT = f"{EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit"
SWITCHES = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: envoy-gateway-config, namespace: envoy-gateway-system}
data:
  envoy-gateway.yaml: |
    apiVersion: gateway.envoyproxy.io/v1alpha1
    kind: EnvoyGateway
    gateway: {controllerName: pointsman.dev/gateway-controller}
    extensionApis: {enableEnvoyPatchPolicy: true}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {name: limit}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: limited}
  type: JSONPatch
  jsonPatches:
    - type: type.googleapis.com/envoy.config.listener.v3.Listener
      name: default/limited/http
      operation:
        op: add
        path: /default_filter_chain/filters/0/typed_config/http_filters/0
        value:
          name: envoy.filters.http.local_ratelimit
          typed_config:
            "@type": TYPE
            stat_prefix: limit
            token_bucket: {max_tokens: 1, fill_interval: 3600s}
            filter_enabled: {default_value: {numerator: 100}}
            filter_enforced: {default_value: {numerator: 100}}
""".replace("TYPE", RATE_LIMIT)


def gate(name: str, port: int, backends: dict[str, dict[str, Any]]) -> str:
    """A Gateway and a route with a path for each backend."""
    rules = [
        {
            "matches": [{"path": {"type": "PathPrefix", "value": f"/{path}"}}],
            "backendRefs": [ref],
            **({"timeouts": {"request": "50ms"}} if path == "silent" else {}),
        }
        for path, ref in backends.items()
    ]
    listener = {"name": "http", "protocol": "HTTP", "port": port}
    objects = [
        {"kind": "Gateway", "spec": {"gatewayClassName": "pointsman", "listeners": [listener]}},
        {"kind": "HTTPRoute", "spec": {"parentRefs": [{"name": name}], "rules": rules}},
    ]
    return "".join(
        "\n---\n"
        + json.dumps(
            {"apiVersion": "gateway.networking.k8s.io/v1", "metadata": {"name": name}, **item}
        )
        for item in objects
    )


def service(name: str) -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 3000}}]}}
"""


@dataclass
class Edge:
    """An instance, and its standard output."""

    instance: Instance
    stdout: IO[str]

    def written(self) -> list[dict[str, Any]]:
        """The access log so far."""
        text = Path(self.stdout.name).read_text()
        return [json.loads(line) for line in text.splitlines()]

    def entry(self, user_agent: str) -> dict[str, Any]:
        """The line of the request with that header."""
        return eventually(
            lambda: next((item for item in self.written() if item["user-agent"] == user_agent), {})
        )


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("edge") / "m"
    shutil.copytree(example_path(), folder)
    pools = {name: backend(name) for name in NAMES}
    services = {name: {"name": name, "port": 80} for name in NAMES}
    with socket.socket() as silent, tempfile.NamedTemporaryFile("w+") as stdout:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        parts = [SWITCHES, gate("plain", PLAIN, services), gate("models", MODELS, pools)]
        parts.append(gate("limited", LIMITED, {"": backend("llama")}))
        for name, port in (("dead", free_port()), ("silent", silent.getsockname()[1])):
            parts.append(pod(f"{name}-0", name, "127.0.0.1", {3000: port}))
        for name in NAMES[:-1]:
            parts += [service(name), pool(name, name, picker=None)]
        (folder / "more.yaml").write_text("".join(parts))
        ports = (EXAMPLE, PLAIN, MODELS, LIMITED)
        with running(folder, ports=ports, access_log="json", stdout=stdout) as instance:
            yield Edge(instance, stdout)


BODY = {"model": "m", "prompt": "x"}
REPLIES = [
    ("/", BODY, 404, "route_not_found", ""),
    ("/dead", b"x" * OVER_THE_LIMIT, 413, "request_too_large", ""),
    ("/not-there", BODY, 500, "internal", "direct_response"),
    ("/nobody", BODY, 503, "no_endpoint", "default/nobody"),
    ("/dead", BODY, 503, "unavailable", "Connection_refused"),
    ("/silent", BODY, 504, "timeout", "response_timeout"),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "words"), REPLIES, ids=[str(row[2:4]) for row in REPLIES]
)
def test_errors_in_front_of_models_are_json_with_a_reason(
    edge: Edge, path: str, body: Any, status: int, code: str, words: str
) -> None:
    answer = edge.instance.request(MODELS, "POST", path, body)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    error = answer.json["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert {"message", "type", "param", "code"} == set(error)


@pytest.mark.parametrize(
    ("path", "status"), [("/", 404), ("/not-there", 500), ("/nobody", 503), ("/silent", 504)]
)
def test_elsewhere_errors_are_plain(edge: Edge, path: str, status: int) -> None:
    answer = edge.instance.request(PLAIN, "POST", path, BODY)
    assert answer.status == status
    assert b"{" not in answer.body


def test_a_limit_of_requests_is_told_in_json(edge: Edge) -> None:
    answers = [edge.instance.complete(LIMITED, "support") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 429]
    assert answers[1].json["error"]["code"] == "rate_limited"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/completions", {"prompt": "Say it."}),
        ("/v1/completions", {"prompt": "Say it.", "stream_options": {"include_usage": True}}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Say it."}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "Say it."}], "stream": True}),
        ("/v1/responses", {"input": "Say it.", "stream": True}),
    ],
    ids=["completion", "stream", "message", "message stream", "response stream"],
)
def test_a_request_to_a_pool_is_written_with_its_model_and_tokens(
    edge: Edge, path: str, more: dict[str, Any]
) -> None:
    limit = "max_output_tokens" if "input" in more else "max_tokens"
    stream = {"stream": True} if "stream_options" in more else {}
    body = {"model": "support", limit: 3, **more, **stream}
    marks = {"authorization": "Bearer sesame", "user-agent": f"test of {path} {more}"}
    answer = edge.instance.request(EXAMPLE, "POST", f"{path}?key=sesame", body, marks)
    assert answer.status == 200
    mine = edge.entry(marks["user-agent"])
    assert mine["x-envoy-origin-path"] == path
    assert (mine["model"], mine["pool"], mine["method"]) == ("support", "default/llama", "POST")
    assert mine["endpoint"] == mine["upstream_host"]
    assert mine["completion_tokens"] == 3
    assert mine["prompt_tokens"] > 0
    assert mine["ttft_ms"] is not None
    assert "sesame" not in Path(edge.stdout.name).read_text()


def test_the_picker_counts_the_tokens_that_answers_tell(edge: Edge) -> None:
    stream = {"stream": True}
    assert edge.instance.complete(EXAMPLE, "support").status == 200
    assert edge.instance.complete(EXAMPLE, "support", **stream).status == 200

    def metrics() -> str:
        connection = HTTPConnection("picker")
        connection.sock = socket.socket(socket.AF_UNIX)
        with connection.sock as client:
            client.connect(str(edge.instance.folder / "picker-admin.sock"))
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()

    labels = r'gen_ai_request_model="support",gen_ai_response_model="[\w-]+"'
    for kind in ("input", "output"):
        line = rf'gen_ai_client_token_usage_sum{{gen_ai_token_type="{kind}",{labels}}} [1-9]'
        eventually(lambda line=line: re.search(line, metrics()))  # type: ignore[misc]
    # A stream whose client did not ask for usage tells none.
    eventually(lambda: re.search(r"pointsman_picker_unknown_usage_total{.*} [1-9]", metrics()))


def test_text_is_one_line_for_each_request(tmp_path: Path) -> None:
    with tempfile.NamedTemporaryFile("w+") as stdout:
        arguments = {"ports": (EXAMPLE,), "access_log": "text", "stdout": stdout}
        with running(**arguments) as instance:  # type: ignore[arg-type]
            for model in ("support", 'no "such"\nmodel'):
                instance.complete(EXAMPLE, model)
            lines = eventually(
                lambda: (
                    found if len(found := Path(stdout.name).read_text().splitlines()) > 1 else []
                )
            )
    assert len(lines) == 2
    assert '"POST /v1/completions HTTP/1.1" 200 ' in lines[0]
    assert "model=support pool=default/llama" in lines[0]
    assert " 404 " in lines[1]


@pytest.mark.parametrize(
    ("choice", "is_terminal", "expected"),
    [
        ("auto", True, None),
        ("auto", False, JSON_ON_STDOUT),
        ("off", False, None),
        ("text", True, TEXT_ON_STDOUT),
        ("json", True, JSON_ON_STDOUT),
    ],
)
def test_a_terminal_is_left_to_other_words_unless_lines_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, choice: str, is_terminal: bool, expected: AccessLog | None
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    assert access_log_of(choice) == expected
