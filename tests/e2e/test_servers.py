"""`pointsman run --server`: a gateway over servers that already run, with no YAML."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pointsman.standalone.external import ServerError, parse_servers
from tests.e2e.instances import eventually, running
from tests.ports import free_port

pytestmark = pytest.mark.e2e


@contextmanager
def model_server(model: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, "-m", "pointsman", "modelserver", "--model", model]
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(15)


class Other(BaseHTTPRequestHandler):
    """A server that is known by a path of its own and has no metrics."""

    own_path = "/api/version"

    def do_GET(self) -> None:
        known = {self.own_path: {"version": "1"}, "/v1/models": {"data": [{"id": "small"}]}}
        body = json.dumps(known.get(self.path, {})).encode()
        self.send_response(200 if self.path in known else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


def test_servers_become_a_pool_and_each_request_goes_to_one_that_serves_its_model() -> None:
    ollama = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=ollama.serve_forever, daemon=True).start()
    with model_server("large") as (url, process):
        servers = (
            f"--server=gpu={url}",
            f"--server=cpu=http://localhost:{ollama.server_port}",
            f"--server=gone=http://127.0.0.1:{free_port()}",
        )
        port = free_port()
        with running(arguments=(*servers, f"--port={port}")) as instance:
            assert '"model": "large"' in next(x for x in instance.lines if "ready" in x)
            eventually(lambda: instance.said("cpu-0") and instance.said("is ollama"))
            assert instance.said("is vllm")
            assert {instance.complete(port, "large").status for _ in range(6)} == {200}
            pods = instance.cli("get", "pods")
            assert "gone-0" in pods
            gone = instance.object("pod", "gone-0")["status"]["conditions"][0]
            assert (gone["status"], gone["reason"]) == ("False", "NotReady")
            assert "no model server answers" in gone["message"]
            process.terminate()
            process.wait(15)
            eventually(lambda: instance.object("pod", "gpu-0")["status"]["phase"] == "Unknown")
    ollama.shutdown()
    ollama.server_close()


MANIFEST = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners: [{name: http, protocol: HTTP, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: front}]
  rules:
    - matches: [{path: {value: /slice}}]
      filters:
        - type: URLRewrite
          urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
      backendRefs: [{name: outside, port: 80}]
    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside-1, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
ports: [{name: http, port: PORT}]
endpoints: [{addresses: [127.0.0.1], conditions: {ready: true}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec:
  selector: {matchLabels: {app: outside}}
  targetPorts: [{number: 8000}]
---
apiVersion: v1
kind: Pod
metadata:
  name: outside-0
  labels: {app: outside}
  annotations: {pointsman.dev/ports: "8000=PORT"}
status: {podIP: 127.0.0.1}
"""


def test_servers_that_files_name_by_address_are_routed_to() -> None:
    with model_server("tiny") as (url, _):
        port = url.rpartition(":")[2]
        with running("-", ports=(8080,), stdin=MANIFEST.replace("PORT", port)) as instance:
            eventually(lambda: instance.complete(8080, "tiny").status == 200)
            listed = instance.request(8080, "GET", "/slice/v1/models")
            assert (listed.status, listed.json["data"][0]["id"]) == (200, "tiny")
            assert instance.pids("pointsman modelserver --port") == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("http://a", "NAME=URL"),
        ("Upper=http://a", "lower-case"),
        ("a=ftp://b", "expected http://HOST"),
        ("a=http://b:99999", "is no URL"),
        ("a=http://b/some/path", "expected http://HOST"),
        ("a=http://user:secret@b", "expected http://HOST"),
        ("a=", "expected http://HOST"),
    ],
)
def test_a_server_that_cannot_be_named_so_is_refused_with_what_was_expected(
    value: str, said: str
) -> None:
    with pytest.raises(ServerError, match=said):
        parse_servers([value])


def test_servers_are_numbered_by_name() -> None:
    found = parse_servers(["a=http://h:1,http://h:2", "b=http://h:3/v1", "a=http://h"])
    assert [(item.name, item.port) for item in found] == [
        ("a-0", 1),
        ("a-1", 2),
        ("b-0", 3),
        ("a-2", 80),
    ]
