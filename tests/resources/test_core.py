from __future__ import annotations

from typing import Any

import pytest

from pointsman.resources.core import Pod, Secret, Service, pod_address, pod_ip, pod_is_ready
from pointsman.resources.discovery import EndpointSlice
from pointsman.resources.inference_extension import InferencePoolV1Alpha2
from pointsman.resources.parse import parse_object

READY = {"type": "Ready", "status": "True"}


def made(kind: str, api: str = "v1", *, metadata: Any = None, **fields: Any) -> Any:
    meta = {"name": "a", **(metadata or {})}
    parsed = parse_object({"apiVersion": api, "kind": kind, "metadata": meta, **fields})
    assert parsed.resource is not None, parsed.problems
    return parsed.resource


def pod(status: Any = None, **metadata: Any) -> Pod:
    item = made("Pod", metadata=metadata, status=status)
    assert isinstance(item, Pod)
    return item


def test_the_address_of_a_pod_is_its_ip_and_the_port() -> None:
    assert pod_address(pod({"podIP": "10.0.0.1"}), 8000) == ("10.0.0.1", 8000)
    assert pod_address(pod(), 8000) is None
    assert pod_ip(pod({"podIP": 7})) is None


def test_a_shared_address_has_its_ports_mapped() -> None:
    annotations = {"pointsman.dev/ports": "8000=31234, 9002=31235,x=1,1=,70000=1,=5"}
    item = pod({"podIP": "127.0.0.1"}, annotations=annotations)

    assert pod_address(item, 8000) == ("127.0.0.1", 31234)
    assert pod_address(item, 9002) == ("127.0.0.1", 31235)
    assert pod_address(item, 1) == ("127.0.0.1", 1)


@pytest.mark.parametrize(
    ("status", "is_ready"),
    [
        (None, False),
        ({"podIP": "10.0.0.1"}, True),
        ({"podIP": "10.0.0.1", "conditions": [READY]}, True),
        ({"podIP": "10.0.0.1", "conditions": []}, False),
        ({"podIP": "10.0.0.1", "conditions": ["?", {"type": "Ready", "status": "False"}]}, False),
        ({"conditions": [READY]}, False),
    ],
)
def test_a_pod_is_ready_when_it_says_so_or_is_an_external_server(
    status: Any, is_ready: bool
) -> None:
    assert pod_is_ready(pod(status)) is is_ready


def test_a_pod_that_is_leaving_is_not_ready() -> None:
    leaving = pod(
        {"podIP": "10.0.0.1", "conditions": [READY]}, deletionTimestamp="2026-01-01T00:00:00Z"
    )

    assert not pod_is_ready(leaving)


def test_of_a_pod_only_what_is_read_is_typed() -> None:
    item = made(
        "Pod",
        spec={
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "command": ["run"],
                    "args": ["--port", "1"],
                    "env": [
                        {"name": "A", "value": "1"},
                        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    ],
                    "ports": [{"containerPort": 8000, "name": "http"}],
                    "readinessProbe": {"httpGet": {"port": "http", "path": "/health"}},
                    "livenessProbe": {"grpc": {"port": 9003}, "periodSeconds": 5},
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    "securityContext": {"whatever": True},
                }
            ],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            "volumes": [{"name": "v", "configMap": {"name": "m"}}, {"name": "w", "emptyDir": {}}],
            "schedulerName": "x",
        },
    )

    assert isinstance(item, Pod)
    assert item.spec is not None
    container = item.spec.containers[0]
    assert container.readiness_probe is not None
    assert container.readiness_probe.http_get is not None
    assert container.readiness_probe.http_get.port == "http"
    assert container.liveness_probe is not None
    assert (container.liveness_probe.period_seconds, container.liveness_probe.timeout_seconds) == (
        5,
        1,
    )
    assert item.spec.init_containers[0].is_sidecar
    assert item.spec.volumes[1].empty_dir is not None
    assert item.spec.termination_grace_period_seconds == 30
    assert parse_object(item.to_dict()).resource == item


def test_text_of_a_secret_becomes_bytes_of_it() -> None:
    item = made("Secret", data={"a": "aGk="}, stringData={"b": "ho"})

    assert isinstance(item, Secret)
    assert (item.value("a"), item.value("b"), item.value("c")) == (b"hi", b"ho", None)
    assert "stringData" not in item.to_dict()


def test_a_secret_that_is_not_base64_is_refused() -> None:
    for data in ({"data": {"a": "***"}}, {"stringData": {"a": 1}}):
        parsed = parse_object(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, **data}
        )
        assert parsed.resource is None


def test_the_values_of_a_secret_are_not_in_its_repr() -> None:
    assert "aGk=" not in repr(made("Secret", data={"a": "aGk="}))


def test_a_service_may_have_no_ports_only_when_headless_or_external() -> None:
    headless = made("Service", spec={"clusterIP": "None"})
    external = made("Service", spec={"type": "ExternalName", "externalName": "a.b"})

    assert isinstance(headless, Service)
    assert headless.spec.cluster_ip == "None"
    assert isinstance(external, Service)


def test_an_endpoint_is_ready_unless_it_says_otherwise() -> None:
    item = made(
        "EndpointSlice",
        "discovery.k8s.io/v1",
        metadata={"labels": {"kubernetes.io/service-name": "web"}},
        addressType="IPv4",
        endpoints=[
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": True, "terminating": True}},
        ],
        ports=[{"port": 80}],
    )

    assert isinstance(item, EndpointSlice)
    assert item.service_name == "web"
    assert [endpoint.is_ready for endpoint in item.endpoints] == [True, False, False]


OLD = "inference.networking.x-k8s.io/v1alpha2"


@pytest.mark.parametrize(("port", "expected"), [(None, 9002), (7000, 7000)])
def test_an_older_pool_becomes_one_of_today(port: int | None, expected: int) -> None:
    item = made(
        "InferencePool",
        OLD,
        metadata={"namespace": "n", "labels": {"x": "y"}},
        spec={
            "selector": {"app": "a"},
            "targetPortNumber": 8000,
            "extensionRef": {"name": "epp", "portNumber": port, "failureMode": "FailOpen"},
        },
    )
    assert isinstance(item, InferencePoolV1Alpha2)

    pool = item.to_v1()

    assert pool.metadata == item.metadata
    assert parse_object(pool.to_dict()).resource == pool
    assert pool.spec.selector.match_labels == {"app": "a"}
    assert [target.number for target in pool.spec.target_ports] == [8000]
    picker = pool.spec.endpoint_picker_ref
    assert picker is not None
    assert picker.port is not None
    assert (picker.name, picker.port.number, picker.failure_mode) == ("epp", expected, "FailOpen")


def test_an_older_pool_may_select_nothing_in_particular() -> None:
    spec = {"selector": {}, "targetPortNumber": 1, "extensionRef": {"name": "e"}}
    item = made("InferencePool", OLD, spec=spec)

    assert isinstance(item, InferencePoolV1Alpha2)
    assert item.to_v1().spec.selector.match_labels == {}
