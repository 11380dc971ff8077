"""HTTPRoutes with real requests, as the conformance suite makes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conformance.servers import Server, cutting_server, running_servers
from tests.conformance.sites import NOBODY, Site, reasons
from tests.e2e.instances import eventually, running
from tests.ports import free_port

pytestmark = pytest.mark.e2e

SECOND, ISOLATED = "127.0.0.2", "127.0.0.3"
SHARE_REQUESTS = 200


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    servers = [Server("v1"), Server("v2"), Server("v3"), Server("away", "far")]
    servers += [Server("talk", app_protocol="kubernetes.io/ws")]
    servers += [Server("plain2", protocol="h2c", app_protocol="kubernetes.io/h2c")]
    folder = tmp_path_factory.mktemp("http")
    with running_servers(*servers) as found, cutting_server("cutting") as cutting:
        dead = Server("dead", port=free_port())
        text = Path(__file__).with_name("http.yaml").read_text()
        text = text.replace("MANUAL_PORT", str(found["v2"].port))
        text += "".join(item.manifest() for item in (*servers, cutting, dead))
        (folder / "all.yaml").write_text(text)
        with running(folder, ports=(80, 8080)) as instance:
            yield Site(instance, {**found, "cutting": cutting}, folder)


@pytest.mark.parametrize(
    ("path", "headers", "server"),
    [
        ("/one", {}, "v1"),
        ("/one/", {}, 404),
        ("/one/more", {}, 404),
        ("/ONE", {}, 404),
        ("/two/", {}, "v1"),
        ("/two", {}, 404),
        ("/v2", {}, "v2"),
        ("/v2/more", {}, "v2"),
        ("/v2x", {}, 404),
        ("/v2/longer/more", {}, "v1"),
        ("/", {"version": "two"}, "v2"),
        ("/", {"Version": "TWO"}, 404),
        ("/", {"version": "two", "color": "blue"}, "v3"),
        ("/", {"color": "blue"}, 404),
        ("/both", {"color": "green"}, "v3"),
        ("/both", {"color": "red"}, 404),
        ("/?animal=whale", {}, "v1"),
        ("/?animal=whale&color=blue", {}, "v2"),
        ("/?animal=whale&color=red", {}, "v1"),
        ("/?color=blue", {}, 404),
        ("/?animal=whales", {}, 404),
        ("/order/match/exact", {}, "v3"),
        ("/order/match/exact/more", {}, "v2"),
        ("/order/match", {}, "v2"),
        ("/order/other", {}, "v1"),
    ],
)
def test_requests_go_where_the_most_specific_match_says(
    site: Site, path: str, headers: dict[str, str], server: str | int
) -> None:
    assert site.to(path, host="match.example", headers=headers) == server


@pytest.mark.parametrize(("method", "server"), [("POST", "v1"), ("GET", "v2"), ("PUT", 404)])
def test_requests_go_by_their_method(site: Site, method: str, server: str | int) -> None:
    assert site.to("/method", host="match.example", method=method) == server


def test_of_two_routes_that_match_alike_the_older_counts(site: Site) -> None:
    assert site.to("/across", host="across.example") == "v1"


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("bar.com", "/any", 200),
        ("bar.com", "/wide", 404),
        ("bar.com", "/narrow", 404),
        ("bar.com", "/exact", 404),
        ("bar.example.com", "/any", 404),
        ("bar.example.com", "/wide", 200),
        ("bar.example.com", "/narrow", 404),
        ("bar.foo.example.com", "/any", 404),
        ("bar.foo.example.com", "/wide", 404),
        ("bar.foo.example.com", "/narrow", 200),
        ("bar.foo.example.com", "/exact", 404),
        ("abc.foo.example.com", "/wide", 404),
        ("abc.foo.example.com", "/narrow", 404),
        ("abc.foo.example.com", "/exact", 200),
        ("added.example.com", "/wide", 404),
        ("added.example.com", "/added", 200),
    ],
)
def test_a_request_belongs_to_the_listener_with_the_narrowest_hostname(
    site: Site, host: str, path: str, status: int
) -> None:
    assert site.get(path, host=host, address=ISOLATED).status == status


def test_a_listener_set_may_open_a_port_of_its_own(site: Site) -> None:
    assert site.to("/added", host="apart.example.com", address=ISOLATED, port=8080) == "v2"
    assert site.conditions("listenerset", "more")["Programmed"]["status"] == "True"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("one.example.com", 200),
        ("a.two.example.com", 200),
        ("b.a.two.example.com", 200),
        ("two.example.com", 404),
        ("a.one.example.com", 404),
        ("a.foo.example.com", 404),
        ("example.com", 404),
        ("other.example", 404),
        ("ONE.example.com", 200),
        ("one.example.com:80", 200),
    ],
)
def test_a_route_takes_the_hosts_that_its_listener_takes_too(
    site: Site, host: str, status: int
) -> None:
    assert site.get("/hosts", host=host, address=ISOLATED).status == status


def test_gateways_with_addresses_of_their_own_keep_their_routes_apart(site: Site) -> None:
    assert site.to("/", host="same.example") == "v1"
    for address in (SECOND, "127.0.0.5"):
        assert site.to("/", host="same.example", address=address) == "v2"
    assert site.to("/", host="both.example") == "v3"
    assert site.to("/", host="both.example", address=SECOND) == "v3"
    status = site.instance.object("gateway", "second")["status"]
    assert [item["value"] for item in status["addresses"]] == [SECOND, "127.0.0.5"]
    assert reasons(site.conditions("gateway", "second"))["Programmed"] == ("True", "Programmed")


def test_a_route_attaches_to_the_port_that_it_names(site: Site) -> None:
    assert site.to("/", host="ports.example", port=8080) == "v1"
    assert site.to("/", host="ports.example") == "v2"


@pytest.mark.parametrize(
    ("host", "path", "server"),
    [
        ("cross.example", "/own", "away"),
        ("cross.example", "/not-granted", 500),
        ("refs.example", "/granted", "away"),
        ("refs.example", "/gone", 500),
        ("refs.example", "/odd", 500),
        ("refs.example", "/none", 500),
        ("refs.example", "/good", "v1"),
    ],
)
def test_a_reference_leads_to_what_it_may_lead_to_and_else_to_500(
    site: Site, host: str, path: str, server: str | int
) -> None:
    assert site.to(path, host=host) == server


def test_a_reference_without_grant_costs_only_its_share(site: Site) -> None:
    assert {site.to("/half", host="cross.example") for _ in range(40)} == {"away", 500}
    found = reasons(site.conditions("httproute", "cross", "far"))
    assert found == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("False", "RefNotPermitted"),
    }


def test_a_reference_that_leads_nowhere_leaves_the_route_accepted(site: Site) -> None:
    found = reasons(site.conditions("httproute", "references"))
    assert found["Accepted"] == ("True", "Accepted")
    assert found["ResolvedRefs"] == ("False", "BackendNotFound")


def test_headers_of_requests_are_set_added_and_removed(site: Site) -> None:
    sent = {"x-set": "old", "x-add": "one", "x-gone": "yes", "x-other": "kept"}
    seen = site.get("/request", host="headers.example", headers=sent).json["headers"]
    assert seen["x-set"] == ["new"]
    assert ",".join(seen["x-add"]) == "one,more"
    assert "x-gone" not in seen
    assert seen["x-other"] == ["kept"]


def test_headers_of_answers_are_set_added_and_removed(site: Site) -> None:
    found = site.get("/response", host="headers.example").headers
    assert found["x-from"] == "new"
    assert found["x-extra"] in ("1,more", "more", "1, more")
    assert "x-kept" not in found


def test_each_backend_gets_its_own_headers(site: Site) -> None:
    found = [site.get("/backend", host="headers.example").json for _ in range(20)]
    assert {item["name"] for item in found} == {"v1", "v2"}
    assert all(item["headers"]["x-set"] == [item["name"]] for item in found)


def test_requests_are_shared_by_weight_and_a_weight_of_zero_gets_none(site: Site) -> None:
    found = Counter(site.to("/", host="weights.example") for _ in range(SHARE_REQUESTS))
    assert set(found) == {"v1", "v2"}
    # 70 % with room for chance: more than four standard deviations.
    assert 0.56 < found["v1"] / SHARE_REQUESTS < 0.84


@pytest.mark.parametrize(("path", "server"), [("/headless", "v1"), ("/manual", "v2")])
def test_services_without_an_address_or_a_selector_are_served(
    site: Site, path: str, server: str
) -> None:
    assert site.to(path, host="protocols.example") == server


def test_a_backend_of_h2c_is_spoken_to_in_http2_without_tls(site: Site) -> None:
    answer = site.get("/h2c", host="protocols.example")
    assert (answer.status, answer.json["protocol"]) == (200, "h2c")


async def test_a_websocket_goes_through(site: Site) -> None:
    url = f"ws://127.0.0.1:{site.instance.ports[80]}/ws"
    headers = {"host": "protocols.example"}
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers=headers) as talk,
    ):
        await talk.send_str("hello")
        assert await talk.receive_str() == "back: hello"


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/scheme", 302, "https://redirect.example/scheme"),
        ("/port", 302, "http://redirect.example:8083/port"),
        ("/scheme-port", 302, "https://redirect.example:8443/scheme-port"),
        ("/well-known", 302, "https://redirect.example/well-known"),
        ("/host", 301, "http://new.example:{port}/host"),
        ("/dead", 308, "http://new.example:{port}/dead"),
    ],
)
def test_redirects_name_scheme_host_and_port_as_they_should(
    site: Site, path: str, status: int, location: str
) -> None:
    answer = site.get(path, host="redirect.example")
    found = answer.headers["location"].replace(":443/", "/")
    wanted = location.format(port=site.instance.ports[80])
    assert (answer.status, found) == (status, wanted)


def test_without_credentials_no_answer_speaks_of_them(site: Site) -> None:
    asks = {"origin": "https://a.example", "access-control-request-method": "GET"}
    for method in ("OPTIONS", "GET"):
        found = site.get("/cors", host="redirect.example", method=method, headers=asks).headers
        assert found["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in found


def test_a_broken_connection_is_tried_again(site: Site) -> None:
    assert site.to("/cut", host="retries.example") == "cutting"
    assert site.get("/connection", host="retries.example").status == 503


def test_a_filter_that_nobody_knows_answers_500_for_its_rule_alone(site: Site) -> None:
    assert site.to("/extended", host="extension.example") == 500
    assert site.to("/plain", host="extension.example") == "v1"
    found = site.conditions("httproute", "extension")
    assert found["Accepted"]["status"] == "True"
    assert found["ResolvedRefs"]["status"] == "False"
    assert "rules[0].filters[0]" in found["ResolvedRefs"]["message"]


CHANGED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: changed}}
spec:
  gatewayClassName: any
  addresses: [{{value: 127.0.0.4}}]
  listeners: {listeners}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: changed}}
spec:
  parentRefs: [{{name: changed}}]
  hostnames: [{host}]
  rules: [{{backendRefs: [{{name: {server}, port: 80}}]}}]
"""
ONE = "[{name: a, port: 80, protocol: HTTP, hostname: a.example}]"
TWO = ONE.replace("]", ", {name: b, port: 80, protocol: HTTP, hostname: b.example}]")


def generations(found: dict[str, Any]) -> set[int]:
    status = found["status"]
    nested = [*status.get("listeners", ()), *status.get("parents", ())]
    conditions = [
        *status.get("conditions", ()),
        *(each for item in nested for each in item["conditions"]),
    ]
    return {item["observedGeneration"] for item in conditions}


def test_listeners_come_and_go_and_conditions_follow(site: Site) -> None:
    address = {"address": "127.0.0.4"}
    site.write("changed.yaml", CHANGED.format(listeners=ONE, host="a.example", server="v1"))
    site.becomes("v1", "/", host="a.example", **address)
    before = site.instance.object("gateway", "changed")
    site.write("changed.yaml", CHANGED.format(listeners=TWO, host="b.example", server="v1"))
    site.becomes("v1", "/", host="b.example", **address)

    def listed() -> dict[str, int]:
        status = site.instance.object("gateway", "changed")["status"]
        return {item["name"]: item["attachedRoutes"] for item in status["listeners"]}

    eventually(lambda: listed() == {"a": 0, "b": 1}, 10)
    now = site.instance.object("gateway", "changed")
    assert now["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert generations(now) == {now["metadata"]["generation"]}
    site.write("changed.yaml", CHANGED.format(listeners=ONE, host="b.example", server="v2"))
    eventually(lambda: listed() == {"a": 0}, 10)
    eventually(
        lambda: (
            reasons(site.conditions("httproute", "changed"))["Accepted"]
            == ("False", "NoMatchingListenerHostname")
        ),
        10,
    )
    route = site.instance.object("httproute", "changed")
    assert generations(route) == {route["metadata"]["generation"]}
    assert route["metadata"]["generation"] > 1


def test_addresses_come_and_go_while_the_others_serve(site: Site) -> None:
    text = CHANGED.format(listeners=ONE, host="a.example", server="v3").replace("changed", "moved")

    def ask_for(*addresses: str) -> None:
        listed = ", ".join(f"{{value: {item}}}" for item in addresses)
        site.write("moved.yaml", text.replace("{value: 127.0.0.4}", listed))

    ask_for("127.0.0.8")
    site.becomes("v3", "/", host="a.example", address="127.0.0.8")
    ask_for("127.0.0.8", "127.0.0.9")
    site.becomes("v3", "/", host="a.example", address="127.0.0.9")
    assert site.to("/", host="a.example", address="127.0.0.8") == "v3"
    ask_for("127.0.0.9")
    site.becomes(NOBODY, "/", host="a.example", address="127.0.0.8")
    assert site.to("/", host="a.example", address="127.0.0.9") == "v3"


def test_what_has_not_changed_keeps_its_status_to_the_letter(site: Site) -> None:
    names = [("gateway", "front"), ("httproute", "matching"), ("gatewayclass", "any")]
    before = [site.instance.object(*name) for name in names]
    text = CHANGED.format(listeners=ONE, host="z.example", server="v3").replace("changed", "fresh")
    site.write("fresh.yaml", text.replace("127.0.0.4", "127.0.0.6"))
    site.becomes(404, "/", host="z.example", address="127.0.0.6")
    assert [site.instance.object(*name) for name in names] == before
