"""The rules over several fields, kind by kind: a good object, and what breaks it how."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest

from pointsman.resources.parse import parse_object

GATEWAY_API = "gateway.networking.k8s.io/v1"
ENVOY = "gateway.envoyproxy.io/v1alpha1"
TERMINATED = {"certificateRefs": [{"name": "cert"}]}
PREFIX = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}
REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}
REWRITE = {"type": "URLRewrite", "urlRewrite": {"hostname": "a.b"}}
SERVICE = {"name": "s", "port": 80}


def found(api: str, kind: str, spec: Any) -> set[str]:
    data = {"apiVersion": api, "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    return {f"{p.field}: {p.message}" for p in parse_object(data).problems}


def breaks(api: str, kind: str, spec: Any, field: str, message: str) -> bool:
    return any(
        text.startswith(f"spec.{field}: ") and message in text for text in found(api, kind, spec)
    )


def listeners(*changes: dict[str, Any]) -> dict[str, Any]:
    base = {"name": "a", "port": 80, "protocol": "HTTP"}
    return {"gatewayClassName": "c", "listeners": [{**base, **change} for change in changes]}


@pytest.mark.parametrize(
    "changes",
    [
        [{}],
        [{"protocol": "HTTPS", "tls": TERMINATED}],
        [{"protocol": "TLS", "tls": {"mode": "Passthrough"}}],
        [{"protocol": "example.com/Bar"}],
        [{}, {"name": "b", "hostname": "b.c"}, {"name": "c", "hostname": "*.b.c"}],
        [{"protocol": "TCP"}, {"name": "b", "protocol": "UDP"}],
    ],
)
def test_good_listeners(changes: list[dict[str, Any]]) -> None:
    assert found(GATEWAY_API, "Gateway", listeners(*changes)) == set()


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ([{"tls": TERMINATED}], "listeners[0].tls", "must not be set when protocol is HTTP"),
        (
            [{"protocol": "HTTPS", "tls": {"mode": "Passthrough"}}],
            "listeners[0].tls.mode",
            "must be Terminate",
        ),
        ([{"protocol": "TLS"}], "listeners[0].tls", "is required when protocol is TLS"),
        ([{"protocol": "TCP", "hostname": "a.b"}], "listeners[0].hostname", "must not be set"),
        ([{}, {"port": 81}], "listeners[1]", "name must be unique"),
        ([{}, {"name": "b"}], "listeners[1]", "together must be unique"),
        ([{"protocol": "HTTPS", "tls": {}}], "listeners[0].tls.certificateRefs", "is required"),
        ([{"name": "A"}], "listeners[0].name", "must be a DNS name"),
        ([{"port": 0}], "listeners[0].port", "at least 1"),
        ([{"protocol": "a b"}], "listeners[0].protocol", "must match"),
    ],
)
def test_bad_listeners(changes: list[dict[str, Any]], field: str, message: str) -> None:
    assert breaks(GATEWAY_API, "Gateway", listeners(*changes), field, message)


@pytest.mark.parametrize(
    ("addition", "field"),
    [
        ({"addresses": [{"value": "1.2.3"}]}, "addresses[0].value"),
        ({"addresses": [{"type": "Hostname", "value": "a_b"}]}, "addresses[0].value"),
        ({"addresses": [{"value": "::1"}, {"value": "::1"}]}, "addresses[1].value"),
        ({"infrastructure": {"labels": {"a b": "x"}}}, 'infrastructure.labels["a b"]'),
        ({"infrastructure": {"annotations": {f"{'a.' * 130}b/c": "x"}}}, "infrastructure.annot"),
        (
            {"tls": {"frontend": {"default": {}, "perPort": [{"port": 1, "tls": {}}] * 2}}},
            "tls.frontend.perPort[1]",
        ),
        (
            {"allowedListeners": {"namespaces": {"from": "Some"}}},
            "allowedListeners.namespaces.from",
        ),
    ],
)
def test_other_rules_of_gateways(addition: dict[str, Any], field: str) -> None:
    spec = listeners({}) | addition
    assert any(text.startswith(f"spec.{field}") for text in found(GATEWAY_API, "Gateway", spec))


def test_several_broken_rules_are_told_together() -> None:
    spec = listeners({"tls": TERMINATED}, {"protocol": "TLS", "port": 81})

    assert len(found(GATEWAY_API, "Gateway", spec)) == 3


def rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [fields]}


def filtered(*filters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return rule(filters=list(filters), **fields)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        rule(),
        rule(matches=[{"path": {"value": "/a%20b/c;d=(1)"}}]),
        rule(matches=[{"path": {"type": "RegularExpression", "value": "a//b#["}}]),
        rule(backendRefs=[SERVICE, {**SERVICE, "weight": 0}]),
        rule(backendRefs=[{"group": "x.io", "kind": "InferencePool", "name": "p"}]),
        rule(timeouts={"request": "0s", "backendRequest": "24h"}),
        rule(timeouts={"request": "24h", "backendRequest": "1440m"}),
        filtered(REDIRECT),
        filtered({"type": "URLRewrite", "urlRewrite": {"path": PREFIX}}),
        filtered({"type": "CORS", "cors": {"allowOrigins": ["https://*.a.b:8080"]}}),
        filtered(*[{"type": "RequestMirror", "requestMirror": {"backendRef": SERVICE}}] * 3),
        rule(retry={"codes": [503], "attempts": 3, "backoff": "100ms"}),
        rule(sessionPersistence={"type": "Header", "sessionName": "s"}),
        {"parentRefs": [{"name": "g", "sectionName": "a"}, {"name": "g", "sectionName": "b"}]},
        {"parentRefs": [{"name": "g"}, {"name": "g", "namespace": "n"}]},
    ],
)
def test_good_routes(spec: dict[str, Any]) -> None:
    assert found(GATEWAY_API, "HTTPRoute", spec) == set()


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"rules": []}, "rules", "at least 1 entry"),
        ({"rules": [{}] * 17}, "rules", "at most 16 entries"),
        ({"rules": [{"matches": [{}] * 50}] * 3}, "rules", "at most 128 matches"),
        (rule(matches=[{}] * 65), "rules[0].matches", "at most 64"),
        (rule(matches=[{"path": {"value": "a"}}]), "rules[0].matches[0].path.value", "start with"),
        (rule(matches=[{"path": {"value": "/a//b"}}]), "rules[0].matches[0].path.value", "'//'"),
        (rule(matches=[{"path": {"value": "/a/../b"}}]), "rules[0].matches[0].path.value", "/../"),
        (rule(matches=[{"path": {"value": "/a%2fb"}}]), "rules[0].matches[0].path.value", "%2f"),
        (rule(matches=[{"path": {"value": "/a#b"}}]), "rules[0].matches[0].path.value", "'#'"),
        (rule(matches=[{"path": {"value": "/a/."}}]), "rules[0].matches[0].path.value", "end with"),
        (
            rule(matches=[{"path": {"value": "/a b"}}]),
            "rules[0].matches[0].path.value",
            "characters",
        ),
        (rule(matches=[{"method": "get"}]), "rules[0].matches[0].method", "did you mean 'GET'"),
        (
            rule(matches=[{"headers": [{"name": "a", "value": "x"}] * 2}]),
            "rules[0].matches[0].headers[1]",
            "name must be unique",
        ),
        (
            rule(matches=[{"headers": [{"name": "a:b", "value": "x"}]}]),
            "rules[0].matches[0].headers[0].name",
            "HTTP header",
        ),
        (rule(backendRefs=[{"name": "s"}]), "rules[0].backendRefs[0].port", "for a Service"),
        (
            rule(backendRefs=[{**SERVICE, "weight": 1_000_001}]),
            "rules[0].backendRefs[0].weight",
            "at most 1000000",
        ),
        (rule(backendRefs=[SERVICE], filters=[REDIRECT]), "rules[0].filters[0]", "backendRefs"),
        (filtered(REDIRECT, REWRITE), "rules[0].filters", "both"),
        (filtered(REWRITE, REWRITE), "rules[0].filters[1]", "must not be repeated"),
        (filtered({"type": "CORS"}), "rules[0].filters[0].cors", "is required"),
        (
            filtered({**REDIRECT, "urlRewrite": {}}),
            "rules[0].filters[0].urlRewrite",
            "must not be set when type is RequestRedirect",
        ),
        (
            filtered({"type": "CORS", "cors": {"allowMethods": ["GET", "*"]}}),
            "rules[0].filters[0].cors.allowMethods",
            "beside '*'",
        ),
        (
            filtered({"type": "CORS", "cors": {"allowOrigins": ["ftp://a"]}}),
            "rules[0].filters[0].cors.allowOrigins[0]",
            "must match",
        ),
        (
            filtered(
                {
                    "type": "RequestMirror",
                    "requestMirror": {
                        "backendRef": SERVICE,
                        "percent": 1,
                        "fraction": {"numerator": 1},
                    },
                }
            ),
            "rules[0].filters[0].requestMirror.fraction",
            "when percent is",
        ),
        (
            filtered(
                {
                    "type": "RequestMirror",
                    "requestMirror": {"backendRef": SERVICE, "fraction": {"numerator": 101}},
                }
            ),
            "rules[0].filters[0].requestMirror.fraction.numerator",
            "denominator",
        ),
        (
            filtered({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath"}}}),
            "rules[0].filters[0].urlRewrite.path.replaceFullPath",
            "is required",
        ),
        (
            filtered({"type": "RequestRedirect", "requestRedirect": {"statusCode": 304}}),
            "rules[0].filters[0].requestRedirect.statusCode",
            "must be one of 301, 302, 303, 307, 308",
        ),
        (
            filtered({"type": "URLRewrite", "urlRewrite": {"path": PREFIX}}, matches=[{}, {}]),
            "rules[0].filters[0]",
            "exactly one match",
        ),
        (
            rule(
                matches=[{"path": {"type": "Exact", "value": "/"}}],
                backendRefs=[
                    {**SERVICE, "filters": [{"type": "URLRewrite", "urlRewrite": {"path": PREFIX}}]}
                ],
            ),
            "rules[0].backendRefs[0].filters",
            "exactly one match",
        ),
        (
            filtered(
                {
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"remove": ["a", "a"]},
                }
            ),
            "rules[0].filters[0].requestHeaderModifier.remove[1]",
            "unique",
        ),
        (
            rule(timeouts={"request": "1s", "backendRequest": "2s"}),
            "rules[0].timeouts.backendRequest",
            "longer than request",
        ),
        (rule(timeouts={"request": "1.5s"}), "rules[0].timeouts.request", "a duration like"),
        (rule(retry={"codes": [200]}), "rules[0].retry.codes[0]", "at least 400"),
        (
            rule(sessionPersistence={"cookieConfig": {"lifetimeType": "Permanent"}}),
            "rules[0].sessionPersistence.absoluteTimeout",
            "is required",
        ),
        ({"parentRefs": [{"name": "g"}] * 2}, "parentRefs[1].sectionName", "is required"),
        (
            {"parentRefs": [{"name": "g", "sectionName": "a"}, {"name": "g"}]},
            "parentRefs[1].sectionName",
            "is required",
        ),
        (
            {"parentRefs": [{"name": "g", "sectionName": "a"}] * 2},
            "parentRefs[1].sectionName",
            "unique",
        ),
        ({"hostnames": ["1.2.3.4:80"]}, "hostnames[0]", "DNS name"),
    ],
)
def test_bad_routes(spec: dict[str, Any], field: str, message: str) -> None:
    assert breaks(GATEWAY_API, "HTTPRoute", spec, field, message), found(
        GATEWAY_API, "HTTPRoute", spec
    )


POOL = {
    "selector": {"matchLabels": {"app": "a"}},
    "targetPorts": [{"number": 8000}],
    "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
}
OLD_POOL = {"selector": {"app": "a"}, "targetPortNumber": 8000, "extensionRef": {"name": "epp"}}
MODEL = {"modelName": "m", "poolRef": {"name": "p"}}
BACKEND = {"endpoints": [{"fqdn": {"hostname": "a.b", "port": 80}}]}
TARGET = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r"}
PROCESSOR = {"backendRefs": [{"name": "epp", "port": 9002}]}
EXTENSION = {"targetRef": TARGET, "extProc": [PROCESSOR]}
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
PATCH = {"type": LISTENER, "name": "l", "operation": {"op": "remove", "path": "/a"}}
PATCHES = {"type": "JSONPatch", "targetRef": {**TARGET, "kind": "Gateway"}, "jsonPatches": [PATCH]}
GOOD = {
    ("inference.networking.k8s.io/v1", "InferencePool"): POOL,
    ("inference.networking.x-k8s.io/v1alpha2", "InferencePool"): OLD_POOL,
    ("inference.networking.x-k8s.io/v1alpha2", "InferenceModel"): MODEL,
    (ENVOY, "Backend"): BACKEND,
    (ENVOY, "EnvoyExtensionPolicy"): EXTENSION,
    (ENVOY, "EnvoyPatchPolicy"): PATCHES,
    (GATEWAY_API, "ReferenceGrant"): {
        "from": [{"group": "a.b", "kind": "HTTPRoute", "namespace": "n"}],
        "to": [{"group": "", "kind": "Service"}],
    },
    (GATEWAY_API, "GatewayClass"): {"controllerName": "a.b/c"},
    ("v1", "Service"): {"ports": [{"port": 80, "targetPort": "http"}]},
    ("apps/v1", "Deployment"): {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        },
    },
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects(kind: tuple[str, str]) -> None:
    assert found(*kind, GOOD[kind]) == set()


def changed(value: Any, path: Iterable[str | int], new: Any) -> Any:
    value = copy.deepcopy(value)
    *way, last = path
    inner = value
    for part in way:
        inner = inner[part]
    inner[last] = new
    return value


@pytest.mark.parametrize(
    ("kind", "path", "new", "field", "message"),
    [
        ("InferencePool", ["selector", "matchLabels"], {}, "selector.matchLabels", "at least 1"),
        ("InferencePool", ["targetPorts"], [{"number": 1}] * 2, "targetPorts[1]", "unique"),
        ("InferencePool", ["targetPorts"], [], "targetPorts", "at least 1"),
        ("InferencePool", ["appProtocol"], "grpc", "appProtocol", "must be one of http"),
        (
            "InferencePool",
            ["endpointPickerRef", "port"],
            None,
            "endpointPickerRef.port",
            "required",
        ),
        ("InferenceModel", ["criticality"], "High", "criticality", "Critical, Standard, Sheddable"),
        (
            "InferenceModel",
            ["targetModels"],
            [{"name": "a", "weight": 1}, {"name": "b"}],
            "targetModels[1].weight",
            "for all target models or for none",
        ),
        ("InferenceModel", ["targetModels"], [{"name": "a"}] * 11, "targetModels", "at most 10"),
        (
            "InferenceModel",
            ["targetModels"],
            [{"name": "a", "weight": 0}],
            "targetModels[0].weight",
            "at least 1",
        ),
        ("Backend", ["endpoints"], [], "endpoints", "at least 1"),
        ("Backend", ["endpoints", 0], {}, "endpoints[0]", "exactly one of"),
        (
            "Backend",
            ["endpoints", 0, "ip"],
            {"address": "1.2.3.4", "port": 1},
            "endpoints[0]",
            "exactly one of",
        ),
        (
            "Backend",
            ["endpoints", 0],
            {"ip": {"address": "a.b.c", "port": 1}},
            "endpoints[0].ip",
            "",
        ),
        (
            "Backend",
            ["endpoints"],
            [BACKEND["endpoints"][0], {"unix": {"path": "/a"}}],
            "endpoints",
            "must not mix",
        ),
        ("Backend", ["tls"], {}, "tls", "needs caCertificateRefs"),
        (
            "Backend",
            ["tls"],
            {"wellKnownCACertificates": "System", "insecureSkipVerify": True},
            "tls.insecureSkipVerify",
            "beside authorities",
        ),
        (
            "EnvoyExtensionPolicy",
            ["targetRef", "group"],
            "x",
            "targetRef.group",
            "must be gateway.",
        ),
        ("EnvoyExtensionPolicy", ["targetRef", "kind"], "Pod", "targetRef.kind", "must be one of"),
        (
            "EnvoyExtensionPolicy",
            ["extProc", 0, "backendRef"],
            {"name": "x"},
            "extProc[0].backendRef",
            "use backendRefs",
        ),
        (
            "EnvoyExtensionPolicy",
            ["extProc", 0, "backendRefs", 0, "kind"],
            "Pod",
            "extProc[0].backendRefs[0].kind",
            "Service or Backend",
        ),
        (
            "EnvoyExtensionPolicy",
            ["extProc", 0, "messageTimeout"],
            "1d",
            "extProc[0].messageTimeout",
            "a duration",
        ),
        (
            "EnvoyExtensionPolicy",
            ["extProc", 0, "metadata"],
            {"writableNamespaces": ["envoy.filters.http.x"]},
            "extProc[0].metadata.writableNamespaces[0]",
            "Envoy's own",
        ),
        (
            "EnvoyExtensionPolicy",
            ["extProc", 0, "backendSettings"],
            {"loadBalancer": {"type": "Random", "slowStart": {"window": "1s"}}},
            "extProc[0].backendSettings.loadBalancer.slowStart",
            "must not be set",
        ),
        (
            "EnvoyExtensionPolicy",
            ["extProc", 0, "backendSettings"],
            {"healthCheck": {"active": {"type": "HTTP"}}},
            "extProc[0].backendSettings.healthCheck.active.http",
            "is required",
        ),
        (
            "EnvoyExtensionPolicy",
            ["lua"],
            [{"inline": "x", "type": "ValueRef"}],
            "lua[0].valueRef",
            "",
        ),
        (
            "EnvoyExtensionPolicy",
            ["wasm"],
            [{"code": {"type": "HTTP"}}],
            "wasm[0].code.http",
            "is required",
        ),
        ("EnvoyPatchPolicy", ["type"], "Other", "type", "must be JSONPatch"),
        (
            "EnvoyPatchPolicy",
            ["jsonPatches", 0, "operation", "op"],
            "delete",
            "jsonPatches[0].operation.op",
            "must be one of add, remove",
        ),
        ("EnvoyPatchPolicy", ["jsonPatches", 0, "type"], "Listener", "jsonPatches[0].type", ""),
        ("ReferenceGrant", ["from"], [], "from", "at least 1"),
        ("GatewayClass", ["controllerName"], "c", "controllerName", "controller name like"),
        ("Service", ["ports"], [], "ports", "at least one"),
        ("Service", ["ports"], [{"port": 1}, {"port": 2}], "ports[0].name", "is required"),
        ("Service", ["type"], "ExternalName", "externalName", "is required"),
        ("Deployment", ["selector", "matchLabels"], {}, "selector", "must not be empty"),
        (
            "Deployment",
            ["template", "metadata", "labels"],
            {},
            "template.metadata.labels",
            "the labels that spec.selector asks for",
        ),
        (
            "Deployment",
            ["template", "spec", "containers"],
            [{"name": "c"}] * 2,
            "template.spec.containers[1]",
            "unique",
        ),
        (
            "Deployment",
            ["template", "spec", "containers", 0, "volumeMounts"],
            [{"name": "v", "mountPath": "/v"}],
            "template.spec.containers[0].volumeMounts[0].name",
            "names no volume",
        ),
        ("Deployment", ["replicas"], -1, "replicas", "at least 0"),
    ],
)
def test_bad_objects(kind: str, path: list[str | int], new: Any, field: str, message: str) -> None:
    api, spec = next((api, spec) for (api, name), spec in GOOD.items() if name == kind)
    broken = changed(spec, path, new)

    assert any(
        text.startswith(f"spec.{field}") and message in text for text in found(api, kind, broken)
    ), found(api, kind, broken)


def test_a_policy_needs_a_target() -> None:
    both = {**EXTENSION, "targetRefs": [TARGET]}
    selected = {"targetSelectors": [{"kind": "Gateway", "matchLabels": {}}], "extProc": []}

    assert breaks_whole(both)
    assert breaks_whole({"extProc": [PROCESSOR]})
    assert not breaks_whole(selected)


def breaks_whole(spec: dict[str, Any]) -> bool:
    return any("either targetRef or" in text for text in found(ENVOY, "EnvoyExtensionPolicy", spec))
