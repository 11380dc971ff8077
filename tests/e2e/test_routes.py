"""Routes with real requests: what a client and a backend see of each filter and rule."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.e2e.instances import Answer, Instance, eventually, running

pytestmark = pytest.mark.e2e

PORT = 9080
SEEN_AT_MOST = 1000


@dataclass
class Backend:
    """A server that answers with what it got, and remembers the last of it."""

    name: str
    port: int
    seen: list[str] = field(default_factory=list)
    """Paths, in the order in which they came."""


def echo(backend: Backend) -> type[BaseHTTPRequestHandler]:
    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            earlier = backend.seen.count(self.path)
            backend.seen.append(self.path)
            del backend.seen[:-SEEN_AT_MOST]
            if "hang" in self.path:
                threading.Event().wait(0.6)
            # `fail2` fails the first two requests for a path.
            fails = next((int(n) for n in "123" if f"fail{n}" in self.path), 0)
            told = {"name": backend.name, "path": self.path, "host": self.headers["host"]}
            body = json.dumps({**told, "headers": dict(self.headers)}).encode()
            self.send_response(503 if earlier < fails else 200)
            self.send_header("content-length", str(len(body)))
            self.send_header("x-from", backend.name)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_OPTIONS = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    return Echo


@contextmanager
def http_backend(name: str) -> Iterator[Backend]:
    backend = Backend(name, 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), echo(backend))
    backend.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()


class Calls:
    """Answers every call with its method's name and a header that it came with."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        metadata = dict(details.invocation_metadata)
        answer = f"{details.method} {metadata.get('x-added', '-')}".encode()
        return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


@contextmanager
def grpc_backend(name: str) -> Iterator[Backend]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Calls()])
    backend = Backend(name, server.add_insecure_port("127.0.0.1:0"))
    server.start()
    try:
        yield backend
    finally:
        server.stop(None)


def servers(backends: list[Backend]) -> str:
    """Each backend as a Service and the Pod behind it."""
    return "".join(
        f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {item.name}}}
spec: {{selector: {{app: {item.name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata:
  name: {item.name}-0
  labels: {{app: {item.name}}}
  annotations: {{pointsman.dev/ports: "8080={item.port}"}}
status: {{podIP: 127.0.0.1}}
"""
        for item in backends
    )


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners: [{name: http, protocol: HTTP, port: 9080}]
"""

ROUTES = Path(__file__).with_name("routes.yaml")


@dataclass
class Site:
    """A running instance and the servers behind it."""

    instance: Instance
    backends: dict[str, Backend]

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.instance.request(PORT, method, path, headers=named)

    def path_of(self, path: str) -> str:
        """The path that the backend saw."""
        answer = self.get(path)
        assert answer.status == 200, (answer.status, answer.body)
        found: str = answer.json["path"]
        return found

    def parents(self, kind: str, name: str) -> dict[str, dict[str, Any]]:
        """The conditions of a route under its first parent, by type."""
        status = self.instance.object(kind, name)["status"]
        return {item["type"]: item for item in status["parents"][0]["conditions"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        backends = [stack.enter_context(http_backend(name)) for name in ("one", "two", "copy")]
        backends += [
            stack.enter_context(http_backend(name)) for name in ("same-a", "same-b", "same-c")
        ]
        backends += [stack.enter_context(grpc_backend(name)) for name in ("calls", "others")]
        folder = tmp_path_factory.mktemp("routes")
        text = GATEWAY + servers(backends) + "---\n" + ROUTES.read_text()
        # Three servers behind one Service, for sessions.
        for letter in "abc":
            text = text.replace(f"labels: {{app: same-{letter}}}", "labels: {app: same}")
        (folder / "all.yaml").write_text(text)
        instance = stack.enter_context(running(folder, ports=(PORT,)))
        yield Site(instance, {item.name: item for item in backends})


def test_requests_are_mirrored_to_every_mirror_and_answered_by_the_backend(site: Site) -> None:
    answer = site.get("/mirror/a")
    assert answer.json["name"] == "one"
    eventually(lambda: "/mirror/a" in site.backends["copy"].seen, 5)
    eventually(lambda: "/mirror/a" in site.backends["two"].seen, 5)


def test_a_share_of_the_requests_is_mirrored(site: Site) -> None:
    for index in range(60):
        assert site.get(f"/share/{index}").status == 200

    def copies(name: str) -> int:
        return sum(path.startswith("/share/") for path in site.backends[name].seen)

    eventually(lambda: copies("copy") >= 5, 5)
    assert copies("copy") <= 55
    assert copies("two") == 0


def test_a_mirror_that_leads_nowhere_is_told_and_the_requests_are_served(site: Site) -> None:
    assert site.get("/lost-mirror").status == 200
    found = site.parents("httproute", "lost-mirror")
    assert (found["Accepted"]["status"], found["ResolvedRefs"]["status"]) == ("True", "False")
    assert found["ResolvedRefs"]["reason"] == "BackendNotFound"


@pytest.mark.parametrize("origin", ["https://page.example", "https://x.y.wild.example"])
def test_a_page_of_an_allowed_origin_may_call(site: Site, origin: str) -> None:
    asks = {"origin": origin, "access_control_request_method": "PUT"}
    before = site.get("/cors", "OPTIONS", **asks)
    assert before.status == 200
    assert before.headers["access-control-allow-origin"] == origin
    assert before.headers["access-control-allow-methods"] == "GET, PUT"
    assert before.headers["access-control-allow-headers"] == "x-token"
    assert before.headers["access-control-max-age"] == "60"
    assert "x-from" not in before.headers
    answer = site.get("/cors", origin=origin)
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-expose-headers"] == "x-shown"
    assert answer.headers["x-from"] == "one"


@pytest.mark.parametrize("origin", ["https://evil.example", "https://wild.example.evil"])
def test_a_page_of_another_origin_may_not_call(site: Site, origin: str) -> None:
    asks = {"origin": origin, "access_control_request_method": "PUT"}
    before = site.get("/cors", "OPTIONS", **asks)
    assert "access-control-allow-origin" not in before.headers
    assert "x-from" not in before.headers
    assert "access-control-allow-origin" not in site.get("/cors", origin=origin).headers


def test_every_origin_method_and_header_can_be_allowed_with_credentials(site: Site) -> None:
    asks = {
        "origin": "https://page.example",
        "access_control_request_method": "DELETE",
        "access_control_request_headers": "x-own, x-other",
    }
    before = site.get("/cors-all", "OPTIONS", **asks).headers
    # A browser takes no `*` from an answer that lets credentials through.
    assert before["access-control-allow-origin"] == "https://page.example"
    assert "DELETE" in before["access-control-allow-methods"]
    assert before["access-control-allow-headers"] == "x-own, x-other"


def test_routes_without_cors_leave_such_requests_to_the_backend(site: Site) -> None:
    asks = {"origin": "https://page.example", "access_control_request_method": "PUT"}
    assert site.get("/prefix/x", "OPTIONS", **asks).headers["x-from"] == "one"


def test_a_failed_request_is_tried_again_as_often_as_said(site: Site) -> None:
    assert site.get("/retry/fail2").status == 200
    assert site.backends["one"].seen.count("/retry/fail2") == 3
    assert site.get("/retry/fail3").status == 503
    assert site.backends["one"].seen.count("/retry/fail3") == 3
    assert site.get("/prefix/fail1").status == 503


def test_a_try_that_hangs_is_cut_off_and_made_again(site: Site) -> None:
    assert site.get("/retry/hang").status == 504
    assert site.backends["one"].seen.count("/retry/hang") == 3


@pytest.mark.parametrize(("path", "status"), [("/brief/hang", 504), ("/patient/hang", 200)])
def test_a_request_may_take_as_long_as_the_rule_says(site: Site, path: str, status: int) -> None:
    assert site.get(path).status == status


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/prefix/foo", "/prefix/foo"),
        ("/plain/bar", "/x/bar"),
        ("/plain", "/x"),
        ("/plain/", "/x/"),
        ("/plain/bar?q=1", "/x/bar?q=1"),
        ("/slashed/bar", "/x/bar"),
        ("/gone/bar", "/bar"),
        ("/gone", "/"),
        ("/gone/", "/"),
        ("/full/any/thing?q=1", "/one\\1/path?q=1"),
    ],
)
def test_paths_are_rewritten_by_whole_elements(site: Site, path: str, seen: str) -> None:
    assert site.path_of(path) == seen


def test_the_whole_path_can_be_put_under_another(site: Site) -> None:
    assert site.get("/bar", host="root.example").json["path"] == "/under/bar"
    assert site.get("/", host="root.example").json["path"] == "/under/"


def test_the_host_can_be_rewritten(site: Site) -> None:
    assert site.get("/full/host").json["host"] == "inner.example"


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/to-host", 302, "http://new.example:{port}/to-host"),
        ("/to-https", 301, "https://new.example/to-https"),
        ("/to-https-port", 302, "https://new.example:444/to-https-port"),
        ("/to-port", 307, "http://new.example:8443/to-port"),
        ("/to-prefix/a?b=c", 308, "http://new.example:{port}/there/a?b=c"),
        ("/to-path/a", 303, "http://new.example:{port}/there"),
    ],
)
def test_redirects_go_where_they_say(site: Site, path: str, status: int, location: str) -> None:
    answer = site.get(path)
    port = site.instance.ports[PORT]
    assert (answer.status, answer.headers["location"]) == (status, location.format(port=port))


def test_only_the_share_of_an_invalid_reference_is_answered_500(site: Site) -> None:
    found = {site.get("/half").status for _ in range(40)}
    assert found == {200, 500}
    assert site.parents("httproute", "half")["ResolvedRefs"]["status"] == "False"


@pytest.mark.parametrize("path", ["/nothing", "/zero", "/only-filters"])
def test_a_rule_that_leads_nowhere_answers_500(site: Site, path: str) -> None:
    assert site.get(path).status == 500


def test_of_two_matches_on_one_header_in_two_cases_the_first_counts(site: Site) -> None:
    assert site.get("/headers", x_kind="a").json["name"] == "two"
    assert site.get("/headers", x_kind="b").json["name"] == "one"


@pytest.mark.parametrize(
    ("path", "method", "headers", "rule"),
    [
        ("/order", "GET", {}, "exact"),
        ("/order/deep", "GET", {}, "long"),
        ("/order/other", "GET", {}, "prefix"),
        ("/order/other", "POST", {}, "method"),
        ("/order/other", "GET", {"a": "1"}, "one header"),
        ("/order/other", "GET", {"a": "1", "b": "1"}, "two headers"),
        ("/order/other", "POST", {"a": "1", "b": "1"}, "method"),
        ("/order/other?q=1", "GET", {}, "query"),
    ],
)
def test_the_more_specific_match_of_any_route_counts(
    site: Site, path: str, method: str, headers: dict[str, str], rule: str
) -> None:
    assert site.get(path, method, **headers).headers["x-rule"] == rule


def test_a_session_stays_with_the_server_that_answered_first(site: Site) -> None:
    names = {site.get("/sessions").json["name"] for _ in range(30)}
    assert len(names) > 1
    answer = site.get("/sessions")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert {site.get("/sessions", cookie=cookie).json["name"] for _ in range(20)} == {
        answer.json["name"]
    }


def test_a_bad_expression_costs_only_its_own_route(site: Site) -> None:
    found = site.parents("httproute", "bad")["Accepted"]
    assert (found["status"], found["reason"]) == ("False", "UnsupportedValue")
    assert "(?=a)" in found["message"]
    assert site.get("/bad").status == 404


@pytest.fixture(scope="module")
def channel(site: Site) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{site.instance.ports[PORT]}") as found:
        yield found


def call(channel: grpc.Channel, method: str, *metadata: tuple[str, str]) -> str:
    answer: bytes = channel.unary_unary(method)(b"", timeout=10, metadata=metadata)
    return answer.decode()


def test_calls_go_by_service_and_method(channel: grpc.Channel) -> None:
    assert call(channel, "/a.Store/Get") == "/a.Store/Get exact"
    assert call(channel, "/a.Store/Put") == "/a.Store/Put service"
    assert call(channel, "/b.Store/List") == "/b.Store/List method"
    assert call(channel, "/c.V12/Any") == "/c.V12/Any pattern"
    assert call(channel, "/c.V12/Any", ("x-kind", "a")) == "/c.V12/Any header"


def test_a_call_that_nothing_matches_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, "/nobody.Knows/This")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_call_that_leads_nowhere_is_unavailable(site: Site, channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, "/d.Lost/Get")
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    found = site.parents("grpcroute", "calls")
    assert found["Accepted"]["status"] == "True"
    assert found["ResolvedRefs"]["reason"] == "BackendNotFound"
