"""Policies of Envoy Gateway with real requests: what clients and servers see of each."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.certificates import Authority, secret
from tests.e2e.instances import Instance, eventually, running
from tests.ports import free_port

pytestmark = pytest.mark.e2e

PORT, LIMITED, NARROW, SECURE, SHUT = 9080, 9081, 9082, 9443, 9444
HOLD_AT_MOST_S = 10


@dataclass
class Server:
    """A server that answers with what it got; some paths fail, wait, or say how it is."""

    name: str
    port: int = 0
    is_well: bool = True
    seen: list[str] = field(default_factory=list)
    """Paths, in the order in which they came."""
    hosts: set[str] = field(default_factory=set)
    """What health checks said in their Host."""
    entered: threading.Event = field(default_factory=threading.Event)
    """A request for `hold` has come."""
    released: threading.Event = field(default_factory=threading.Event)
    """Requests for `hold` may be answered."""


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = 200
            if self.path == "/health":
                server.hosts.add(self.headers["host"])
                status = 200 if server.is_well else 503
            else:
                server.seen.append(self.path)
                # `fail2` fails the first two requests for a path.
                fails = next((int(n) for n in "123" if f"fail{n}" in self.path), 0)
                status = 503 if server.seen.count(self.path) <= fails else 200
            if "hold" in self.path:
                server.entered.set()
                server.released.wait(HOLD_AT_MOST_S)
            self.rfile.read(int(self.headers["content-length"] or 0))
            told = {"name": server.name, "headers": self.headers.items()}
            body = json.dumps(told).encode()
            # Who asked may have gone.
            with suppress(OSError):
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    return Handler


class Quiet(ThreadingHTTPServer):
    """Says nothing of clients that break off."""

    def handle_error(self, request: object, client_address: object) -> None:
        """They are meant to."""


@contextmanager
def serving(name: str, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(name)
    listening = Quiet(("127.0.0.1", 0), handler(server))
    if context is not None:
        listening.socket = context.wrap_socket(
            listening.socket, server_side=True, do_handshake_on_connect=False
        )
    server.port = listening.server_port
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        listening.shutdown()
        listening.server_close()


@dataclass
class Site:
    """A running instance, and what is around it."""

    instance: Instance
    servers: dict[str, Server]
    authority: Authority
    folder: Path

    def get(self, path: str, **more: Any) -> Any:
        return self.instance.request(PORT, "GET", path, **more)

    def conditions(self, kind: str, name: str) -> dict[str, dict[str, Any]]:
        found = self.instance.object(kind, name)["status"]["ancestors"][0]["conditions"]
        return {item["type"]: item for item in found}

    def handshake(self, port: int, client: tuple[bytes, bytes] | None) -> bytes:
        """The first bytes of an answer over TLS."""
        context = self.authority.client_context(client)
        with (
            socket.create_connection(("127.0.0.1", self.instance.ports[port]), 5) as plain,
            context.wrap_socket(plain, server_hostname="models.example.com") as tls,
        ):
            tls.sendall(b"GET /free HTTP/1.1\r\nhost: models.example.com\r\n\r\n")
            return tls.recv(100)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("policies")
    authority = Authority("clients and servers")
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(name)) for name in "abc"}
        private = authority.server_context("private.example.com")
        servers["tls"] = stack.enter_context(serving("tls", private))
        ports = {name: server.port for name, server in servers.items()}
        ports["nobody"] = free_port()
        text = Path(__file__).with_name("policies.yaml").read_text()
        for name, port in ports.items():
            text = re.sub(rf"\bPORT_{name}\b", str(port), text)
        (folder / "site.yaml").write_text(text)
        (folder / "cert.yaml").write_text(secret("cert", authority.issue("models.example.com")))
        (folder / "authority.yaml").write_text(authority.config_map("authority"))
        found = running(folder, ports=(PORT, LIMITED, NARROW, SECURE, SHUT))
        yield Site(stack.enter_context(found), servers, authority, folder)


def test_a_failed_request_is_tried_again_on_the_rule_that_a_policy_names(site: Site) -> None:
    assert site.get("/retried/fail2").status == 200
    assert site.servers["a"].seen.count("/retried/fail2") == 3
    assert site.get("/free/fail2").status == 503
    assert site.servers["a"].seen.count("/free/fail2") == 1


def test_a_request_that_takes_too_long_is_ended(site: Site) -> None:
    server = site.servers["a"]
    try:
        assert site.get("/bounded/hold").status == 504
    finally:
        server.released.set()
        server.released.clear()


def test_a_circuit_breaker_opens_and_closes(site: Site) -> None:
    server = site.servers["a"]
    server.entered.clear()
    with futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(site.get, "/few/hold")
        try:
            assert server.entered.wait(HOLD_AT_MOST_S)
            assert site.get("/few/other").status == 503
            assert site.get("/free/other").status == 200
        finally:
            server.released.set()
        assert first.result().status == 200
    server.released.clear()
    assert site.get("/few/other").status == 200


def test_the_same_header_leads_to_the_same_server(site: Site) -> None:
    def served(user: str) -> str:
        return str(site.get("/sticky", headers={"x-user": user}).json["name"])

    homes = {user: served(user) for user in map(str, range(12))}
    assert {user: served(user) for user in homes} == homes
    assert len(set(homes.values())) > 1


def test_a_server_that_is_not_well_gets_nothing_until_it_is_well_again(site: Site) -> None:
    def names() -> set[str]:
        return {site.get("/checked").json["name"] for _ in range(12)}

    eventually(lambda: names() == {"a", "b", "c"})
    site.servers["b"].is_well = False
    eventually(lambda: names() == {"a", "c"})
    site.servers["b"].is_well = True
    eventually(lambda: names() == {"a", "b", "c"})
    assert site.servers["b"].hosts == {"checks.example.com"}


def test_fallback_servers_answer_where_the_others_are_gone(site: Site) -> None:
    def served() -> bool:
        answer = site.get("/fallback")
        return answer.status == 200 and bool(answer.json["name"] == "b")

    assert eventually(served)


def test_a_request_larger_than_the_buffer_is_413(site: Site) -> None:
    def status(path: str, size: int) -> int:
        return int(site.instance.request(PORT, "POST", path, b"x" * size).status)

    assert status("/small", 5000) == 413
    assert status("/small", 500) == 200
    assert status("/free", 5000) == 200


def test_a_picker_reads_no_more_than_a_listener_buffers(site: Site) -> None:
    def status(port: int, size: int) -> int:
        body = {"model": "m", "prompt": "x" * size, "max_tokens": 1}
        headers = {"x-real-ip": "192.0.2.1"}
        answer = site.instance.request(port, "POST", "/v1/completions", body, headers=headers)
        return int(answer.status)

    assert status(PORT, 100_000) == 200
    assert status(NARROW, 100) == 200
    assert status(NARROW, 100_000) == 413


def test_the_gateway_answers_for_its_own_health(site: Site) -> None:
    before = len(site.servers["a"].seen)
    assert site.get("/gateway-health").status == 200
    assert len(site.servers["a"].seen) == before


def test_headers_are_changed_early_and_the_edge_still_strips(site: Site) -> None:
    told = {"X-Mixed-Case": "Kept", "under_score": "kept", "x-gateway-destination-endpoint": "x"}
    headers = dict(site.get("/free", headers=told).json["headers"])
    assert headers["x-edge"] == "100%"
    assert headers["X-Mixed-Case"] == "Kept"
    assert headers["under_score"] == "kept"
    assert not any(name.startswith("x-gateway-destination") for name in headers)


def test_a_client_address_comes_from_the_trusted_header_and_steers_nothing(site: Site) -> None:
    def ask(**headers: str) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return site.instance.request(NARROW, "GET", "/free/fail3", headers=named)

    assert ask().status == 403
    assert ask(x_real_ip="192.0.2.1", x_envoy_retry_on="5xx", x_envoy_max_retries="3").status == 503


def test_a_listener_takes_no_more_connections_than_its_limit(site: Site) -> None:
    port = site.instance.ports[LIMITED]

    def answers(connection: http.client.HTTPConnection) -> bool:
        try:
            connection.request("GET", "/free")
            return connection.getresponse().read() != b""
        except (OSError, http.client.HTTPException):
            return False

    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as first:
        assert eventually(lambda: answers(first))
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as second:
            assert not answers(second)
        assert answers(first)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/tls/known", 200), ("/tls/anybody", 200), ("/tls/misnamed", 503), ("/tls/nobody", 503)],
)
def test_a_backend_that_declares_tls_is_spoken_to_as_it_says(
    site: Site, path: str, status: int
) -> None:
    assert site.get(path).status == status


def test_a_backend_whose_authority_is_missing_says_so(site: Site) -> None:
    (accepted,) = site.instance.object("backend", "tls-nobody")["status"]["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert "ConfigMap default/absent" in accepted["message"]


def test_a_client_without_a_certificate_of_the_authority_is_turned_away(site: Site) -> None:
    good = site.authority.issue("client.example.com")
    assert site.handshake(SECURE, good).startswith(b"HTTP/1.1 200")
    for bad in (None, Authority("somebody else").issue("client.example.com")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            site.handshake(SECURE, bad)


def test_a_listener_whose_authority_is_missing_lets_nobody_in(site: Site) -> None:
    for client in (None, site.authority.issue("client.example.com")):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            site.handshake(SHUT, client)
    accepted = site.conditions("ctp", "shut")["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert "ConfigMap default/absent" in accepted["message"]


def test_a_policy_that_would_limit_rates_says_that_it_does_nothing(site: Site) -> None:
    accepted = site.conditions("btp", "limited")["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert "rateLimit" in accepted["message"]
    assert {site.get("/free").status for _ in range(3)} == {200}


def test_a_policy_takes_effect_and_goes_while_the_gateway_serves(site: Site) -> None:
    path = site.folder / "late.yaml"
    path.write_text("""\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: late}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: rules, sectionName: free}]
  retry: {retryOn: {triggers: [5xx]}, perRetry: {backOff: {baseInterval: 1ms}}}
""")
    tried = iter(range(1000))
    eventually(lambda: site.get(f"/free/fail1/{next(tried)}").status == 200)
    rows = [line.split() for line in site.instance.cli("get", "btp").splitlines()]
    assert {tuple(row[:2]) for row in rows} >= {("late", "Accepted"), ("limited", "Invalid")}
    path.unlink()
    eventually(lambda: site.get(f"/free/fail1/{next(tried)}").status == 503)
