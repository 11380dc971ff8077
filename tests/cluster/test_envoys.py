"""What is made for a Gateway, from what it and its EnvoyProxy say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pointsman.cluster.envoys import Made, Ports, made_for, name_of
from pointsman.cluster.patching import patched
from pointsman.cluster.settings import Installation
from pointsman.resources.envoy_infrastructure import ObjectPatch
from pointsman.resources.envoy_proxy import EnvoyProxy
from pointsman.resources.gateway_api import Gateway

INSTALLATION = Installation("pointsman-system", image="registry.example/pointsman:1.2")
HTTP: Ports = ((8080, "HTTP"),)


def gateway(name: str = "front", class_name: str = "pointsman", **spec: Any) -> Gateway:
    listeners = [{"name": "http", "port": 8080, "protocol": "HTTP"}]
    return Gateway.model_validate(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": "apps", "uid": "1234"},
            "spec": {"gatewayClassName": class_name, "listeners": listeners, **spec},
        }
    )


def proxy(**spec: Any) -> EnvoyProxy:
    return EnvoyProxy.model_validate(
        {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1",
            "kind": "EnvoyProxy",
            "metadata": {"name": "settings", "namespace": "apps"},
            "spec": spec,
        }
    )


def kubernetes(**fields: Any) -> EnvoyProxy:
    return proxy(provider={"type": "Kubernetes", "kubernetes": fields})


def one(made: Made, kind: str) -> dict[str, Any]:
    (found,) = (item for item in made.objects if item["kind"] == kind)
    return found


@pytest.mark.parametrize(
    ("gateway_name", "class_name", "wanted"),
    [
        ("front", "pointsman", "front-pointsman"),
        ("front", "a.b", "front-a-b"),
        ("1front", "c", "gw-1front-c"),
    ],
)
def test_names_are_those_of_the_gateway_and_its_class(
    gateway_name: str, class_name: str, wanted: str
) -> None:
    assert name_of(gateway(gateway_name, class_name)) == wanted


def test_names_that_would_be_too_long_or_the_same_are_told_apart() -> None:
    names = [
        name_of(gateway(each, "c"))
        for each in ("a" * 80, "a" * 81, "a.b", "a-b", "a" * 62 + ".b", "a" * 62 + "-b")
    ]
    assert len(set(names)) == len(names)
    assert all(len(each) <= 63 and each[0].isalpha() for each in names)


def test_a_gateway_without_a_served_listener_needs_nothing_yet() -> None:
    assert made_for(gateway(), None, (), INSTALLATION).objects == ()


def test_ports_below_1024_are_bound_without_privileges() -> None:
    low = made_for(gateway(), None, ((80, "HTTP"), (443, "HTTPS")), INSTALLATION)
    spec = one(low, "Deployment")["spec"]["template"]["spec"]
    sysctls = spec["securityContext"]["sysctls"]
    assert sysctls == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    ports = one(low, "Service")["spec"]["ports"]
    assert [(item["name"], item["port"], item["targetPort"]) for item in ports] == [
        ("http-80", 80, 80),
        ("https-443", 443, 443),
    ]
    high = made_for(gateway(), None, HTTP, INSTALLATION)
    assert "sysctls" not in one(high, "Deployment")["spec"]["template"]["spec"]["securityContext"]


def test_nobody_who_says_no_replicas_has_them_fixed() -> None:
    """Then `kubectl scale` and autoscalers may say how many there are."""
    assert (
        "replicas" not in one(made_for(gateway(), None, HTTP, INSTALLATION), "Deployment")["spec"]
    )
    given = kubernetes(envoyDeployment={"replicas": 3})
    assert (
        one(made_for(gateway(), given, HTTP, INSTALLATION), "Deployment")["spec"]["replicas"] == 3
    )


def test_another_bootstrap_rolls_the_pods_over_and_other_changes_do_not() -> None:
    def digest(found: EnvoyProxy | None) -> str:
        made = made_for(gateway(), found, HTTP, INSTALLATION)
        annotations = one(made, "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["pointsman.dev/bootstrap"])

    admin = {"type": "Merge", "value": "stats_flush_interval: 30s"}
    assert digest(None) == digest(kubernetes(envoyService={"type": "ClusterIP"}))
    assert digest(None) != digest(proxy(bootstrap=admin))


def test_a_bootstrap_that_cannot_be_is_a_problem_of_that_gateway() -> None:
    bad = proxy(bootstrap={"type": "Merge", "value": "node: {cluster: other}"})
    made = made_for(gateway(), bad, HTTP, INSTALLATION)
    assert made.objects == ()
    assert made.problem == "bootstrap: node.cluster must stay as it is"


def test_a_bootstrap_that_replaces_ours_keeps_what_makes_the_pod_one_of_ours() -> None:
    whole = proxy(bootstrap={"type": "Replace", "value": "stats_flush_interval: 30s"})
    made = made_for(gateway(), whole, HTTP, INSTALLATION)
    found = json.loads(one(made, "ConfigMap")["data"]["bootstrap.json"])
    assert found["stats_flush_interval"] == "30s"
    assert found["node"] == {"cluster": "apps/front"}
    names = [item["name"] for item in found["static_resources"]["listeners"]]
    assert names == ["pointsman/ready"]


def test_an_image_from_another_registry_keeps_the_version() -> None:
    mirror = kubernetes(envoyDeployment={"container": {"imageRepository": "mirror.example/pm"}})
    made = made_for(gateway(), mirror, HTTP, INSTALLATION)
    (container,) = one(made, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "mirror.example/pm:1.2"


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("LoadBalancer", "loadBalancerIP", "10.1.1.1"), ("ClusterIP", "externalIPs", ["10.1.1.1"])],
)
def test_an_address_that_is_asked_for_is_asked_of_the_cluster(
    kind: str, field: str, value: object
) -> None:
    asked = gateway(addresses=[{"type": "IPAddress", "value": "10.1.1.1"}])
    made = made_for(asked, kubernetes(envoyService={"type": kind}), HTTP, INSTALLATION)
    assert one(made, "Service")["spec"][field] == value


def test_a_patch_changes_everything_but_whose_the_object_is() -> None:
    item = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a", "namespace": "b", "labels": {"x": "y"}, "ownerReferences": [1]},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}]},
    }
    change = {
        "kind": "Secret",
        "metadata": {"name": "other", "labels": {"x": "z", "more": "1"}, "ownerReferences": None},
        "spec": {"ports": [{"name": "https", "$patch": "delete"}, {"name": "http", "port": 81}]},
    }
    found = patched(item, ObjectPatch(type="StrategicMerge", value=change))
    assert (found["kind"], found["metadata"]["name"]) == ("Service", "a")
    assert found["metadata"]["labels"] == {"x": "y", "more": "1"}
    assert found["metadata"]["ownerReferences"] == [1]
    assert found["spec"]["ports"] == [{"name": "http", "port": 81}]
    plain = patched(item, ObjectPatch(type="JSONMerge", value=change))
    assert plain["spec"]["ports"] == change["spec"]["ports"]  # type: ignore[index]
