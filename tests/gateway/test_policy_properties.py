"""Whatever valid policies there are: nothing raises, and Envoy takes what comes out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pointsman.gateway.policies.tls_names import CIPHERS, CURVES, SIGNATURES
from pointsman.gateway.snapshot import LISTENER
from pointsman.gateway.statuses.facts import EnvoyFacts
from pointsman.gateway.statuses.objects import statuses
from pointsman.gateway.translate import translate
from pointsman.resources.parse import parse_object
from pointsman.xds.dry_run import check
from tests.conformance.certificates import Authority, secret
from tests.gateway.test_golden import OPTIONS, loaded
from tests.manifests import switched_on

API = "gateway.networking.k8s.io"
ENVOY = "gateway.envoyproxy.io/v1alpha1"
TARGETS = [
    ("Gateway", "gateway", None),
    ("Gateway", "gateway", "http"),
    ("Gateway", "gateway", "secure"),
    ("HTTPRoute", "route", None),
    ("HTTPRoute", "route", "plain"),
    ("HTTPRoute", "route", "pool"),
    ("GRPCRoute", "calls", None),
]

SITE = (
    switched_on("enableBackend")
    + """---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway}
spec:
  gatewayClassName: any
  listeners:
  - {name: http, port: 8080, protocol: HTTP, hostname: http.example.com}
  - {name: secure, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: cert}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: named}
spec: {endpoints: [{fqdn: {hostname: models.example.com, port: 80}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: spare}
spec: {fallback: true, endpoints: [{ip: {address: 127.0.0.1, port: 80}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: first}
spec: {endpoints: [{ip: {address: 127.0.0.1, port: 81}}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {matchLabels: {app: a}}, targetPorts: [{number: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: route}
spec:
  parentRefs: [{name: gateway}]
  rules:
  - name: plain
    matches: [{path: {value: /plain}}]
    backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: first}
    - {group: gateway.envoyproxy.io, kind: Backend, name: spare}
  - name: pool
    matches: [{path: {value: /pool}}]
    backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]
  - backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: named}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls}
spec:
  parentRefs: [{name: gateway}]
  rules: [{backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: first}]}]
"""
)
AUTHORITY = Authority("any")
WHOLE = SITE + secret("cert", AUTHORITY.issue("any.example")) + AUTHORITY.config_map("authority")


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def chosen(values: Any, *, unique: bool = True) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(values)), max_size=4, unique=unique)


DURATIONS = st.sampled_from(["1s", "250ms", "99999h", "2ms", "1ms", "0s"])
SIZES = st.sampled_from([0, 1, "1", "64Ki", "65535", "2Gi", "8Gi", 2**31 - 1, 2**32])
COUNTS = st.sampled_from([0, 1, 7, 2**31 - 1])
LIMITS = st.sampled_from([0, 1, 2**32 - 1])
PERCENTS = st.sampled_from([-1, 0, 1, 100, 101])
FLAGS = st.booleans()
NAMES = st.sampled_from(["x-user", "X-User", "host", "a b", ":path", "é"])
PAYLOADS = st.sampled_from(
    [
        {"type": "Text", "text": "ok"},
        {"type": "Text", "text": ""},
        {"type": "Binary", "binary": "b2s="},
        {"type": "Binary", "binary": "!"},
    ]
)
KEEPALIVE = some(probes=LIMITS, idleTime=DURATIONS, interval=DURATIONS)
HTTP2 = some(
    initialStreamWindowSize=SIZES,
    initialConnectionWindowSize=SIZES,
    maxConcurrentStreams=COUNTS,
    onInvalidMessage=st.sampled_from(["TerminateStream", "TerminateConnection"]),
    connectionKeepalive=some(
        interval=DURATIONS, timeout=DURATIONS, connectionIdleInterval=DURATIONS
    ),
)
BALANCERS = st.one_of(
    st.builds(
        lambda kind, slow: {"type": kind, **slow},
        st.sampled_from(["RoundRobin", "LeastRequest"]),
        some(slowStart=st.fixed_dictionaries({"window": DURATIONS})),
    ),
    st.just({"type": "Random"}),
    st.builds(
        lambda how, size: {"type": "ConsistentHash", "consistentHash": {**how, **size}},
        st.one_of(
            st.just({"type": "SourceIP"}),
            st.builds(lambda name: {"type": "Header", "header": {"name": name}}, NAMES),
            st.builds(
                lambda name, more: {"type": "Cookie", "cookie": {"name": name, **more}},
                NAMES,
                some(ttl=DURATIONS, attributes=st.just({"SameSite": "Lax", "odd": "a;b"})),
            ),
            st.just({"type": "QueryParams", "queryParams": [{"name": "who"}]}),
        ),
        some(tableSize=st.sampled_from([2, 3, 1021, 5000011, 65536])),
    ),
)
CHECKS = some(
    panicThreshold=PERCENTS,
    passive=some(
        splitExternalLocalOriginErrors=FLAGS,
        interval=DURATIONS,
        consecutiveLocalOriginFailures=COUNTS,
        consecutiveGatewayErrors=COUNTS,
        consecutive5XxErrors=COUNTS,
        baseEjectionTime=DURATIONS,
        maxEjectionPercent=PERCENTS,
        failurePercentageThreshold=LIMITS,
        alwaysEjectOneEndpoint=FLAGS,
    ),
    active=st.builds(
        lambda common, kind: {**common, **kind},
        some(
            timeout=DURATIONS,
            interval=DURATIONS,
            initialJitter=DURATIONS,
            unhealthyThreshold=COUNTS,
            healthyThreshold=COUNTS,
        ),
        st.one_of(
            st.builds(
                lambda more: {"type": "HTTP", "http": {"path": "/health", **more}},
                some(
                    method=st.sampled_from(["GET", "post", "CONNECT", "odd one"]),
                    expectedStatuses=st.lists(st.sampled_from([100, 200, 599, 600]), max_size=3),
                    expectedResponse=PAYLOADS,
                ),
            ),
            st.builds(
                lambda more: {"type": "TCP", "tcp": more}, some(send=PAYLOADS, receive=PAYLOADS)
            ),
            st.just({"type": "GRPC", "grpc": {"service": "a"}}),
        ),
    ),
)
RETRIES = some(
    numRetries=COUNTS,
    numAttemptsPerPriority=COUNTS,
    retryOn=some(
        triggers=chosen(["5xx", "reset", "retriable-status-codes", "unavailable"]),
        httpStatusCodes=st.lists(st.sampled_from([100, 503, 600]), max_size=3),
    ),
    perRetry=some(timeout=DURATIONS, backOff=some(baseInterval=DURATIONS, maxInterval=DURATIONS)),
)
TRAFFIC = some(
    timeout=some(
        tcp=some(connectTimeout=DURATIONS),
        http=some(
            requestTimeout=DURATIONS,
            connectionIdleTimeout=DURATIONS,
            maxConnectionDuration=DURATIONS,
            maxStreamDuration=DURATIONS,
            streamIdleTimeout=DURATIONS,
        ),
    ),
    retry=RETRIES,
    circuitBreaker=some(
        maxConnections=LIMITS,
        maxParallelRequests=LIMITS,
        maxRequestsPerConnection=LIMITS,
        perEndpoint=some(maxConnections=LIMITS),
    ),
    connection=some(
        bufferLimit=SIZES,
        socketBufferLimit=SIZES,
        preconnect=some(
            perEndpointPercent=st.sampled_from([100, 300]),
            predictivePercent=st.sampled_from([100, 300, 301]),
        ),
    ),
    dns=some(
        dnsRefreshRate=DURATIONS,
        respectDnsTtl=FLAGS,
        lookupFamily=st.sampled_from(["IPv4", "IPv6", "IPv6Preferred", "IPv4AndIPv6"]),
    ),
    healthCheck=CHECKS,
    loadBalancer=BALANCERS,
    http2=HTTP2,
    tcpKeepalive=KEEPALIVE,
    requestBuffer=st.fixed_dictionaries({"limit": SIZES}),
    useClientProtocol=FLAGS,
    httpUpgrade=st.lists(
        st.sampled_from([{"type": "websocket"}, {"type": "CONNECT"}, {"type": "spdy/3.1"}]),
        max_size=2,
    ),
)
CLIENTS = some(
    timeout=some(
        http=some(
            requestReceivedTimeout=DURATIONS, idleTimeout=DURATIONS, streamIdleTimeout=DURATIONS
        )
    ),
    connection=some(
        bufferLimit=SIZES,
        socketBufferLimit=SIZES,
        maxAcceptPerSocketEvent=LIMITS,
        connectionLimit=some(
            value=COUNTS,
            closeDelay=DURATIONS,
            maxConnectionDuration=DURATIONS,
            maxRequestsPerConnection=LIMITS,
            maxStreamDuration=DURATIONS,
        ),
    ),
    tcpKeepalive=KEEPALIVE,
    http1=some(enableTrailers=FLAGS, preserveHeaderCase=FLAGS, http10=some(useDefaultHost=FLAGS)),
    http2=HTTP2,
    path=some(disableMergeSlashes=FLAGS),
    headers=some(
        enableEnvoyHeaders=FLAGS,
        requestID=st.sampled_from(["Preserve", "Generate", "Disable", "PreserveOrGenerate"]),
        earlyRequestHeaders=some(
            set=st.builds(lambda name: [{"name": name, "value": "100%"}], NAMES),
            add=st.just([{"name": "x-a", "value": "%REQ(x)%"}]),
            remove=st.lists(NAMES, max_size=2, unique=True),
        ),
    ),
    clientIPDetection=st.one_of(
        st.builds(
            lambda more: {"customHeader": {"name": "X-Real-IP", **more}}, some(failClosed=FLAGS)
        ),
        st.builds(
            lambda ranges: {"xForwardedFor": {"trustedCIDRs": ranges}},
            st.lists(st.sampled_from(["10.0.0.1/8", "::/0", "10.0.0.0/33", "all"]), max_size=2),
        ),
        st.builds(lambda hops: {"xForwardedFor": {"numTrustedHops": hops}}, LIMITS),
    ),
    tls=some(
        minVersion=st.sampled_from(["Auto", "1.0", "1.2", "1.3"]),
        maxVersion=st.sampled_from(["1.2", "1.3"]),
        ciphers=chosen([*CIPHERS, "bogus"], unique=False),
        ecdhCurves=chosen([*CURVES, "bogus"], unique=False),
        signatureAlgorithms=chosen([*SIGNATURES, "bogus"], unique=False),
        alpnProtocols=chosen(["h2", "http/1.1", "http/1.0"]),
        clientValidation=some(
            optional=FLAGS,
            caCertificateRefs=st.just([{"group": "", "kind": "ConfigMap", "name": "authority"}]),
            spkiHashes=st.just(["A" * 43 + "="]),
            certificateHashes=st.just(["00" * 32]),
            subjectAltNames=some(
                dnsNames=st.lists(
                    st.sampled_from(
                        [{"value": "a"}, {"type": "RegularExpression", "value": "a(?=b)"}]
                    ),
                    max_size=2,
                ),
                otherNames=st.just([{"oid": "1.2.3", "value": "x"}]),
            ),
        ),
    ),
    enableProxyProtocol=FLAGS,
    healthCheck=st.just({"path": "/healthz"}),
    scheme=st.sampled_from(["Preserve", "MatchBackend"]),
)


def policies(
    kind: str, specs: st.SearchStrategy[dict[str, Any]]
) -> st.SearchStrategy[list[dict[str, Any]]]:
    targets = [item for item in TARGETS if kind != "ClientTrafficPolicy" or item[0] == "Gateway"]

    def made(spec: dict[str, Any], target: tuple[str, str, str | None]) -> dict[str, Any]:
        found = {"group": API, "kind": target[0], "name": target[1]}
        section = {"sectionName": target[2]} if target[2] is not None else {}
        return {
            "apiVersion": ENVOY,
            "kind": kind,
            "metadata": {"namespace": "default"},
            "spec": {**spec, "targetRefs": [{**found, **section}]},
        }

    return st.lists(st.builds(made, specs, st.sampled_from(targets)), min_size=2, max_size=6)


@pytest.mark.e2e
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)
@given(policies("BackendTrafficPolicy", TRAFFIC), policies("ClientTrafficPolicy", CLIENTS))
def test_no_valid_policies_are_refused_by_envoy(
    traffic: list[dict[str, Any]], clients: list[dict[str, Any]]
) -> None:
    store = loaded(WHOLE)
    for index, item in enumerate((*traffic, *clients)):
        item["metadata"]["name"] = f"policy-{index}"
        resource = parse_object(item).resource
        if resource is not None:
            store.apply([resource])
    found = translate(store, OPTIONS)
    statuses(store, found, EnvoyFacts(), OPTIONS)
    asyncio.run(check(found.snapshot))


@pytest.mark.e2e
def test_what_is_named_twice_is_told_to_envoy_once() -> None:
    """BoringSSL refuses it, and by that Envoy the whole listener."""
    store = loaded(WHOLE)
    tls = {
        "ecdhCurves": ["P-384", "secp384r1", "X25519", "X25519"],
        "signatureAlgorithms": ["ed25519", "ed25519"],
    }
    policy = {
        "apiVersion": ENVOY,
        "kind": "ClientTrafficPolicy",
        "metadata": {"name": "twice", "namespace": "default"},
        "spec": {"tls": tls, "targetRefs": [{"group": API, "kind": "Gateway", "name": "gateway"}]},
    }
    resource = parse_object(policy).resource
    assert resource is not None
    store.apply([resource])
    found = translate(store, OPTIONS).snapshot
    assert any(b"P-384" in item.content for item in found.of_type(LISTENER))
    asyncio.run(check(found))
