from __future__ import annotations

from typing import Any

import pytest
import yaml

from pointsman.picker.config import read_config
from pointsman.picker.settings import flags
from pointsman.picker.settings.options import Options
from tests.charts.conftest import Chart
from tests.charts.objects import assert_restricted, branches, leaves, merged, nested, rights
from tests.charts.program import HelmError
from tests.charts.test_pointsman import OF_A_PICKER, defaults

POOL: dict[str, Any] = {"pool": {"matchLabels": {"app": "llama"}}}
CONFIG = {
    "apiVersion": "llm-d.ai/v1alpha1",
    "kind": "EndpointPickerConfig",
    "plugins": [{"type": "queue-scorer"}],
    "schedulingProfiles": [{"name": "default", "plugins": [{"pluginRef": "queue-scorer"}]}],
}
ROUTE: dict[str, Any] = {"httpRoute": {"create": True, "parentRefs": [{"name": "gw"}]}}


def with_pool(*more: dict[str, Any]) -> dict[str, Any]:
    out = POOL
    for item in more:
        out = merged(out, item)
    return out


def test_what_is_made_by_default(inferencepool: Chart) -> None:
    assert inferencepool.render(POOL).names == [
        "Deployment/llama-picker",
        "InferencePool/llama",
        "Role/llama-picker",
        "RoleBinding/llama-picker",
        "Service/llama-picker",
        "ServiceAccount/llama-picker",
    ]


def test_the_pool_names_its_picker(inferencepool: Chart) -> None:
    found = inferencepool.render(with_pool({"pool": {"targetPorts": [8000, 8001]}}))

    assert found.one("InferencePool")["spec"] == {
        "selector": {"matchLabels": {"app": "llama"}},
        "targetPorts": [{"number": 8000}, {"number": 8001}],
        "endpointPickerRef": {
            "name": "llama-picker",
            "port": {"number": 9002},
            "failureMode": "FailOpen",
        },
    }
    service = found.one("Service")
    assert service["metadata"]["name"] == "llama-picker"
    assert 9002 in [port["port"] for port in service["spec"]["ports"]]
    labels = found.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_a_pool_without_labels_is_refused(inferencepool: Chart) -> None:
    with pytest.raises(HelmError, match=r"pool\.matchLabels is needed"):
        inferencepool.text({})


def test_the_picker_has_exactly_its_rights_in_its_namespace(inferencepool: Chart) -> None:
    found = inferencepool.render(POOL)

    assert rights(found.one("Role")) == OF_A_PICKER
    binding = found.one("RoleBinding")
    assert binding["roleRef"]["kind"] == "Role"
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "llama-picker", "namespace": "models"}
    ]
    assert {item["metadata"]["namespace"] for item in found} == {"models"}


def test_the_role_of_the_other_chart_can_be_bound(inferencepool: Chart) -> None:
    rbac = {"picker": {"rbac": {"clusterRole": "pointsman-picker"}}}

    found = inferencepool.render(with_pool(rbac))

    assert found.all("Role") == []
    assert found.one("RoleBinding")["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "pointsman-picker",
    }


def test_beside_a_bound_role_a_leader_may_still_be_elected(inferencepool: Chart) -> None:
    picker = {"leaderElection": True, "rbac": {"clusterRole": "pointsman-picker"}}

    found = inferencepool.render(with_pool({"picker": picker}))

    (role,) = found.all("Role")
    assert rights(role) == {("coordination.k8s.io", "leases"): {"get", "create", "update"}}
    bound = {item["roleRef"]["name"] for item in found.all("RoleBinding")}
    assert bound == {"pointsman-picker", role["metadata"]["name"]}


def test_the_picker_runs_without_privileges(inferencepool: Chart) -> None:
    assert_restricted(inferencepool.render(POOL).one("Deployment"))


def parsed(arguments: list[str]) -> Options:
    assert arguments[0] == "picker"
    return flags.parse([word.replace("$(POD_NAMESPACE)", "models") for word in arguments[1:]])


def test_the_picker_takes_its_arguments(inferencepool: Chart) -> None:
    options = parsed(inferencepool.render(POOL).arguments)

    assert options.ignored == ()
    assert (options.pool_name, options.pool_namespace) == ("llama", "models")
    assert (options.grpc_port, options.grpc_health_port, options.metrics_port) == (9002, 9003, 9090)
    assert options.secure_serving
    assert options.trust_objective_header
    assert options.config_file is None


def test_probes_ask_for_the_health_service_of_the_picker(inferencepool: Chart) -> None:
    container = inferencepool.render(POOL).container

    assert container["livenessProbe"]["grpc"] == {"port": 9003, "service": "liveness"}
    assert container["readinessProbe"]["grpc"] == {"port": 9003, "service": "readiness"}


def test_a_configuration_is_a_mounted_folder_that_the_picker_reads(inferencepool: Chart) -> None:
    found = inferencepool.render(with_pool({"picker": {"config": CONFIG}}))

    text = found.one("ConfigMap")["data"]["picker.yaml"]
    assert yaml.safe_load(text) == CONFIG
    read_config(text)
    options = parsed(found.arguments)
    (mount,) = (item for item in found.container["volumeMounts"] if item["name"] == "config")
    assert str(options.config_file) == f"{mount['mountPath']}/picker.yaml"
    assert "subPath" not in mount


def test_a_changed_configuration_restarts_only_pickers_of_others(inferencepool: Chart) -> None:
    def template(config: dict[str, Any], is_pointsman: bool) -> Any:
        picker = {"picker": {"config": config, "isPointsman": is_pointsman}}
        return inferencepool.render(with_pool(picker)).one("Deployment")["spec"]["template"]

    other = {**CONFIG, "plugins": []}
    assert template(CONFIG, True) == template(other, True)
    assert template(CONFIG, False) != template(other, False)


def test_a_gateway_of_pointsman_knows_a_picker_of_pointsman(inferencepool: Chart) -> None:
    ours = inferencepool.render(POOL)
    theirs = inferencepool.render(
        with_pool({"picker": {"isPointsman": False, "image": {"repository": "epp"}}})
    )

    assert ours.one("Service")["metadata"]["annotations"] == {"pointsman.dev/picker": "true"}
    assert "annotations" not in theirs.one("Service")["metadata"]
    assert theirs.arguments[0] == "--pool-name=llama"
    assert not any("trust" in word for word in theirs.arguments)


def test_without_tls_the_port_says_that_it_speaks_http2(inferencepool: Chart) -> None:
    found = inferencepool.render(with_pool({"picker": {"secureServing": False}}))

    port = found.one("Service")["spec"]["ports"][0]
    assert port["appProtocol"] == "kubernetes.io/h2c"
    assert not parsed(found.arguments).secure_serving


def test_a_certificate_of_ones_own_is_mounted(inferencepool: Chart) -> None:
    found = inferencepool.render(with_pool({"picker": {"certificateSecret": "tls"}}))

    (mount,) = (item for item in found.container["volumeMounts"] if item["name"] == "certificate")
    assert str(parsed(found.arguments).cert_path) == mount["mountPath"]


def test_several_replicas_have_a_budget(inferencepool: Chart) -> None:
    assert inferencepool.render(POOL).all("PodDisruptionBudget") == []
    found = inferencepool.render(with_pool({"picker": {"replicas": 3}}))
    assert found.one("Deployment")["spec"]["replicas"] == 3
    assert found.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_replicas_that_stand_by_elect_a_leader(inferencepool: Chart) -> None:
    found = inferencepool.render(with_pool({"picker": {"replicas": 2, "leaderElection": True}}))

    assert rights(found.one("Role")) == {
        **OF_A_PICKER,
        ("coordination.k8s.io", "leases"): {"get", "create", "update"},
    }
    assert parsed(found.arguments).leader_election
    # A budget would never let the only ready pod go.
    assert found.all("PodDisruptionBudget") == []
    strategy = found.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == "100%"


def test_metrics_are_open_unless_the_api_server_is_asked(inferencepool: Chart) -> None:
    open_ = inferencepool.render(POOL)
    guarded = inferencepool.render(
        with_pool({"picker": {"metricsAuth": True, "serviceMonitor": {"enabled": True}}})
    )

    assert not parsed(open_.arguments).guards_metrics
    assert parsed(guarded.arguments).guards_metrics
    assert guarded.one("ClusterRoleBinding")["roleRef"]["name"] == "system:auth-delegator"
    endpoint = guarded.one("ServiceMonitor")["spec"]["endpoints"][0]
    assert endpoint["bearerTokenFile"].endswith("/token")


def test_objectives_and_rewrites_are_of_the_pool(inferencepool: Chart) -> None:
    rules = [
        {
            "matches": [{"model": {"value": "chat"}}],
            "targets": [{"modelRewrite": "chat-v1", "weight": 9}, {"modelRewrite": "chat-v2"}],
        }
    ]

    found = inferencepool.render(
        with_pool(
            {
                "objectives": [{"name": "batch", "priority": -1}],
                "rewrites": [{"name": "chat", "rules": rules}],
            }
        )
    )

    pool_ref = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "llama"}
    assert found.one("InferenceObjective")["spec"] == {"priority": -1, "poolRef": pool_ref}
    assert found.one("InferenceModelRewrite")["spec"] == {"poolRef": pool_ref, "rules": rules}


def test_a_route_leads_from_a_gateway_to_the_pool(inferencepool: Chart) -> None:
    found = inferencepool.render(with_pool(ROUTE))

    spec = found.one("HTTPRoute")["spec"]
    assert spec["parentRefs"] == [{"name": "gw"}]
    assert spec["rules"][0]["backendRefs"] == [
        {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "llama"}
    ]
    with pytest.raises(HelmError, match=r"httpRoute\.parentRefs is needed"):
        inferencepool.text(with_pool({"httpRoute": {"create": True}}))


def test_a_picker_alone_serves_a_pool_that_is_there(inferencepool: Chart) -> None:
    found = inferencepool.render(
        {"pool": {"create": False, "name": "qwen-pool"}, "picker": {"name": "chooser"}}
    )

    assert found.all("InferencePool") == []
    assert found.one("Service")["metadata"]["name"] == "chooser"
    assert parsed(found.arguments).pool_name == "qwen-pool"


def test_a_pool_alone_names_no_picker(inferencepool: Chart) -> None:
    found = inferencepool.render(with_pool({"picker": {"create": False}}))

    assert found.names == ["InferencePool/llama"]
    assert "endpointPickerRef" not in found.one("InferencePool")["spec"]


def test_helm_finds_nothing_wrong(inferencepool: Chart) -> None:
    assert "0 chart(s) failed" in inferencepool.lint(POOL)


def test_the_notes_say_how_to_go_on(inferencepool: Chart) -> None:
    notes = inferencepool.notes(with_pool({"objectives": [{"name": "batch", "priority": -1}]}))

    assert "kubectl -n models rollout status deployment/llama-picker" in notes
    assert "x-gateway-inference-objective" in notes
    assert "batch" in notes


MONITORED: dict[str, Any] = {"picker": {"serviceMonitor": {"enabled": True}}}
SEVERAL: dict[str, Any] = {"picker": {"replicas": 2}}
EXAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "httpRoute.annotations": ({"a": "b"}, ROUTE),
    "httpRoute.create": (True, {"httpRoute": {"parentRefs": [{"name": "gw"}]}}),
    "httpRoute.hostnames": (["a.example"], ROUTE),
    "httpRoute.labels": ({"a": "b"}, ROUTE),
    "httpRoute.name": ("other", ROUTE),
    "httpRoute.parentRefs": ([{"name": "other"}], ROUTE),
    "httpRoute.pathPrefix": ("/v1", ROUTE),
    "httpRoute.timeout": ("7s", ROUTE),
    "objectives": ([{"name": "a", "priority": 1}], {}),
    "picker.affinity": ({"nodeAffinity": {}}, {}),
    "picker.certificateSecret": ("other", {}),
    "picker.config": (CONFIG, {}),
    "picker.create": (False, {}),
    "picker.extraArgs": (["--bind=::"], {}),
    "picker.extraEnv": ([{"name": "A", "value": "b"}], {}),
    "picker.image.digest": ("sha256:" + "1" * 64, {}),
    "picker.image.pullPolicy": ("Always", {}),
    "picker.image.repository": ("other", {}),
    "picker.image.tag": ("other", {}),
    "picker.imagePullSecrets": ([{"name": "other"}], {}),
    "picker.isPointsman": (False, {}),
    "picker.leaderElection": (True, {}),
    "picker.metricsAuth": (True, {}),
    "picker.name": ("other", {}),
    "picker.nodeSelector": ({"a": "b"}, {}),
    "picker.podAnnotations": ({"a": "b"}, {}),
    "picker.podDisruptionBudget.enabled": (False, SEVERAL),
    "picker.podDisruptionBudget.maxUnavailable": ("50%", SEVERAL),
    "picker.podLabels": ({"a": "b"}, {}),
    "picker.priorityClassName": ("other", {}),
    "picker.rbac.clusterRole": ("other", {}),
    "picker.rbac.create": (False, {}),
    "picker.rbac.extraRules": (
        [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}],
        {},
    ),
    "picker.replicas": (5, {}),
    "picker.resources.limits.memory": ("3Gi", {}),
    "picker.resources.requests.cpu": ("3", {}),
    "picker.resources.requests.memory": ("3Gi", {}),
    "picker.secureServing": (False, {}),
    "picker.service.annotations": ({"a": "b"}, {}),
    "picker.serviceAccount.annotations": ({"a": "b"}, {}),
    "picker.serviceAccount.create": (False, {}),
    "picker.serviceAccount.name": ("other", {}),
    "picker.serviceMonitor.enabled": (True, {}),
    "picker.serviceMonitor.interval": ("7s", MONITORED),
    "picker.serviceMonitor.labels": ({"a": "b"}, MONITORED),
    "picker.terminationGracePeriodSeconds": (7, {}),
    "picker.tolerations": ([{"operator": "Exists"}], {}),
    "picker.topologySpreadConstraints": (
        [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        {},
    ),
    "picker.trustObjectiveHeader": (False, {}),
    "picker.verbosity": (4, {}),
    "pool.annotations": ({"a": "b"}, {}),
    "pool.appProtocol": ("kubernetes.io/h2c", {}),
    "pool.create": (False, {}),
    "pool.failureMode": ("FailClose", {}),
    "pool.labels": ({"a": "b"}, {}),
    "pool.matchLabels": ({"app": "other"}, {}),
    "pool.name": ("other", {}),
    "pool.targetPorts": ([8001], {}),
    "rewrites": ([{"name": "a", "rules": [{"targets": [{"modelRewrite": "b"}]}]}], {}),
}
"""Something else than the default, and what must be on for it to count, for every value."""


def test_every_value_has_an_effect(inferencepool: Chart) -> None:
    assert sorted(EXAMPLES) == sorted(leaves(defaults(inferencepool)))
    for where, (value, needed) in EXAMPLES.items():
        base = with_pool(needed)
        changed = merged(base, nested(where, value))
        assert inferencepool.text(changed) != inferencepool.text(base), where


@pytest.mark.parametrize(
    "values",
    [
        {"pool": {"targetPorts": [8000, 8000]}},
        {"pool": {"targetPorts": [0]}},
        {"pool": {"targetPorts": list(range(8000, 8009))}},
        {"pool": {"failureMode": "FailSafe"}},
        {"picker": {"config": {"plugins": []}}},
        {"picker": {"replicas": "many"}},
        {"objectives": [{"name": "a", "priority": 2**31}]},
        {"objectives": [{"name": "a", "prio": 1}]},
        {"rewrites": [{"name": "a", "rules": [{"targets": []}]}]},
        {"httpRoute": {"parentRefs": [{"gateway": "a"}]}},
    ],
)
def test_values_that_no_object_could_have_are_refused(
    inferencepool: Chart, values: dict[str, Any]
) -> None:
    with pytest.raises(HelmError, match="schema"):
        inferencepool.text(with_pool(values))


def test_names_that_no_value_has_are_refused(inferencepool: Chart) -> None:
    for where in branches(defaults(inferencepool)):
        if where.endswith((".requests", ".limits")):
            continue  # these hold resources of any name
        with pytest.raises(HelmError, match="additional properties 'nonsense' not allowed"):
            inferencepool.text(merged(POOL, nested(f"{where}.nonsense".lstrip("."), "x")))
