"""The policies of Envoy Gateway, and EnvoyProxy: what is read, and what is refused where."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.resources import kinds
from pointsman.resources.backend_settings import BackendSettings
from pointsman.resources.client_policies import ClientTrafficPolicy
from pointsman.resources.envoy_proxy import EnvoyProxy
from pointsman.resources.parse import parse_object, parse_text
from pointsman.resources.traffic_policies import BackendTrafficPolicy

ENVOY = "gateway.envoyproxy.io/v1alpha1"
GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"}
ROUTE = {**GATEWAY, "kind": "HTTPRoute", "name": "r"}


def found(kind: str, spec: dict[str, Any]) -> set[str]:
    if kind != "EnvoyProxy":
        spec = {"targetRefs": [GATEWAY], **spec}
    data = {"apiVersion": ENVOY, "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    return {f"{p.field}: {p.message}" for p in parse_object(data).problems}


@pytest.mark.parametrize(
    ("word", "cls"),
    [("btp", BackendTrafficPolicy), ("ctp", ClientTrafficPolicy), ("ep", EnvoyProxy),
     ("eproxy", EnvoyProxy), ("backendtrafficpolicies", BackendTrafficPolicy)],
)  # fmt: skip
def test_the_kinds_go_by_their_short_names(word: str, cls: type) -> None:
    assert kinds.by_name(word) == (cls,)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("BackendTrafficPolicy", {"timeout": {"http": {"requestTimeout": "1s"}}}),
        ("BackendTrafficPolicy", {"circuitBreaker": {"perEndpoint": {"maxConnections": 4}}}),
        ("BackendTrafficPolicy", {"retry": {"numRetries": 0, "numAttemptsPerPriority": 1}}),
        ("BackendTrafficPolicy", {"connection": {"bufferLimit": "10Mi"}}),
        ("BackendTrafficPolicy", {"connection": {"bufferLimit": 65536}}),
        ("BackendTrafficPolicy", {"healthCheck": {"panicThreshold": 0}}),
        ("BackendTrafficPolicy", {"rateLimit": {"type": "Global", "anything": ["goes"]}}),
        (
            "BackendTrafficPolicy",
            {"targetRefs": [{**ROUTE, "sectionName": "a"}], "mergeType": "StrategicMerge"},
        ),
        ("ClientTrafficPolicy", {"headers": {"requestID": "Preserve"}, "http1": {"http10": {}}}),
        ("ClientTrafficPolicy", {"tls": {"alpnProtocols": [], "minVersion": "1.3"}}),
        ("ClientTrafficPolicy", {"connection": {"connectionLimit": {"value": 3}}}),
        ("ClientTrafficPolicy", {"clientIPDetection": {"xForwardedFor": {"numTrustedHops": 1}}}),
        ("EnvoyProxy", {}),
        ("EnvoyProxy", {"bootstrap": {"value": "admin: {}"}, "concurrency": 2}),
        ("EnvoyProxy", {"logging": {"level": {"default": "debug", "upstream": "info"}}}),
    ],
)
def test_good_specs(kind: str, spec: dict[str, Any]) -> None:
    assert found(kind, spec) == set()


@pytest.mark.parametrize(
    ("kind", "spec", "field", "message"),
    [
        ("BackendTrafficPolicy", {"targetRefs": [{**GATEWAY, "kind": "Pod"}]},
         "targetRefs[0].kind", "must be one of Gateway, HTTPRoute"),
        ("BackendTrafficPolicy", {"targetRef": GATEWAY}, "", "either targetRef or targetRefs"),
        ("BackendTrafficPolicy", {"mergeType": "StrategicMerge"}, "mergeType", "targets a Gateway"),
        ("BackendTrafficPolicy", {"retry": {"numRetries": -1}}, "retry.numRetries", "at least 0"),
        ("BackendTrafficPolicy", {"connection": {"bufferLimit": "10MB"}}, "connection.bufferLimit",
         "a quantity like"),
        ("BackendTrafficPolicy", {"dns": {"dnsRefreshRate": "often"}}, "dns.dnsRefreshRate",
         "a duration like"),
        ("BackendTrafficPolicy",
         {"loadBalancer": {"type": "ConsistentHash",
                           "consistentHash": {"type": "SourceIP", "tableSize": 10}}},
         "loadBalancer.consistentHash.tableSize", "prime"),
        ("BackendTrafficPolicy",
         {"loadBalancer": {"type": "ConsistentHash", "consistentHash": {"type": "Header"}}},
         "loadBalancer.consistentHash.header", "is required"),
        ("BackendTrafficPolicy", {"healthCheck": {"active": {"type": "SMTP"}}},
         "healthCheck.active.type", "must be one of HTTP, TCP, GRPC"),
        ("ClientTrafficPolicy", {"targetRefs": [ROUTE]}, "targetRefs[0].kind",
         "must be one of Gateway, ListenerSet"),
        ("ClientTrafficPolicy",
         {"headers": {"preserveXRequestID": True, "requestID": "Disable"}},
         "headers.preserveXRequestID", "beside requestID"),
        ("ClientTrafficPolicy", {"tls": {"minVersion": "1.3", "ciphers": ["A"]}}, "tls.ciphers",
         "no effect"),
        ("ClientTrafficPolicy", {"tls": {"maxVersion": "1.1"}}, "tls.maxVersion", "which is 1.2"),
        ("ClientTrafficPolicy",
         {"clientIPDetection": {"xForwardedFor": {"numTrustedHops": 1, "trustedCIDRs": ["::/0"]}}},
         "clientIPDetection.xForwardedFor", "exactly one of"),
        ("ClientTrafficPolicy", {"path": {"escapedSlashesAction": "Drop"}},
         "path.escapedSlashesAction", "must be one of KeepUnchanged"),
        ("EnvoyProxy", {"logging": {"level": {"default": "loud"}}}, "logging.level.default",
         "must be one of"),
        ("EnvoyProxy", {"bootstrap": {"type": "Merge"}}, "bootstrap.value", "is required"),
        ("EnvoyProxy", {"bootstrap": {"type": "JSONPatch"}}, "bootstrap.jsonPatches",
         "is required"),
        ("EnvoyProxy", {"filterOrder": [{"name": "a"}]}, "filterOrder[0]", "exactly one of"),
        ("EnvoyProxy",
         {"telemetry": {"accessLog": {"settings": [{"sinks": [{"type": "File"}]}]}}},
         "telemetry.accessLog.settings[0].sinks[0].file", "is required"),
    ],
)  # fmt: skip
def test_bad_specs(kind: str, spec: dict[str, Any], field: str, message: str) -> None:
    place = f"spec.{field}" if field else "spec"
    assert any(text.startswith(f"{place}: ") and message in text for text in found(kind, spec)), (
        found(kind, spec)
    )


def test_an_unknown_field_of_a_policy_is_told_with_its_line() -> None:
    text = """apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: a}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]
  timeout:
    http:
      requestTimeuot: 1s
"""
    (parsed,) = parse_text(text, "p.yaml")
    assert [str(problem) for problem in parsed.problems] == [
        "p.yaml:8: warning: spec.timeout.http.requestTimeuot: unknown field, "
        "did you mean 'requestTimeout'?"
    ]


def test_the_limits_of_a_circuit_breaker_default_as_those_of_the_api_server() -> None:
    settings = BackendSettings.model_validate({"circuitBreaker": {"maxConnections": 7}})
    assert settings.circuit_breaker is not None
    assert settings.circuit_breaker.max_connections == 7
    assert settings.circuit_breaker.max_pending_requests == 1024
