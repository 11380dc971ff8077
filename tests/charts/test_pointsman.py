from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.charts.conftest import Chart
from tests.charts.objects import (
    Rights,
    assert_restricted,
    branches,
    leaves,
    merged,
    nested,
    rights,
)
from tests.charts.program import HelmError

READ = {"get", "list", "watch"}
MAKE = {"create", "patch", "delete"}
GATEWAY = "gateway.networking.k8s.io"
POOLS = "inference.networking.k8s.io"
OLDER = "inference.networking.x-k8s.io"
LLM_D = "llm-d.ai"
ENVOY = "gateway.envoyproxy.io"

POLICED = {
    GATEWAY: ["gateways", "httproutes", "grpcroutes", "listenersets", "backendtlspolicies"],
    POOLS: ["inferencepools"],
    OLDER: ["inferencepools", "inferencemodels", "inferenceobjectives", "inferencemodelrewrites"],
    LLM_D: ["inferenceobjectives", "inferencemodelrewrites"],
    ENVOY: [
        "backends",
        "envoyextensionpolicies",
        "envoypatchpolicies",
        "envoyproxies",
        "backendtrafficpolicies",
        "clienttrafficpolicies",
    ],
}
"""What is read and gets a status."""

IN_NAMESPACES: Rights = {
    **{(group, kind): READ for group, kinds in POLICED.items() for kind in kinds},
    **{(group, f"{kind}/status"): {"patch"} for group, kinds in POLICED.items() for kind in kinds},
    (GATEWAY, "referencegrants"): READ,
    ("", "pods"): READ,
    ("", "services"): READ | MAKE,
    ("", "secrets"): READ | MAKE,
    ("", "configmaps"): READ | MAKE,
    ("", "serviceaccounts"): READ | MAKE,
    ("discovery.k8s.io", "endpointslices"): READ,
    ("apps", "deployments"): READ | MAKE,
    ("policy", "poddisruptionbudgets"): READ | MAKE,
    ("rbac.authorization.k8s.io", "rolebindings"): READ | MAKE,
}
IN_THE_CLUSTER: Rights = {
    ("", "namespaces"): READ,
    ("apiextensions.k8s.io", "customresourcedefinitions"): READ,
    (GATEWAY, "gatewayclasses"): READ,
    (GATEWAY, "gatewayclasses/status"): {"patch"},
    ("rbac.authorization.k8s.io", "clusterroles/pointsman-picker"): {"bind"},
}
IN_ITS_NAMESPACE: Rights = {
    ("coordination.k8s.io", "leases"): {"get", "create", "update"},
    ("", "secrets/pointsman-authority"): {"update"},
}
OF_A_PICKER: Rights = {
    ("", "pods"): READ,
    **{(group, kind): READ for group in (POOLS, OLDER, LLM_D) for kind in POLICED[group]},
}


def test_the_controller_has_exactly_its_rights(pointsman: Chart) -> None:
    found = pointsman.render()

    assert rights(found.one("ClusterRole", "pointsman-controller")) == {
        **IN_NAMESPACES,
        **IN_THE_CLUSTER,
    }
    assert rights(found.one("Role")) == IN_ITS_NAMESPACE
    assert rights(found.one("ClusterRole", "pointsman-picker")) == OF_A_PICKER


def test_rights_go_to_the_account_of_the_controller(pointsman: Chart) -> None:
    found = pointsman.render()

    account = {"kind": "ServiceAccount", "name": "pointsman", "namespace": "pointsman-system"}
    bindings = [*found.all("ClusterRoleBinding"), *found.all("RoleBinding")]
    assert [binding["subjects"] for binding in bindings] == [[account], [account]]
    roles = {f"{role['kind']}/{role['metadata']['name']}" for role in found if "rules" in role}
    given = {f"{item['roleRef']['kind']}/{item['roleRef']['name']}" for item in bindings}
    assert given == roles - {"ClusterRole/pointsman-picker"}
    assert found.one("Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "pointsman"


def test_in_some_namespaces_only_rights_are_given_there_only(pointsman: Chart) -> None:
    found = pointsman.render({"watchNamespaces": ["a", "b"]})

    assert rights(found.one("ClusterRole", "pointsman-controller")) == IN_THE_CLUSTER
    for namespace in ("a", "b"):
        (role,) = (item for item in found.all("Role") if item["metadata"]["namespace"] == namespace)
        assert rights(role) == IN_NAMESPACES
    assert [word for word in found.arguments if "watch" in word] == [
        "--watch-namespace=a",
        "--watch-namespace=b",
    ]


def test_what_is_made_by_default(pointsman: Chart) -> None:
    assert pointsman.render().names == [
        "ClusterRole/pointsman-controller",
        "ClusterRole/pointsman-picker",
        "ClusterRoleBinding/pointsman-controller",
        "Deployment/pointsman",
        "GatewayClass/pointsman",
        "NetworkPolicy/pointsman",
        "PodDisruptionBudget/pointsman",
        "Role/pointsman-own",
        "RoleBinding/pointsman-own",
        "Service/pointsman",
        "ServiceAccount/pointsman",
    ]


def test_the_controller_runs_without_privileges(pointsman: Chart) -> None:
    assert_restricted(pointsman.render().one("Deployment"))


def test_ports_probes_and_the_service_are_those_of_the_controller(pointsman: Chart) -> None:
    found = pointsman.render()

    container = found.container
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"xds": 18000, "health": 8081, "metrics": 9090}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    service = found.one("Service")["spec"]
    assert [(port["port"], port["targetPort"]) for port in service["ports"]] == [(18000, "xds")]
    labels = found.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_the_controller_knows_who_and_where_it_is(pointsman: Chart) -> None:
    found = pointsman.render()

    assert found.arguments[0] == "controller"
    assert "--service=pointsman" in found.arguments
    assert "--leader-election" in found.arguments
    environment = {item["name"]: item for item in found.container["env"]}
    fields = {
        name: environment[name]["valueFrom"]["fieldRef"]["fieldPath"]
        for name in ("POD_NAME", "POD_NAMESPACE")
    }
    assert fields == {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    assert environment["POINTSMAN_IMAGE"]["value"] == found.container["image"]


def test_classes_of_envoy_gateway_are_taken_over_by_a_value(pointsman: Chart) -> None:
    theirs = "--controller-name=gateway.envoyproxy.io/gatewayclass-controller"

    assert theirs not in pointsman.render().arguments
    taken = pointsman.render({"takeOverEnvoyGateway": True})
    assert [word for word in taken.arguments if "controller-name" in word] == [
        "--controller-name=pointsman.dev/gateway-controller",
        theirs,
    ]
    assert taken.one("GatewayClass")["spec"]["controllerName"] == "pointsman.dev/gateway-controller"
    assert "must not run beside it" in pointsman.notes({"takeOverEnvoyGateway": True})


def test_a_single_replica_has_no_budget(pointsman: Chart) -> None:
    assert pointsman.render({"replicas": 1}).all("PodDisruptionBudget") == []
    budget = pointsman.render({"replicas": 3}).one("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_only_envoys_of_pointsman_reach_the_discovery_service(pointsman: Chart) -> None:
    rules = pointsman.render().one("NetworkPolicy")["spec"]["ingress"]

    (xds,) = (rule for rule in rules if rule["ports"] == [{"port": "xds"}])
    assert xds["from"] == [
        {
            "namespaceSelector": {},
            "podSelector": {
                "matchLabels": {
                    "app.kubernetes.io/managed-by": "pointsman",
                    "app.kubernetes.io/component": "proxy",
                }
            },
        }
    ]


def test_a_digest_goes_before_a_tag(pointsman: Chart) -> None:
    digest = "sha256:" + "0" * 64
    image = {"repository": "example.com/p", "tag": "1", "digest": digest}

    assert pointsman.render({"image": image}).container["image"] == f"example.com/p@{digest}"
    image["digest"] = ""
    assert pointsman.render({"image": image}).container["image"] == "example.com/p:1"


def test_two_releases_share_no_name(pointsman: Chart) -> None:
    first = pointsman.render()
    other = Chart("pointsman", "blue", "elsewhere").render(
        {"rbac": {"createPickerRole": False}, "gatewayClass": {"name": "blue"}}
    )

    assert set(first.names) & set(other.names) == set()


def test_helm_finds_nothing_wrong(pointsman: Chart) -> None:
    assert "0 chart(s) failed" in pointsman.lint()


def test_the_notes_say_how_to_go_on(pointsman: Chart) -> None:
    notes = pointsman.notes()

    assert "kubectl wait gatewayclass/pointsman --for=condition=Accepted" in notes
    assert "WARNING" not in notes
    assert "WARNING" in pointsman.notes({"leaderElection": False})


EXAMPLES: dict[str, Any] = {
    "affinity": {"nodeAffinity": {}},
    "controllerNames": ["example.com/a"],
    "extraArgs": ["--bind=::"],
    "extraEnv": [{"name": "A", "value": "b"}],
    "fullnameOverride": "other",
    "gatewayClass.annotations": {"a": "b"},
    "gatewayClass.create": False,
    "gatewayClass.description": "other",
    "gatewayClass.name": "other",
    "gatewayClass.parametersRef": {
        "group": ENVOY,
        "kind": "EnvoyProxy",
        "name": "small",
        "namespace": "pointsman-system",
    },
    "gatewayClass.providePickers": True,
    "image.digest": "sha256:" + "1" * 64,
    "image.pullPolicy": "Always",
    "image.repository": "other",
    "image.tag": "other",
    "imagePullSecrets": [{"name": "other"}],
    "leaderElection": False,
    "metrics.service.enabled": True,
    "metrics.serviceMonitor.enabled": True,
    "metrics.serviceMonitor.interval": "7s",
    "metrics.serviceMonitor.labels": {"a": "b"},
    "nameOverride": "other",
    "networkPolicy.enabled": False,
    "networkPolicy.metricsFrom": [{"namespaceSelector": {}}],
    "nodeSelector": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "podDisruptionBudget.enabled": False,
    "podDisruptionBudget.maxUnavailable": "50%",
    "podLabels": {"a": "b"},
    "priorityClassName": "other",
    "providePickers": True,
    "rbac.create": False,
    "rbac.createPickerRole": False,
    "replicas": 5,
    "resources.limits.memory": "3Gi",
    "resources.requests.cpu": "3",
    "resources.requests.memory": "3Gi",
    "service.annotations": {"a": "b"},
    "serviceAccount.annotations": {"a": "b"},
    "serviceAccount.create": False,
    "serviceAccount.name": "other",
    "takeOverEnvoyGateway": True,
    "terminationGracePeriodSeconds": 7,
    "tmpSizeLimit": "7Mi",
    "tolerations": [{"operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    ],
    "certificateLifetime": "24h",
    "verbose": True,
    "watchNamespaces": ["other"],
}
"""Something else than the default, for every value."""
NEEDED: dict[str, dict[str, Any]] = {
    "metrics.serviceMonitor.interval": {"metrics": {"serviceMonitor": {"enabled": True}}},
    "metrics.serviceMonitor.labels": {"metrics": {"serviceMonitor": {"enabled": True}}},
}
"""What must be on for a value to count."""


def defaults(chart: Chart) -> dict[str, Any]:
    found = yaml.safe_load((chart.path / "values.yaml").read_text())
    assert isinstance(found, dict)
    return found


def test_every_value_has_an_effect(pointsman: Chart) -> None:
    assert sorted(EXAMPLES) == sorted(leaves(defaults(pointsman)))
    for where, value in EXAMPLES.items():
        base = NEEDED.get(where, {})
        changed = merged(base, nested(where, value))
        assert pointsman.text(changed) != pointsman.text(base), where


@pytest.mark.parametrize("replicas", ["two", -1, 2.5])
def test_values_of_another_type_are_refused(pointsman: Chart, replicas: object) -> None:
    with pytest.raises(HelmError, match="replicas"):
        pointsman.text({"replicas": replicas, "extraArgs": "none"})


def test_names_that_no_value_has_are_refused(pointsman: Chart) -> None:
    for where in branches(defaults(pointsman)):
        if where in ("resources.requests", "resources.limits"):
            continue  # these hold resources of any name
        with pytest.raises(HelmError, match="additional properties 'nonsense' not allowed"):
            pointsman.text(nested(f"{where}.nonsense".lstrip("."), "x"))
