"""TLS at both ends: which listener a connection is for, clients' certificates, backends'."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.conformance.certificates import Authority, secret
from tests.conformance.servers import Server, running_servers
from tests.conformance.sites import Site, reasons
from tests.e2e.instances import eventually, running

pytestmark = pytest.mark.e2e

GATEWAYS = Authority("gateways")
CLIENTS = Authority("clients")
BACKENDS = Authority("backends")
STRANGERS = Authority("strangers")
PORTS = (80, 443, 8443, 8444, 8445)
NAMES = ("first.example", "second.example", "*.wild.example", "unknown.example")
NAME, URI = "backend.example", "spiffe://backend.example/one"


def policy(
    target: str,
    name: str = "",
    authority: str = "backends",
    more: str = "",
    section: str = "",
    hostname: str = NAME,
    made: str = "01",
    kind: str = "ConfigMap",
) -> str:
    """A BackendTLSPolicy for a Service, made on that day."""
    where = f", sectionName: {section}" if section else ""
    return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name or target}, creationTimestamp: "2026-01-{made}T00:00:00Z"}}
spec:
  targetRefs: [{{group: "", kind: Service, name: {target}{where}}}]
  validation:
    hostname: {hostname}
    caCertificateRefs: [{{group: "", kind: {kind}, name: {authority}}}]
    {more}
"""


def alt_names(kind: str, value: str) -> str:
    field = "uri" if kind == "URI" else "hostname"
    return f'subjectAltNames: [{{type: {kind}, {field}: "{value}"}}]'


POLICIES = (
    policy("good")
    + policy("mismatch", hostname="other.example")
    + policy("untrusted")
    + policy("no-authority", authority="gone")
    + policy("odd-kind", kind="Service")
    + policy("alt-name", hostname="sni.example", more=alt_names("Hostname", NAME))
    + policy("alt-uri", hostname="sni.example", more=alt_names("URI", URI))
    + policy("alt-wrong", more=alt_names("Hostname", "other.example"))
    + policy("by-port", "for-all", hostname="other.example")
    + policy("by-port", "for-port", section="web", made="02")
    + policy("contested", "older", made="03")
    + policy("contested", "younger", hostname="other.example", made="04")
    + policy("calls")
    + policy("asking")
    + policy("gone", "lost")
)


@contextmanager
def calls() -> Iterator[int]:
    """A gRPC server behind TLS that answers every call with the name of its method."""

    class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            answer = details.method.encode()
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Calls()])
    chain, key = BACKENDS.issue(NAME)
    port: int = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    try:
        yield port
    finally:
        server.stop(None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    def secured(name: str, authority: Authority = BACKENDS) -> Server:
        return Server(name, protocol="https", context=authority.server_context(NAME, URI))

    servers = [Server(name) for name in ("v1", "v2", "v3")]
    servers += [
        secured(name)
        for name in ("good", "mismatch", "no-authority", "odd-kind", "alt-name", "alt-uri",
                     "alt-wrong", "by-port", "contested")
    ]  # fmt: skip
    servers.append(secured("untrusted", STRANGERS))
    asking = BACKENDS.server_context(NAME, clients=GATEWAYS)
    servers.append(Server("asking", protocol="https", context=asking))
    folder = tmp_path_factory.mktemp("tls")
    with running_servers(*servers) as found, calls() as port:
        every = (*servers, Server("calls", port=port))
        text = Path(__file__).with_name("tls.yaml").read_text() + POLICIES
        text += secret("cert", GATEWAYS.issue(*NAMES))
        text += secret("gateway-cert", GATEWAYS.issue("gateway.example"))
        text += CLIENTS.config_map("clients") + BACKENDS.config_map("backends")
        text += "".join(item.manifest() for item in every)
        (folder / "all.yaml").write_text(text)
        with running(folder, ports=PORTS) as instance:
            yield Site(instance, found, folder)


def trusting(client: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
    """A client that believes the Gateway whatever name it has."""
    context = GATEWAYS.client_context(client)
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    ("server_name", "host", "expected"),
    [
        ("first.example", "first.example", "v1"),
        ("first.example", "second.example", 421),
        ("first.example", "unknown.example", 404),
        ("second.example", "second.example", "v2"),
        ("second.example", "first.example", 421),
        ("second.example", "unknown.example", 421),
        ("third.wild.example", "third.wild.example", "v3"),
        ("third.wild.example", "fifth.wild.example", "v3"),
        ("third.wild.example", "fourth.wild.example", 421),
        ("third.wild.example", "second.example", 421),
        ("third.wild.example", "unknown.example", 421),
        ("fourth.wild.example", "fourth.wild.example", "v1"),
        ("fourth.wild.example", "fifth.wild.example", 421),
        ("unknown.example", "first.example", "v1"),
        ("unknown.example", "unknown.example", 404),
    ],
)
def test_a_request_on_the_connection_of_another_listener_is_misdirected(
    site: Site, server_name: str, host: str, expected: str | int
) -> None:
    found = site.to("/", port=443, host=host, tls=trusting(), server_name=server_name)
    assert found == expected


def shown(site: Site, port: int, client: tuple[bytes, bytes] | None) -> str | int | None:
    """Who answers a client with that certificate; None where he is turned away."""
    try:
        return site.to(
            "/", port=port, host="first.example", tls=trusting(client), server_name="first.example"
        )
    except (ssl.SSLError, ConnectionError):
        return None


def test_a_listener_that_asks_for_certificates_takes_only_good_ones(site: Site) -> None:
    assert shown(site, 8443, CLIENTS.issue("client.example")) == "v1"
    assert shown(site, 8443, STRANGERS.issue("client.example")) is None
    assert shown(site, 8443, None) is None
    assert shown(site, 443, None) == "v1"


def test_a_listener_that_falls_back_takes_any_client_and_the_gateway_says_so(site: Site) -> None:
    for client in (CLIENTS.issue("client.example"), STRANGERS.issue("client.example"), None):
        assert shown(site, 8444, client) == "v1"
    found = site.conditions("gateway", "secure")["InsecureFrontendValidationMode"]
    assert (found["status"], found["reason"]) == ("True", "ConfigurationChanged")


def test_a_listener_whose_authorities_are_gone_lets_nobody_in(site: Site) -> None:
    status = site.instance.object("gateway", "secure")["status"]
    entry = next(item for item in status["listeners"] if item["name"] == "broken")
    found = reasons({item["type"]: item for item in entry["conditions"]})
    assert found["Accepted"] == ("False", "NoValidCACertificate")
    assert found["ResolvedRefs"] == ("False", "InvalidCACertificateRef")
    assert shown(site, 8445, CLIENTS.issue("client.example")) is None


@pytest.mark.parametrize(
    ("path", "server_name"),
    [
        ("/good", NAME),
        ("/alt-name", "sni.example"),
        ("/alt-uri", "sni.example"),
        ("/by-port", NAME),
        ("/contested", NAME),
    ],
)
def test_a_backend_is_spoken_to_in_tls_by_the_name_of_its_policy(
    site: Site, path: str, server_name: str
) -> None:
    answer = site.get(path)
    assert (answer.status, answer.json["sni"]) == (200, server_name)


def test_a_backend_that_asks_is_shown_the_certificate_of_the_gateway(site: Site) -> None:
    names = [item[0][1] for item in site.get("/asking").json["client"]["subject"]]
    assert names == ["gateway.example"]
    found = reasons(site.conditions("gateway", "secure"))
    assert found["ResolvedRefs"] == ("True", "ResolvedRefs")


@pytest.mark.parametrize("path", ["/mismatch", "/untrusted", "/alt-wrong"])
def test_a_backend_with_another_certificate_is_not_spoken_to(site: Site, path: str) -> None:
    assert site.to(path) == 503
    assert path not in site.servers[path[1:]].seen


@pytest.mark.parametrize("path", ["/no-authority", "/odd-kind"])
def test_a_backend_for_which_nobody_vouches_gets_no_request(site: Site, path: str) -> None:
    assert site.to(path) == 503


def test_a_broken_policy_costs_only_the_share_of_its_backend(site: Site) -> None:
    assert {site.to("/half") for _ in range(40)} == {"v1", 503}
    assert {site.to("/both") for _ in range(40)} == {"v1", "good"}


@pytest.mark.parametrize(
    ("name", "accepted", "resolved"),
    [
        ("good", ("True", "Accepted"), ("True", "ResolvedRefs")),
        ("no-authority", ("False", "NoValidCACertificate"), ("False", "InvalidCACertificateRef")),
        ("odd-kind", ("False", "NoValidCACertificate"), ("False", "InvalidKind")),
        ("for-all", ("True", "Accepted"), ("True", "ResolvedRefs")),
        ("for-port", ("True", "Accepted"), ("True", "ResolvedRefs")),
        ("older", ("True", "Accepted"), ("True", "ResolvedRefs")),
        ("younger", ("False", "Conflicted"), ("True", "ResolvedRefs")),
        ("lost", ("False", "TargetNotFound"), ("True", "ResolvedRefs")),
    ],
)
def test_a_policy_tells_what_became_of_it(
    site: Site, name: str, accepted: tuple[str, str], resolved: tuple[str, str]
) -> None:
    found = reasons(site.conditions("backendtlspolicy", name))
    assert found == {"Accepted": accepted, "ResolvedRefs": resolved}


def test_the_ancestor_of_a_policy_is_the_gateway(site: Site) -> None:
    status = site.instance.object("backendtlspolicy", "good")["status"]
    assert [item["ancestorRef"]["name"] for item in status["ancestors"]] == ["secure"]


def test_calls_go_to_a_backend_with_tls(site: Site) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{site.instance.ports[80]}") as channel:
        answer: bytes = channel.unary_unary("/secret.Calls/Get")(b"", timeout=10)
    assert answer == b"/secret.Calls/Get"


def test_a_changed_policy_is_looked_at_anew(site: Site) -> None:
    before = site.instance.object("backendtlspolicy", "mismatch")["metadata"]["generation"]
    text = (site.folder / "all.yaml").read_text()
    old = policy("mismatch", hostname="other.example")
    assert old in text
    site.write("all.yaml", text.replace(old, policy("mismatch")))
    site.becomes("mismatch", "/mismatch")
    found = site.instance.object("backendtlspolicy", "mismatch")
    assert found["metadata"]["generation"] == before + 1
    eventually(
        lambda: (
            {
                item["observedGeneration"]
                for item in site.conditions("backendtlspolicy", "mismatch").values()
            }
            == {before + 1}
        ),
        10,
    )


def test_an_authority_that_comes_later_is_believed(site: Site) -> None:
    (site.folder / "late.yaml").write_text(BACKENDS.config_map("gone"))
    site.becomes("no-authority", "/no-authority")
