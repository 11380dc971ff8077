"""What the inference extension's conformance suite checks, test by test, through the real Envoy.

The suite itself needs a cluster; these are its 14 tests by what they assert. The pickers are not
ours, speak TLS with a certificate of their own, and answer headers only after the body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.stage import (
    CONTROLLER,
    SECONDARY,
    Stage,
    backend,
    pool,
    raised,
    route,
)
from tests.e2e.foreign_picker import SELECTION, SERVED, service
from tests.e2e.instances import eventually

pytestmark = pytest.mark.e2e

SECOND_HOST = "secondary.example.com"
ACCEPTED = ("True", "Accepted")
RESOLVED = ("True", "ResolvedRefs")
GOOD = {"Accepted": ACCEPTED, "ResolvedRefs": RESOLVED}
BODY = {"model": "m", "prompt": "Hello"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with raised(tmp_path_factory.mktemp("stage")) as found:
        yield found


def test_inference_pool_accepted(stage: Stage) -> None:
    with stage.given("route", route("r", ["primary"], [("/", [backend("primary")])])):
        eventually(lambda: stage.conditions("InferencePool", "primary", "primary") == GOOD)
        assert stage.conditions("HTTPRoute", "r", "primary") == GOOD
        item = stage.get("InferencePool", "primary")
        assert item is not None
        (entry,) = item["status"]["parents"]
        assert entry["controllerName"] == CONTROLLER
        assert entry["parentRef"] == {
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "namespace": "default",
            "name": "primary",
        }


def test_http_route_invalid_inference_pool_ref(stage: Stage) -> None:
    with stage.given("route", route("r", ["primary"], [("/", [backend("not-there")])])):
        wanted = {"Accepted": ACCEPTED, "ResolvedRefs": ("False", "BackendNotFound")}
        eventually(lambda: stage.conditions("HTTPRoute", "r", "primary") == wanted)
        assert eventually(lambda: stage.ask("/").status == 500)


def test_http_route_multiple_gateways_different_pools(stage: Stage) -> None:
    first = route("a", ["primary"], [("/", [backend("primary")])], ["primary.example.com"])
    second = route("b", ["secondary"], [("/", [backend("secondary")])], [SECOND_HOST])
    with stage.given("routes", first + second):
        eventually(lambda: stage.reaches("primary", "/", host="primary.example.com"))
        eventually(lambda: stage.reaches("secondary", "/", port=SECONDARY, host=SECOND_HOST))
        assert stage.parents("primary") == ["primary"]
        assert stage.parents("secondary") == ["secondary"]


def test_http_route_multiple_rules_different_pools(stage: Stage) -> None:
    rules = [("/primary", [backend("primary")]), ("/secondary", [backend("secondary")])]
    with stage.given("route", route("r", ["primary"], rules)):
        eventually(lambda: stage.reaches("primary", "/primary"))
        eventually(lambda: stage.reaches("secondary", "/secondary"))
        for _ in range(5):
            assert stage.reaches("primary", "/primary")
            assert stage.reaches("secondary", "/secondary")


def test_inference_pool_http_route_port_validation(stage: Stage) -> None:
    rules = [
        ("/unset", [backend("primary")]),
        ("/right", [backend("primary", port=3000)]),
        ("/wrong", [backend("primary", port=8888)]),
    ]
    with stage.given("route", route("r", ["primary"], rules)):
        for prefix, _ in rules:
            eventually(lambda prefix=prefix: stage.reaches("primary", prefix))  # type: ignore[misc]
        assert stage.conditions("HTTPRoute", "r", "primary") == GOOD


@pytest.mark.parametrize(
    "reference",
    [
        {"kind": "Chooser", "group": "example.com", "name": "primary-epp"},
        {"name": "primary-epp", "port": {"number": 9}},
    ],
    ids=["a kind that nobody knows", "a port that the Service does not have"],
)
def test_inference_pool_invalid_epp_service(stage: Stage, reference: dict[str, object]) -> None:
    text = pool("invalid", "primary", picker="PICKER").replace(
        '{"name": "PICKER", "port": {"number": 9002}}', str(reference).replace("'", '"')
    )
    with stage.given("route", text + route("r", ["primary"], [("/", [backend("invalid")])])):
        wanted = {"Accepted": ACCEPTED, "ResolvedRefs": ("False", "InvalidExtensionRef")}
        eventually(lambda: stage.conditions("InferencePool", "invalid", "primary") == wanted)
        assert stage.conditions("HTTPRoute", "r", "primary")["Accepted"] == ACCEPTED
        assert eventually(lambda: stage.ask("/", body=BODY).status == 503)


def test_inference_pool_missing_epp_ref(stage: Stage) -> None:
    # On one machine our own picker picks where none is named.
    text = pool("alone", "primary", picker=None)
    with stage.given("route", text + route("r", ["primary"], [("/alone", [backend("alone")])])):
        eventually(lambda: stage.conditions("InferencePool", "alone", "primary") == GOOD)
        assert stage.conditions("HTTPRoute", "r", "primary") == GOOD
        eventually(lambda: stage.reaches("primary", "/alone", body=BODY))


def test_inference_pool_resolved_refs_condition(stage: Stage) -> None:
    first = route("a", ["primary"], [("/", [backend("primary")])])
    second = route("b", ["secondary"], [("/", [backend("primary")])], [SECOND_HOST])
    with stage.given("second", second):
        with stage.given("first", first):
            for gateway in ("primary", "secondary"):
                eventually(
                    lambda gateway=gateway: (  # type: ignore[misc]
                        stage.conditions("InferencePool", "primary", gateway) == GOOD
                    )
                )
            eventually(lambda: stage.reaches("primary", "/"))
            eventually(lambda: stage.reaches("primary", "/", port=SECONDARY, host=SECOND_HOST))
        eventually(lambda: stage.ask("/").status == 404)
        assert eventually(lambda: stage.parents("primary") == ["secondary"])
        assert stage.reaches("primary", "/", port=SECONDARY, host=SECOND_HOST)
    eventually(lambda: stage.ask("/", port=SECONDARY, host=SECOND_HOST).status == 404)
    assert eventually(lambda: stage.parents("primary") == [] or None) is not None


def test_the_status_goes_with_the_gateway_although_the_route_still_names_the_pool(
    stage: Stage,
) -> None:
    gateway = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: passing}
spec:
  gatewayClassName: pointsman
  listeners: [{name: http, protocol: HTTP, port: 9180, hostname: passing.example.com}]
"""
    with stage.given("route", route("r", ["passing"], [("/", [backend("primary")])])):
        with stage.given("gateway", gateway):
            eventually(lambda: stage.parents("primary") == ["passing"])
        assert eventually(lambda: stage.parents("primary") == [])


def picked(stage: Stage, path: str, selection: str, count: int = 100) -> Counter[str]:
    """Who answered `count` requests, ten at a time."""

    def one(_: int) -> str:
        answer = stage.ask(path, body=BODY, headers={SELECTION: selection})
        served = stage.served_by(answer)
        assert answer.headers[SERVED] == served
        return served

    with ThreadPoolExecutor(10) as pool_:
        return Counter(pool_.map(one, range(count)))


def test_gateway_following_epp_routing(stage: Stage) -> None:
    hosts = [address.partition(":")[0] for address in stage.addresses["primary"]]
    with stage.given("route", route("r", ["primary"], [("/following", [backend("primary")])])):
        eventually(lambda: stage.reaches("primary", "/following", body=BODY))
        for wanted in ([0], [2], [1, 0]):
            found = picked(stage, "/following", ",".join(hosts[n] for n in wanted), 50)
            # The first of the list that can be reached answers.
            assert set(found) == {stage.addresses["primary"][wanted[0]]}


def test_gateway_following_epp_routing_with_data_parallelism(stage: Stage) -> None:
    addresses = stage.addresses["dp"]
    with stage.given("route", route("r", ["primary"], [("/ports", [backend("dp")])])):
        eventually(lambda: stage.reaches("dp", "/ports", body=BODY))
        for address in addresses:
            assert set(picked(stage, "/ports", address, 10)) == {address}
        host = addresses[0].partition(":")[0]
        assert {item.partition(":")[0] for item in picked(stage, "/ports", host, 20)} == {host}


def test_gateway_weighted_across_two_inference_pools(stage: Stage) -> None:
    refs = [backend("primary", weight=70), backend("secondary", weight=30)]
    hosts = ",".join(
        address.partition(":")[0]
        for name in ("primary", "secondary")
        for address in stage.addresses[name]
    )
    with stage.given("route", route("r", ["primary"], [("/weighted", refs)])):
        eventually(lambda: stage.reaches("secondary", "/weighted", body=BODY))
        count = 200
        found = picked(stage, "/weighted", hosts, count)
        # A picker knows only its own pool: every answer means that the right one was asked.
        share = sum(found[address] for address in stage.addresses["primary"]) / count
        assert sum(found.values()) == count
        assert abs(share - 0.7) < 0.146


def test_epp_unavailable_fail_open(stage: Stage) -> None:
    gone = service("secondary-epp").replace("app: secondary-epp", "app: nobody")
    there = stage.folder / "base.yaml"
    text = there.read_text()
    found = route("r", ["primary"], [("/open", [backend("secondary")])])
    chosen = stage.addresses["secondary"][1]
    with stage.given("route", found):
        eventually(lambda: stage.reaches("secondary", "/open", body=BODY))
        assert set(picked(stage, "/open", chosen, 10)) == {chosen}
        try:
            there.write_text(text.replace(service("secondary-epp"), gone))
            # Nobody asks any more, so nobody says who served.
            eventually(lambda: SERVED not in stage.ask("/open", body=BODY).headers)
            for size in (10, 200_000):
                body = {**BODY, "prompt": "x" * size}
                for _ in range(10):
                    assert stage.reaches("secondary", "/open", body=body)
        finally:
            there.write_text(text)
        eventually(lambda: SERVED in stage.ask("/open", body=BODY).headers)


def test_gateway_destination_endpoint_served(stage: Stage) -> None:
    with stage.given("route", route("r", ["primary"], [("/served", [backend("primary")])])):
        eventually(lambda: stage.reaches("primary", "/served", body=BODY))
        for address in stage.addresses["primary"]:
            answer = stage.ask("/served", body=BODY, headers={SELECTION: address})
            assert answer.headers[SERVED] == address == stage.served_by(answer)


def test_inference_pool_app_protocol(stage: Stage) -> None:
    rules = [("/h2c", [backend("h2c")]), ("/http", [backend("appprotocol")])]
    rules.append(("/default", [backend("primary")]))
    with stage.given("route", route("r", ["primary"], rules)):
        for name, prefix in (("h2c", "/h2c"), ("appprotocol", "/http"), ("primary", "/default")):
            eventually(
                lambda name=name, prefix=prefix: stage.reaches(name, prefix)  # type: ignore[misc]
            )
            for address in stage.addresses[name]:
                answer = stage.ask(prefix, body=BODY, headers={SELECTION: address})
                assert stage.served_by(answer) == address
                expected = "HTTP/2" if name == "h2c" else "HTTP/1.1"
                assert answer.json["protocol"] == expected
