from __future__ import annotations

import time
from collections.abc import Callable
from textwrap import dedent

import pytest

from pointsman.resources.base import Ref
from pointsman.resources.core import ConfigMap
from pointsman.resources.gateway_api import Gateway, HTTPRoute
from pointsman.resources.parse import (
    Parsed,
    Reading,
    embedded_config,
    parse_again,
    parse_object,
    parse_text,
)
from pointsman.resources.problems import Problem

Problems = Callable[[str], list[str]]

GATEWAY = """
    apiVersion: gateway.networking.k8s.io/v1
    kind: Gateway
    metadata:
      name: web
    spec:
      gatewayClassName: eg
      listeners:
      - name: http
        protocol: HTTP
        port: 8080
"""


def one(text: str, *, strict: bool = False) -> Parsed:
    (parsed,) = parse_text(dedent(text).lstrip("\n"), "gateway.yaml", strict=strict)
    return parsed


def test_a_good_object_is_made_with_its_place_and_its_namespace() -> None:
    parsed = one(GATEWAY)

    assert isinstance(parsed.resource, Gateway)
    assert parsed.resource.metadata.namespace == "default"
    assert parsed.ref == Ref("gateway.networking.k8s.io", "Gateway", "default", "web")
    assert str(parsed.origin) == "gateway.yaml:1"
    assert parsed.problems == ()


def test_a_problem_reads_like_a_compiler_s() -> None:
    parsed = one(GATEWAY.replace("8080", "88888"))

    assert parsed.resource is None
    assert [str(problem) for problem in parsed.problems] == [
        "gateway.yaml:10: spec.listeners[0].port: must be at most 65535, is 88888"
    ]
    assert parsed.problems[0].subject == "Gateway default/web"


def test_an_unknown_field_is_a_warning_and_the_object_is_made_without_it() -> None:
    parsed = one(
        GATEWAY.replace("gatewayClassName: eg", "gatewayClassName: eg\n      adresses: []")
    )

    assert parsed.resource is not None
    assert [str(problem) for problem in parsed.problems] == [
        "gateway.yaml:7: warning: spec.adresses: unknown field, did you mean 'addresses'?"
    ]


def test_strictness_makes_it_an_error() -> None:
    parsed = one(GATEWAY.replace("name: http", "nmae: x\n        name: http"), strict=True)

    assert parsed.resource is None
    assert [problem.severity for problem in parsed.problems] == ["error"]
    assert parsed.problems[0].field == "spec.listeners[0].nmae"


def test_all_that_is_wrong_is_said_at_once(problems_of: Problems) -> None:
    found = problems_of("""
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: Bad_Name, labels: {tier: 1}, namepsace: x}
        spec:
          listeners:
          - name: a
            protocol: HTTP
            port: "80"
            extra: {deep: 1}
          - protocol: HTTPS
            hostname: A.example.com
            port: 443
            allowedRoutes: {namespaces: {from: same, x: y}}
    """)

    assert found == [
        "3: metadata.labels.tier: must be a string, is 1 (put it in quotes)",
        "3: metadata.name: must be a name of lower-case letters, digits, '-' and '.', "
        "is 'Bad_Name'",
        "3: warning: metadata.namepsace: unknown field, did you mean 'namespace'?",
        "4: spec.gatewayClassName: is required",
        "8: spec.listeners[0].port: must be a whole number, is '80' (remove the quotes)",
        "9: warning: spec.listeners[0].extra: unknown field",
        "10: spec.listeners[1].name: is required",
        "11: spec.listeners[1].hostname: must be a DNS name in lower case, with '*.' only at its "
        "start, is 'A.example.com'",
        "13: spec.listeners[1].allowedRoutes.namespaces.from: must be one of All, Selector, Same, "
        "is 'same', did you mean 'Same'?",
        "13: warning: spec.listeners[1].allowedRoutes.namespaces.x: unknown field",
    ]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("gatewayClassName: ''", "must not be empty"),
        ("gatewayClassName: " + "x" * 254, "must have at most 253 characters, has 254"),
        ("gatewayClassName: 1", "must be a string, is 1 (put it in quotes)"),
        ("gatewayClassName: [eg]", "must be a string, is a list"),
        ("gatewayClassName: ~", "is required"),
        ("listeners: []", "must have at least 1 entry, has 0"),
        ("listeners: {}", "must be a list, is a mapping"),
        ("listeners: [x]", "must be a mapping, is 'x'"),
        ("listeners: [~]", "must be a mapping, is null"),
        ("infrastructure: 5", "must be a mapping, is 5"),
    ],
)
def test_messages_say_what_is_expected_and_what_is_there(
    problems_of: Problems, field: str, message: str
) -> None:
    base = {"gatewayClassName": "gatewayClassName: eg"}
    base["listeners"] = "listeners: [{name: a, protocol: HTTP, port: 80}]"
    base[field.partition(":")[0]] = field
    text = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec:\n"

    found = problems_of(text + "".join(f"  {line}\n" for line in base.values()))

    assert len(found) == 1
    assert found[0].endswith(message)


def test_null_is_the_same_as_absent() -> None:
    text = GATEWAY.replace("name: web", "name: web\n      labels:\n      namespace: ~")

    assert one(text).resource == one(GATEWAY).resource


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just text", "must be a Kubernetes object, is 'just text'"),
        ("[1, 2]", "must be a Kubernetes object, is a list"),
        ("a: 1", "apiVersion: is required"),
        ("apiVersion: v1\nkind: [Pod]", "kind: must be a string"),
        ("apiVersion: v1\nkind: Pod", "metadata: is required"),
        ("apiVersion: v1\nkind: Pod\nmetadata: x", "metadata: must be a mapping, is 'x'"),
    ],
)
def test_what_is_no_object_is_said_so(problems_of: Problems, text: str, message: str) -> None:
    assert any(message in problem for problem in problems_of(text))


@pytest.mark.parametrize(
    ("group", "kind", "hint"),
    [
        ("gateway.networking.k8s.io/v1", "HTTPRout", "did you mean HTTPRoute?"),
        ("networking.k8s.io/v1", "HTTPRoute", "did you mean gateway.networking.k8s.io/v1?"),
        ("example.com/v1", "Zzzzzz", "unknown kind 'Zzzzzz' in group 'example.com'; the object"),
    ],
)
def test_an_unknown_kind_is_a_warning_with_neighbours(
    problems_of: Problems, group: str, kind: str, hint: str
) -> None:
    (problem,) = problems_of(f"apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a}}")

    assert problem.startswith("2: warning: kind: unknown kind")
    assert hint in problem


def test_an_unknown_version_is_an_error_that_names_the_known_ones(problems_of: Problems) -> None:
    (problem,) = problems_of(
        "apiVersion: gateway.networking.k8s.io/v2\nkind: HTTPRoute\nmetadata: {name: a}"
    )

    assert problem.startswith("1: apiVersion: must be gateway.networking.k8s.io/v1 or")


def test_an_older_version_of_the_same_shape_becomes_the_current_one() -> None:
    parsed = one(GATEWAY.replace("io/v1", "io/v1beta1"))

    assert parsed.resource is not None
    assert parsed.resource.api_version == "gateway.networking.k8s.io/v1"


def test_a_list_is_unpacked_with_lines() -> None:
    text = """\
        apiVersion: v1
        kind: List
        items:
        - apiVersion: v1
          kind: ConfigMap
          metadata: {name: a}
        - apiVersion: v1
          kind: ConfigMap
          metadata: {name: B}
        - text
    """
    parsed = parse_text(dedent(text), "f")

    assert [item.origin.line for item in parsed] == [4, 7, 10]
    assert [item.resource is not None for item in parsed] == [True, False, False]


def test_a_list_of_one_kind_need_not_repeat_it() -> None:
    text = "apiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: a}}]"

    assert [str(item.ref) for item in parse_text(text, "f")] == ["ConfigMap default/a"]


def test_a_kind_of_the_cluster_has_no_namespace() -> None:
    parsed = one("""
        apiVersion: gateway.networking.k8s.io/v1
        kind: GatewayClass
        metadata: {name: eg, namespace: here}
        spec: {controllerName: example.com/c}
    """)

    assert parsed.ref is not None
    assert parsed.ref.namespace == ""


def test_an_unused_kind_is_kept_as_it_is() -> None:
    parsed = one("""
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRole
        metadata: {name: reader}
        rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
    """)

    assert parsed.resource is not None
    assert parsed.problems == ()
    assert parsed.resource.to_dict()["rules"][0]["verbs"] == ["get"]


def test_an_object_of_the_api_server_needs_no_file() -> None:
    parsed = parse_object(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "a", "namespace": "b", "managedFields": [{}], "finalizers": ["x"]},
            "spec": {},
        }
    )

    assert isinstance(parsed.resource, HTTPRoute)
    assert parsed.problems == ()


def test_problems_of_one_object_are_bounded() -> None:
    fields = "".join(f"\n      x{i}: 1" for i in range(500))

    assert (
        len(one(GATEWAY.replace("gatewayClassName: eg", f"gatewayClassName: eg{fields}")).problems)
        == 100
    )


def test_a_text_that_changed_is_read_again_only_where_it_differs() -> None:
    parts = [f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{i}}}\n" for i in range(3)]
    first = parse_again("---\n".join(parts), "f", Reading())
    parts[1] += "data: {x: y}\nmore: 1\n"

    second = parse_again("---\n".join(parts), "f", first)

    assert second.parsed == parse_text("---\n".join(parts), "f")
    assert second.parsed[0] is first.parsed[0]
    assert second.parsed[2].resource is first.parsed[2].resource
    assert [item.origin.line for item in second.parsed] == [1, 5, 11]


def test_what_moved_has_its_problems_moved() -> None:
    broken = "---\nkind: [\n"
    first = parse_again(broken, "f", Reading())

    second = parse_again("# a line\n# more\n" + broken, "f", first)

    assert [
        p.line - q.line
        for p, q in zip(second.parsed[0].problems, first.parsed[0].problems, strict=True)
    ] == [2]


def test_thousands_of_problems_are_found_in_no_time() -> None:
    many = "".join(f"\n  x{i}: 1" for i in range(20_000))
    items = "".join(f"\n  - {{port: 80, name: p{i}, bad{i}: 1}}" for i in range(20_000))
    head = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports:"
    began = time.monotonic()

    (parsed,) = parse_text(head + items + many, "f")

    assert len(parsed.problems) == 100
    assert time.monotonic() - began < 10


def config_map(text: str) -> ConfigMap:
    data = {"envoy-gateway.yaml": text}
    meta = {"name": "config", "namespace": "system"}
    parsed = parse_object(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
    ).resource
    assert isinstance(parsed, ConfigMap)
    return parsed


def test_the_configuration_of_envoy_gateway_is_found_in_its_config_map() -> None:
    config, problems = embedded_config(
        config_map(
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyGateway\n"
            "provider: {type: Kubernetes, more: 1}\nlogging: {}\n"
            "extensionApis: {enableBackend: true}\n"
        )
    )

    assert problems == []
    assert config is not None
    assert config.extension_apis.enable_backend
    assert not config.extension_apis.enable_envoy_patch_policy
    assert config.gateway.controller_name == "gateway.envoyproxy.io/gatewayclass-controller"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("kind: EnvoyGateway", "apiVersion: is required"),
        (
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyGateway\n"
            "extensionApis: {enableBackend: 'yes'}",
            "extensionApis.enableBackend: must be true or false",
        ),
    ],
)
def test_a_broken_configuration_is_a_problem(text: str, message: str) -> None:
    config, problems = embedded_config(config_map(text))

    assert config is None
    assert any(message in str(problem) for problem in problems)
    assert "ConfigMap system/config envoy-gateway.yaml" in str(problems[0])


def test_other_config_maps_have_no_configuration() -> None:
    other = config_map("").model_copy(update={"data": {"x": "y"}})

    assert embedded_config(other) == (None, [])


def test_a_problem_without_a_field_names_its_object() -> None:
    problem = Problem("error", "a.yaml", 3, "", "is there twice", "Gateway default/web")

    assert str(problem) == "a.yaml:3: Gateway default/web: is there twice"
    assert str(Problem("error", "a.yaml", 0, "", "no such file")) == "a.yaml: no such file"
