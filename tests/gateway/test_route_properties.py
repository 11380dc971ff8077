"""Whatever valid routes there are: nothing raises, and Envoy takes what comes out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pointsman.gateway.options import Options
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import Translation, translate
from pointsman.resources.parse import parse_object
from pointsman.store import Store
from pointsman.xds.dry_run import check
from tests.gateway.test_golden import OPTIONS, loaded
from tests.manifests import switched_on

API = "gateway.networking.k8s.io"

BACKENDS = (
    switched_on("enableBackend")
    + """---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: any}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: any
  listeners:
    - {name: all, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}
    - {name: own, protocol: HTTP, port: 80, hostname: "*.a.example"}
    - {name: calls, protocol: HTTP, port: 8080, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: all}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}]
  to: [{group: "", kind: Service}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: h2, port: 81, appProtocol: kubernetes.io/h2c}]
---
apiVersion: v1
kind: Service
metadata: {name: sliced}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sliced-1, labels: {kubernetes.io/service-name: sliced}}
addressType: IPv6
endpoints: [{addresses: ["2001:db8::1"]}, {addresses: ["2001:db8::2"]}]
ports: [{name: http, port: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sliced-2, labels: {kubernetes.io/service-name: sliced}}
addressType: FQDN
endpoints: [{addresses: [server.example.com]}]
ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, labels: {app: web}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: odd, labels: {app: web}}
status: {podIP: not an address}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: names}
spec: {endpoints: [{fqdn: {hostname: one.example.com, port: 80}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: sockets}
spec: {endpoints: [{unix: {path: /run/a.sock}}, {ip: {address: 10.0.0.2, port: 80}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: deep}
spec: {endpoints: [{unix: {path: LONG}}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llm}
spec: {selector: {matchLabels: {app: web}}, targetPorts: [{number: 8000}]}
""".replace("LONG", "/run/" + "a" * 120)
)

NAMES = st.sampled_from(["x-a", "X-A", "Host", "Content-Type", "x_b", "%", "Connection"])
TEXTS = st.sampled_from(["a", "50%", "é", "a\nb", "\x00", " ", "%REQ(a)%", "a\tb"]) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=8
)
REGEXES = st.sampled_from(["a+", "(", "(?=a)", "/v[0-9]+", r"\1", "(?i)x", "", "a{1001}"]) | TEXTS
PATHS = st.sampled_from(["/", "/a", "/a/", "/a/b", "/%20", "/a.b+c", "", "a", "/a\\1", "//", "/\n"])
DURATIONS = st.sampled_from(["0s", "1ms", "1s", "5m", "99999h"])
HOSTS = st.sampled_from(["a.example", "b.a.example", "*.a.example", "*.b.a.example", "c.example"])
MATCH_TYPES = st.sampled_from(["Exact", "RegularExpression"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any of `fields`."""
    return st.fixed_dictionaries({}, optional=fields)


def one_of(kind: str, field: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return value.map(lambda found: {"type": kind, field: found})


MODIFIERS = some(
    set=st.lists(st.fixed_dictionaries({"name": NAMES, "value": TEXTS}), max_size=2),
    add=st.lists(st.fixed_dictionaries({"name": NAMES, "value": TEXTS}), max_size=2),
    remove=st.lists(NAMES | st.sampled_from(["", ":path", "a b"]), max_size=2),
)
PATH_CHANGES = one_of("ReplaceFullPath", "replaceFullPath", PATHS) | one_of(
    "ReplacePrefixMatch", "replacePrefixMatch", PATHS
)
TARGETS = st.sampled_from(
    [
        {"name": "web", "port": 80}, {"name": "web", "port": 81}, {"name": "web", "port": 9},
        {"name": "sliced", "port": 80}, {"name": "gone", "port": 80},
        {"name": "web", "port": 80, "namespace": "default"},
        *({"group": "gateway.envoyproxy.io", "kind": "Backend", "name": name}
          for name in ("names", "sockets", "deep", "gone")),
        {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "llm"},
        {"group": "example.com", "kind": "Odd", "name": "a"},
    ]
)  # fmt: skip
MIRRORS = st.builds(
    lambda target, share: {"backendRef": target, **share},
    TARGETS,
    st.sampled_from([{}, {"percent": 0}, {"percent": 100}, {"fraction": {"numerator": 1}}])
    | st.integers(1, 2**31 - 1).map(lambda n: {"fraction": {"numerator": n, "denominator": n}}),
)
HEADER_FILTERS = one_of("RequestHeaderModifier", "requestHeaderModifier", MODIFIERS) | one_of(
    "ResponseHeaderModifier", "responseHeaderModifier", MODIFIERS
)
GRPC_FILTERS = HEADER_FILTERS | one_of("RequestMirror", "requestMirror", MIRRORS)
REDIRECTS = some(
    scheme=st.sampled_from(["http", "https"]),
    hostname=st.just("b.example"),
    path=PATH_CHANGES,
    port=st.integers(1, 65535),
    statusCode=st.sampled_from([301, 302, 303, 307, 308]),
)
CORS = some(
    allowOrigins=st.lists(
        st.sampled_from(["*", "https://a.example", "https://*.a.example", "http://*:8080"]),
        max_size=2, unique=True,
    ),
    allowMethods=st.lists(st.sampled_from(["*", "GET", "PUT"]), max_size=2, unique=True),
    allowHeaders=st.lists(NAMES, max_size=2, unique=True),
    exposeHeaders=st.lists(NAMES, max_size=2, unique=True),
    allowCredentials=st.booleans(),
    maxAge=st.integers(1, 2**31 - 1),
)  # fmt: skip
FILTERS = (
    GRPC_FILTERS
    | one_of("RequestRedirect", "requestRedirect", REDIRECTS)
    | one_of("URLRewrite", "urlRewrite", some(hostname=st.just("b.example"), path=PATH_CHANGES))
    | one_of("CORS", "cors", CORS)
)


def backend_refs(filters: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    more = some(weight=st.sampled_from([0, 1, 1_000_000]), filters=st.lists(filters, max_size=2))
    return st.lists(st.builds(lambda a, b: {**a, **b}, TARGETS, more), max_size=3)


def header_matches(kinds: st.SearchStrategy[str]) -> st.SearchStrategy[list[Any]]:
    found = st.fixed_dictionaries({"name": NAMES, "value": TEXTS | REGEXES, "type": kinds})
    return st.lists(found, max_size=2)


HTTP_RULES = some(
    matches=st.lists(
        some(
            path=some(
                type=st.sampled_from(["Exact", "PathPrefix", "RegularExpression"]),
                value=PATHS | REGEXES,
            ),
            headers=header_matches(MATCH_TYPES),
            queryParams=header_matches(MATCH_TYPES),
            method=st.sampled_from(["GET", "CONNECT"]),
        ),
        max_size=2,
    ),
    filters=st.lists(FILTERS, max_size=2),
    backendRefs=backend_refs(FILTERS),
    timeouts=some(request=DURATIONS, backendRequest=DURATIONS),
    retry=some(
        codes=st.lists(st.integers(400, 599), max_size=3),
        attempts=st.integers(-(2**31), 2**31 - 1),
        backoff=DURATIONS,
    ),
    sessionPersistence=some(
        sessionName=st.sampled_from(["a", "", "a b", "a;\n"]),
        type=st.sampled_from(["Cookie", "Header"]),
        absoluteTimeout=DURATIONS,
        cookieConfig=st.just({"lifetimeType": "Permanent"}),
    ),
)
GRPC_RULES = some(
    matches=st.lists(
        some(
            method=some(
                type=MATCH_TYPES,
                service=st.sampled_from(["a.B", ".a", ""]) | REGEXES,
                method=st.sampled_from(["Get", ""]) | REGEXES,
            ),
            headers=header_matches(MATCH_TYPES),
        ),
        max_size=2,
    ),
    filters=st.lists(GRPC_FILTERS, max_size=2),
    backendRefs=backend_refs(HEADER_FILTERS),
)


PORT_NUMBERS = st.sampled_from([80, 8080, 65535])
POOLS = st.fixed_dictionaries(
    {
        "selector": st.sampled_from([{"matchLabels": {"app": "web"}}, {"matchLabels": {"a": "b"}}]),
        "targetPorts": st.lists(PORT_NUMBERS, min_size=1, max_size=3, unique=True).map(
            lambda ports: [{"number": port} for port in ports]
        ),
    },
    optional={
        "appProtocol": st.sampled_from(["http", "kubernetes.io/h2c"]),
        "endpointPickerRef": st.builds(
            lambda name, port, mode: {"name": name, "port": {"number": port}, "failureMode": mode},
            st.sampled_from(["web", "sliced", "gone"]),
            PORT_NUMBERS,
            st.sampled_from(["FailOpen", "FailClose"]),
        ),
    },
)
ADDRESSES = st.sampled_from(
    ["10.0.0.1", "::1", "2001:db8::1", "fe80::1%eth0", "010.0.0.1", "::ffff:10.0.0.1", "a.example",
     "", "0.0.0.0"]
)  # fmt: skip
PODS = st.builds(
    lambda address, port: {
        "metadata": {"labels": {"app": "web"}, "annotations": {"pointsman.dev/ports": port}},
        "status": {"podIP": address},
    },
    ADDRESSES,
    st.sampled_from(["80=8080", "80=0", "80=99999", "=", ""]),
)
SLICES = st.builds(
    lambda addresses, ports: {
        "metadata": {"labels": {"kubernetes.io/service-name": "sliced"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [item]} for item in addresses],
        "ports": ports,
    },
    st.lists(ADDRESSES, max_size=3),
    st.lists(some(name=st.sampled_from(["http", ""]), port=PORT_NUMBERS), max_size=2),
)
BODIES = st.sampled_from(["Streamed", "Buffered", "BufferedPartial", "FullDuplexStreamed"])
PROCESSORS = some(
    backendRefs=st.lists(TARGETS, max_size=2),
    messageTimeout=DURATIONS,
    failOpen=st.booleans(),
    processingMode=some(request=some(body=BODIES), response=some(body=BODIES)),
    backendSettings=some(
        timeout=some(tcp=some(connectTimeout=DURATIONS)),
        circuitBreaker=some(maxConnections=st.sampled_from([0, 2**32 - 1])),
    ),
)
POLICIES = st.builds(
    lambda kind, name, processors: {
        "targetRefs": [{"group": API, "kind": kind, "name": name}],
        "extProc": processors,
    },
    st.sampled_from(["HTTPRoute", "GRPCRoute", "Gateway"]),
    st.sampled_from(["front", "route-0", "route-12"]),
    st.lists(PROCESSORS, max_size=2),
)


def named(api: str, kind: str, name: str, found: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": "default", **found.get("metadata", {}), "name": name}
    return {"apiVersion": api, "kind": kind, **found, "metadata": metadata}


NEIGHBOURS = st.builds(
    lambda pool, pods, slices, policies: [
        named("inference.networking.k8s.io/v1", "InferencePool", "llm", {"spec": pool}),
        *(named("v1", "Pod", f"pod-{n}", item) for n, item in enumerate(pods)),
        *(named("discovery.k8s.io/v1", "EndpointSlice", f"slice-{n}", item)
          for n, item in enumerate(slices)),
        *(named("gateway.envoyproxy.io/v1alpha1", "EnvoyExtensionPolicy", f"policy-{n}",
                {"spec": item})
          for n, item in enumerate(policies)),
    ],
    POOLS,
    st.lists(PODS, max_size=3),
    st.lists(SLICES, max_size=2),
    st.lists(POLICIES, max_size=3),
)  # fmt: skip
"""What routes lead to, beside what `BACKENDS` has: a pool, its pods, slices, and policies."""


def routes(kind: str, rules: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Routes of one rule, so that one that is not valid takes no others away."""
    metadata = st.fixed_dictionaries({"namespace": st.sampled_from(["default", "other"])})
    spec = st.builds(
        lambda rule, hosts: {
            "parentRefs": [{"name": "front", "namespace": "default"}],
            "hostnames": hosts,
            "rules": [rule],
        },
        rules,
        st.lists(HOSTS, max_size=2, unique=True),
    )
    route = st.builds(
        lambda meta, spec: {
            "apiVersion": f"{API}/v1", "kind": kind, "metadata": meta, "spec": spec
        },
        metadata,
        spec,
    )  # fmt: skip
    return st.lists(route, min_size=12, max_size=25)


def translated(
    written: list[dict[str, Any]], neighbours: list[dict[str, Any]], options: Options
) -> tuple[Store, Translation]:
    store = loaded(BACKENDS)
    for index, item in enumerate(written):
        item["metadata"]["name"] = f"route-{index}"
    for item in (*written, *neighbours):
        found = parse_object(item).resource
        if found is not None:
            store.apply([found])
    return store, translate(store, options)


@pytest.mark.e2e
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)
@given(routes("HTTPRoute", HTTP_RULES), routes("GRPCRoute", GRPC_RULES), NEIGHBOURS, st.booleans())
def test_no_valid_routes_are_refused_by_envoy(
    http: list[dict[str, Any]],
    grpc: list[dict[str, Any]],
    neighbours: list[dict[str, Any]],
    is_alone: bool,
) -> None:
    options = OPTIONS if is_alone else Options()
    store, found = translated([*http, *grpc], neighbours, options)
    assert found.listeners
    statuses(store, found, EnvoyFacts(), options)
    asyncio.run(check(found.snapshot))
