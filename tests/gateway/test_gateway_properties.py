"""Whatever valid Gateways, ListenerSets and TLS policies there are: Envoy takes what comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pointsman.gateway import snapshot
from pointsman.gateway.options import Options
from pointsman.gateway.snapshot import Snapshot
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import Translation, translate
from pointsman.resources.parse import parse_object
from pointsman.xds.dry_run import check
from tests.conformance.certificates import Authority, secret
from tests.gateway.test_golden import OPTIONS, loaded
from tests.gateway.test_route_properties import (
    API,
    BACKENDS,
    GRPC_RULES,
    HOSTS,
    HTTP_RULES,
    NEIGHBOURS,
    named,
    routes,
    some,
)

AUTHORITY = Authority("properties")
OBJECTS = (
    BACKENDS
    + secret("cert", AUTHORITY.issue("a.example", "*.b.example"))
    + secret("other", AUTHORITY.issue("c.example"), "other")
    + "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: odd}\nstringData: {tls.crt: odd}\n"
    + AUTHORITY.config_map("ca")
    + "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: empty}\ndata: {ca.crt: none}\n"
)
"""What Gateways and policies refer to, beside what routes lead to."""

PARENTS = (
    {"name": "front", "namespace": "default"},
    {"name": "gateway-0", "namespace": "default"},
    {"name": "gateway-1", "namespace": "default"},
    {"name": "gateway-0", "namespace": "default", "sectionName": "l1"},
    {"kind": "ListenerSet", "name": "set-0", "namespace": "default"},
)
GOOD_CERTIFICATE = st.just({"name": "cert"})
CERTIFICATES = GOOD_CERTIFICATE | st.sampled_from(
    [{"name": "odd"}, {"name": "gone"}, {"name": "other", "namespace": "other"},
     {"name": "cert", "kind": "ConfigMap"}]
)  # fmt: skip
AUTHORITIES = st.just({"group": "", "kind": "ConfigMap", "name": "ca"}) | st.sampled_from(
    [{"group": "", "kind": kind, "name": name}
     for kind in ("ConfigMap", "Secret", "Odd") for name in ("ca", "empty", "cert", "gone")]
)  # fmt: skip
TLS = st.fixed_dictionaries(
    {"certificateRefs": st.lists(CERTIFICATES, min_size=1, max_size=2)},
    optional={"options": st.just({"example.com/a": "b"})},
)
Choices = st.SearchStrategy[Any]


def mapping(
    given: dict[str, Choices], optional: dict[str, Choices] | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with all of `given` and any of `optional`."""
    return st.fixed_dictionaries(given, optional=optional or {})


ALLOWED = st.sampled_from(
    [{"namespaces": {"from": "All"}}, {"kinds": [{"kind": "GRPCRoute"}, {"kind": "Odd"}]}]
)


def listener(protocol: str, ports: list[int], **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    found = mapping(
        {"port": st.sampled_from(ports), **more}, {"hostname": HOSTS, "allowedRoutes": ALLOWED}
    )
    return found.map(lambda item: {"protocol": protocol, **item})


LISTENER = st.one_of(
    listener("HTTP", [80, 80, 8080]),
    listener("HTTPS", [443, 443, 8080], tls=TLS),
    listener("HTTPS", [443], tls=st.just({"certificateRefs": [{"name": "cert"}]})),
    listener("TLS", [443], tls=st.just({"mode": "Passthrough"})),
)


def listeners(most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Listeners by the names `l0`, `l1`..."""

    def place(item: dict[str, Any]) -> tuple[Any, ...]:
        return (item["port"], item["protocol"], item.get("hostname"))

    found = st.lists(LISTENER, min_size=1, max_size=most, unique_by=place)
    return found.map(lambda items: [{**item, "name": f"l{n}"} for n, item in enumerate(items)])


VALIDATED = st.fixed_dictionaries(
    {"caCertificateRefs": st.lists(AUTHORITIES, min_size=1, max_size=2)},
    optional={"mode": st.sampled_from(["AllowValidOnly", "AllowInsecureFallback"])},
).map(lambda found: {"validation": found})
VALIDATION: Choices = VALIDATED | st.just({})
ADDRESSES: Choices = st.sampled_from(
    [{"value": "127.0.0.2"}, {"value": "127.0.0.3"}, {"value": "192.0.2.1"}, {"value": "::1"},
     {"type": "IPAddress"}, {"type": "Hostname", "value": "a.example"}]
)  # fmt: skip
GATEWAYS: Choices = mapping(
    {
        "gatewayClassName": st.just("any"),
        "listeners": listeners(4),
        "allowedListeners": st.sampled_from(
            [{"namespaces": {"from": where}} for where in ("All", "Same", "None")]
        ),
    },
    optional={
        "addresses": st.lists(ADDRESSES, max_size=2, unique_by=lambda item: item.get("value")),
        "infrastructure": st.sampled_from(
            [{"labels": {"a": "b"}}, {"annotations": {"a": "b"}},
             {"parametersRef": {"group": "example.com", "kind": "Odd", "name": "a"}}]
        ),
        "tls": some(
            backend=st.fixed_dictionaries({"clientCertificateRef": CERTIFICATES}),
            frontend=st.fixed_dictionaries(
                {"default": VALIDATION},
                optional={
                    "perPort": st.lists(
                        st.fixed_dictionaries({"port": st.just(443), "tls": VALIDATION}),
                        max_size=1,
                    )
                },
            ),
        ),
    },
)  # fmt: skip
SETS = st.fixed_dictionaries(
    {
        "parentRef": st.sampled_from(
            [{"name": name} for name in ("gateway-0", "gateway-1", "front")]
        ),
        "listeners": listeners(3),
    }
)
NAMES = st.sampled_from(["a.example", "b.a.example"])
TLS_POLICIES = st.fixed_dictionaries(
    {
        "targetRefs": st.lists(
            st.sampled_from(
                [{"group": "", "kind": "Service", "name": "web"},
                 {"group": "", "kind": "Service", "name": "web", "sectionName": "h2"},
                 {"group": "", "kind": "Service", "name": "sliced"},
                 {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "names"},
                 {"group": "gateway.envoyproxy.io", "kind": "Backend", "name": "sockets"},
                 {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "llm"},
                 {"group": "example.com", "kind": "Odd", "name": "a"}]
            ),
            min_size=1, max_size=2, unique_by=lambda item: item["name"],
        ),
        "validation": st.builds(
            lambda trust, name, more: {**trust, "hostname": name, **more},
            st.lists(AUTHORITIES, min_size=1, max_size=2).map(
                lambda found: {"caCertificateRefs": found}
            )
            | st.sampled_from(
                [{"wellKnownCACertificates": "System"}, {"wellKnownCACertificates": "a.b/c"}]
            ),
            NAMES,
            some(
                subjectAltNames=st.lists(
                    NAMES.map(lambda name: {"type": "Hostname", "hostname": name})
                    | st.just({"type": "URI", "uri": "spiffe://a.example/b"}),
                    max_size=2,
                )
            ),
        ),
    }
)  # fmt: skip


def objects(
    kind: str, name: str, specs: st.SearchStrategy[Any], most: int
) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(specs, min_size=1, max_size=most).map(
        lambda found: [
            named(f"{API}/v1", kind, f"{name}-{n}", {"spec": spec}) for n, spec in enumerate(found)
        ]
    )


WRITTEN = st.tuples(
    objects("Gateway", "gateway", GATEWAYS, 2),
    objects("ListenerSet", "set", SETS, 2),
    objects("BackendTLSPolicy", "tls", TLS_POLICIES, 3),
    NEIGHBOURS,
).map(lambda groups: [item for group in groups for item in group])


@st.composite
def attached(draw: st.DrawFn) -> list[dict[str, Any]]:
    """HTTPRoutes and GRPCRoutes of several parents."""
    found = [*draw(routes("HTTPRoute", HTTP_RULES)), *draw(routes("GRPCRoute", GRPC_RULES))]
    for index, item in enumerate(found):
        parents = draw(st.lists(st.sampled_from(PARENTS), min_size=1, max_size=2))
        item["spec"]["parentRefs"] = parents
        item["metadata"]["name"] = f"route-{index}"
    return found


def parts_of(translation: Translation) -> Iterator[Snapshot]:
    """What each Envoy would get: all of it on one machine, else what is of one Gateway."""
    found = translation.snapshot
    if translation.scene.options.is_alone:
        yield found
        return
    for served in translation.gateways:
        mine = {
            name
            for item in translation.listeners
            if item.gateway.ref == served.gateway.ref
            for name in item.sockets.values()
        }
        yield Snapshot.of(
            item
            for item in found
            if item.key.type_url != snapshot.LISTENER or item.key.name in mine
        )


def parsed(written: Sequence[dict[str, Any]]) -> list[Any]:
    return [item for item in (parse_object(each).resource for each in written) if item is not None]


@pytest.mark.e2e
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)
@given(WRITTEN, attached(), st.booleans())
def test_no_valid_gateways_are_refused_by_envoy(
    written: list[dict[str, Any]], found: list[dict[str, Any]], is_alone: bool
) -> None:
    options = OPTIONS if is_alone else replace(Options(), advertised_address="127.0.0.2")
    store = loaded(OBJECTS)
    store.apply(parsed([*written, *found]))
    translation = translate(store, options)
    assert translation.listeners
    told = statuses(store, translation, EnvoyFacts(), options)
    # Every Gateway says whether it is accepted, and every listener of one that is.
    for ref, status in told.items():
        if ref.kind == "Gateway":
            assert status["conditions"][0]["type"] == "Accepted"
            assert all(item["conditions"] for item in status["listeners"])
    for part in parts_of(translation):
        asyncio.run(check(part))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(WRITTEN, attached())
def test_neither_the_order_nor_the_pace_in_which_objects_come_matters(
    written: list[dict[str, Any]], found: list[dict[str, Any]]
) -> None:
    objects = parsed([*written, *found])
    forward, backward = loaded(OBJECTS), loaded(OBJECTS)
    forward.apply(objects)
    one, other = translate(forward, OPTIONS), None
    for item in reversed(objects):
        backward.apply([item])
        other = translate(backward, OPTIONS, other)
    other = translate(backward, OPTIONS, other)
    assert {item.key: item.version for item in one.snapshot} == {
        item.key: item.version for item in other.snapshot
    }
