"""Who is to blame for what Envoy refuses, found by asking the real Envoy."""

from __future__ import annotations

import asyncio

import pytest

from pointsman.gateway.routes import regexes
from pointsman.gateway.snapshot import LISTENER, ROUTE_CONFIGURATION, Key
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import translate
from pointsman.resources.base import Ref
from pointsman.xds.culprits import culprits
from pointsman.xds.dry_run import check
from tests.gateway.test_golden import OPTIONS, loaded
from tests.manifests import switched_on

pytestmark = pytest.mark.e2e

COMMON = (
    switched_on("enableEnvoyPatchPolicy")
    + """---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners: [{name: all, protocol: HTTP, port: 9080}]
"""
)
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{number}}}
spec:
  parentRefs: [{{name: front}}]
  rules:
    - matches: [{{path: {{type: RegularExpression, value: "{path}"}}}}]
      filters: [{{type: RequestRedirect, requestRedirect: {{hostname: c.example}}}}]
"""
POLICY = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyPatchPolicy
metadata: {{name: {name}}}
spec:
  type: JSONPatch
  targetRef: {{group: gateway.networking.k8s.io, kind: Gateway, name: front}}
  jsonPatches:
"""
PATCH = """\
    - type: type.googleapis.com/envoy.config.listener.v3.Listener
      name: default/front/all
      operation:
        op: add
        path: /default_filter_chain/filters/0/typed_config/{field}
        value: {value}
"""
GOOD = PATCH.format(field="server_name", value="a")
BAD = PATCH.format(field="stat_prefix", value="''")
WORSE = PATCH.format(field="max_request_headers_kb", value="100000")
LISTENER_KEY = Key(LISTENER, "default/front/all")
ROUTES_KEY = Key(ROUTE_CONFIGURATION, "default/front/all")


def test_of_many_patches_the_bad_ones_are_found_and_the_others_serve() -> None:
    policies = [
        POLICY.format(name="one") + GOOD + BAD,
        POLICY.format(name="two") + GOOD + GOOD + WORSE + GOOD,
    ]
    store = loaded(COMMON + "".join(policies))
    found = translate(store, OPTIONS)
    bad = asyncio.run(culprits(store, found, LISTENER_KEY, {}))
    assert [(item.policy.name, item.position) for item in bad if not isinstance(item, Ref)] == [
        ("one", 1),
        ("two", 2),
    ]
    served = translate(store, OPTIONS, found, bad)
    asyncio.run(check(served.snapshot))
    told = [list(outcome.errors) for outcome in served.patches]
    assert [len(errors) for errors in told] == [1, 1]
    assert "StatPrefix" in told[0][0]


def test_without_a_bad_patch_nobody_is_blamed() -> None:
    store = loaded(COMMON + POLICY.format(name="one") + GOOD)
    found = translate(store, OPTIONS)
    assert asyncio.run(culprits(store, found, LISTENER_KEY, {})) == {}


def test_a_route_that_envoy_refuses_is_left_out_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What Envoy would refuse is seen before it; only a hole in that lets a route come so far.
    monkeypatch.setattr(regexes, "problem", lambda _: None)
    paths = {number: f"/r/{number}" for number in range(20)} | {7: "/(", 13: "/[z-a]"}
    routes = (ROUTE.format(number=number, path=path) for number, path in paths.items())
    store = loaded(COMMON + "".join(routes))
    found = translate(store, OPTIONS)
    bad = asyncio.run(culprits(store, found, ROUTES_KEY, {}))
    assert sorted(item.name for item in bad if isinstance(item, Ref)) == ["r13", "r7"]
    served = translate(store, OPTIONS, found, bad)
    asyncio.run(check(served.snapshot))
    kept = [name for name, part in served.parts.items() if part.hosts]
    assert len(kept) == 18
    told = statuses(store, served, EnvoyFacts(connected=1), OPTIONS)
    for ref, words in bad.items():
        assert isinstance(ref, Ref)
        accepted = told[ref]["parents"][0]["conditions"][0]
        assert (accepted["type"], accepted["status"]) == ("Accepted", "False")
        assert words in accepted["message"]
