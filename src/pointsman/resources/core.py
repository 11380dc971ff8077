"""The objects of the core group: Service, ConfigMap, Secret, Pod, Namespace.

Of a Pod only what Pointsman reads is typed; the rest of that large API is ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pointsman.resources.base import Kind, Lenient, Model, ObjectMeta, Resource
from pointsman.resources.conditions import find
from pointsman.resources.fields import (
    DNS_LABEL,
    Broken,
    Count32,
    Flag,
    Int32,
    IntOrString,
    Port,
    rules_error,
    unique,
)

PORTS_ANNOTATION = "pointsman.dev/ports"
"""On a Pod that shares its address with others: `8000=31234,9002=31235`, container port to real."""

PROVIDED_ANNOTATION = "pointsman.dev/provided"
"""On an object that Pointsman made itself because the files name it and lack it."""

PICKER_ANNOTATION = "pointsman.dev/picker"
"""On a Service (`"true"`): the endpoint picker behind it is Pointsman's."""

PortProtocol = Literal["TCP", "UDP", "SCTP"]
EnvName = Annotated[str, Field(min_length=1, pattern=r"^[^=\x00]+$")]


class Namespace(Resource):
    """A namespace; listeners choose routes by its labels."""

    KIND: ClassVar[Kind] = Kind("", "v1", "Namespace", "namespaces", ("ns",), namespaced=False)

    spec: dict[str, Any] | None = None


class ServicePort(Model):
    """One port of a Service and where it leads."""

    UNUSED: ClassVar[frozenset[str]] = frozenset({"nodePort"})

    name: str = ""
    protocol: PortProtocol = "TCP"
    port: Port
    target_port: IntOrString | None = None
    """A number or the name of a container port; unset means the same as `port`."""
    app_protocol: str | None = None


class ServiceSpec(Model):
    """What a Service selects and which ports it offers."""

    UNUSED: ClassVar[frozenset[str]] = frozenset(
        {
            "allocateLoadBalancerNodePorts",
            "clusterIPs",
            "externalIPs",
            "externalTrafficPolicy",
            "healthCheckNodePort",
            "internalTrafficPolicy",
            "ipFamilies",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "loadBalancerIP",
            "loadBalancerSourceRanges",
            "sessionAffinity",
            "sessionAffinityConfig",
            "trafficDistribution",
        }
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    selector: dict[str, str] = Field(default_factory=dict)
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str | None = Field(default=None, alias="clusterIP")
    external_name: str | None = None
    publish_not_ready_addresses: Flag = False

    def _broken(self) -> Iterator[Broken]:
        if self.type == "ExternalName":
            if not self.external_name:
                yield ("externalName",), "is required when type is ExternalName"
            return
        if not self.ports and self.cluster_ip != "None":
            yield ("ports",), "must have at least one port"
        if len(self.ports) > 1:
            for position, port in enumerate(self.ports):
                if not port.name:
                    yield ("ports", position, "name"), "is required when there are several ports"
            yield from unique("ports", [p.name or id(p) for p in self.ports], "the name of a port")
        yield from unique(
            "ports", [(p.protocol, p.port) for p in self.ports], "protocol and port together"
        )


class Service(Resource):
    """A name for the pods it selects."""

    KIND: ClassVar[Kind] = Kind("", "v1", "Service", "services", ("svc",))

    spec: ServiceSpec


class ConfigMap(Resource):
    """Texts by key."""

    KIND: ClassVar[Kind] = Kind("", "v1", "ConfigMap", "configmaps", ("cm",))

    data: dict[str, str] = Field(default_factory=dict)
    binary_data: dict[str, str] = Field(default_factory=dict)
    immutable: Flag | None = None


class Secret(Resource):
    """Bytes by key, as base64; `stringData` is folded into `data`, as the API server does."""

    KIND: ClassVar[Kind] = Kind("", "v1", "Secret", "secrets")

    type: str = "Opaque"
    data: dict[str, str] = Field(default_factory=dict, repr=False)
    immutable: Flag | None = None

    @model_validator(mode="before")
    @classmethod
    def _fold_string_data(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("stringData"), dict):
            return value
        plain = value["stringData"]
        wrong = [key for key, text in plain.items() if not isinstance(text, str)]
        if wrong:
            raise rules_error((("stringData", key), "must be a string") for key in wrong)
        folded = {k: base64.b64encode(v.encode()).decode() for k, v in plain.items()}
        rest = {k: v for k, v in value.items() if k != "stringData"}
        return {**rest, "data": {**(rest.get("data") or {}), **folded}}

    def _broken(self) -> Iterator[Broken]:
        for key, text in self.data.items():
            if _decoded(text) is None:
                yield ("data", key), "must be base64"

    def value(self, key: str) -> bytes | None:
        """The bytes under that key."""
        text = self.data.get(key)
        return None if text is None else _decoded(text)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


class KeyRef(Lenient):
    """A key of a ConfigMap or Secret of the same namespace."""

    name: str = ""
    key: str
    optional: Flag = False


class FieldRef(Lenient):
    """A field of the Pod itself, like `metadata.name` or `status.podIP`."""

    field_path: str


class EnvVarSource(Lenient):
    """Where the value of a variable comes from."""

    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None


class EnvVar(Lenient):
    """An environment variable."""

    name: EnvName
    value: str = ""
    value_from: EnvVarSource | None = None


class ContainerPort(Lenient):
    """A port that a container listens on."""

    name: str = ""
    container_port: Port
    host_port: Count32 = 0
    protocol: PortProtocol = "TCP"


class HTTPGetAction(Lenient):
    """A probe by an HTTP request."""

    path: str = "/"
    port: IntOrString
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"


class GRPCAction(Lenient):
    """A probe by the gRPC health service."""

    port: Port
    service: str = ""


class TCPSocketAction(Lenient):
    """A probe by opening a connection."""

    port: IntOrString
    host: str = ""


class ExecAction(Lenient):
    """A probe by a command."""

    command: tuple[str, ...] = ()


class Probe(Lenient):
    """How to ask a container whether it is well."""

    http_get: HTTPGetAction | None = None
    grpc: GRPCAction | None = None
    tcp_socket: TCPSocketAction | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: Count32 = 0
    period_seconds: Count32 = 10
    timeout_seconds: Count32 = 1
    success_threshold: Count32 = 1
    failure_threshold: Count32 = 3


class VolumeMount(Lenient):
    """Where a volume appears in a container."""

    name: str
    mount_path: str
    sub_path: str = ""
    read_only: Flag = False


class Resources(Lenient):
    """What a container asks for and may use: quantities by name."""

    limits: dict[str, str | int | float] = Field(default_factory=dict)
    requests: dict[str, str | int | float] = Field(default_factory=dict)


class Container(Lenient):
    """One process of a Pod."""

    name: str = Field(min_length=1, max_length=63, pattern=DNS_LABEL)
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    volume_mounts: tuple[VolumeMount, ...] = ()
    resources: Resources | None = None
    restart_policy: str | None = None
    """`Always` makes an init container a sidecar."""

    @property
    def is_sidecar(self) -> bool:
        """An init container that lives as long as its Pod."""
        return self.restart_policy == "Always"


class KeyToPath(Lenient):
    """One key of a ConfigMap or Secret as a file."""

    key: str
    path: str


class ConfigMapVolume(Lenient):
    """A ConfigMap as files."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: Flag = False


class SecretVolume(Lenient):
    """A Secret as files."""

    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: Flag = False


class EmptyDirVolume(Lenient):
    """A folder that lives with its Pod."""

    medium: str = ""
    size_limit: str | int | None = None


class HostPathVolume(Lenient):
    """A folder of the machine."""

    path: str
    type: str = ""


class ClaimVolume(Lenient):
    """A folder that outlives its Pod."""

    claim_name: str
    read_only: Flag = False


class Volume(Lenient):
    """A folder that containers mount."""

    name: str
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    host_path: HostPathVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None


class PodSpec(Lenient):
    """The containers of a Pod and what they share."""

    containers: tuple[Container, ...] = Field(min_length=1)
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Count32 = 30
    service_account_name: str = ""
    node_name: str = ""
    priority: Int32 | None = None

    def _broken(self) -> Iterator[Broken]:
        yield from unique("containers", [c.name for c in self.containers], "the container's name")
        taken = {container.name for container in self.containers}
        for position, container in enumerate(self.init_containers):
            if container.name in taken:
                yield ("initContainers", position, "name"), "is the name of another container"
            taken.add(container.name)
        volumes = {volume.name for volume in self.volumes}
        for group, containers in (
            ("containers", self.containers),
            ("initContainers", self.init_containers),
        ):
            for position, container in enumerate(containers):
                for index, mount in enumerate(container.volume_mounts):
                    if mount.name not in volumes:
                        where = (group, position, "volumeMounts", index, "name")
                        yield where, f"names no volume of this Pod: {mount.name!r}"


class TemplateMeta(Lenient):
    """The metadata that pods get from their template."""

    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class PodTemplate(Lenient):
    """What the pods of a Deployment look like."""

    metadata: TemplateMeta = TemplateMeta()
    spec: PodSpec


class Pod(Resource):
    """A running (or external) server."""

    KIND: ClassVar[Kind] = Kind("", "v1", "Pod", "pods", ("po",))
    STATUS_IS_INPUT: ClassVar[bool] = True

    spec: PodSpec | None = None
    """Absent for an external server, of which only the address is known."""


def pod_ip(pod: Pod) -> str | None:
    """The address of a Pod, once it has one."""
    address = (pod.status or {}).get("podIP")
    return address if isinstance(address, str) and address else None


def pod_address(pod: Pod, port: int) -> tuple[str, int] | None:
    """Host and port under which a Pod's container port is reached, None without an address."""
    address = pod_ip(pod)
    if address is None:
        return None
    if PORTS_ANNOTATION not in pod.metadata.annotations:
        return address, port
    return address, port_map(pod.metadata).get(port, port)


def port_map(meta: ObjectMeta) -> dict[int, int]:
    """The ports annotation as numbers; entries that are not two ports are left out."""
    pairs = (
        entry.partition("=") for entry in meta.annotations.get(PORTS_ANNOTATION, "").split(",")
    )
    return {
        int(port): int(real)
        for port, _, real in ((a.strip(), b, c.strip()) for a, b, c in pairs)
        if _is_port(port) and _is_port(real)
    }


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535


def pod_is_ready(pod: Pod) -> bool:
    """Whether new requests may go there: has an address, says it is ready, and is not leaving.

    A Pod that states an address and no conditions is an external server written by hand: ready.
    """
    if pod.metadata.deletion_timestamp is not None or pod_ip(pod) is None:
        return False
    conditions = (pod.status or {}).get("conditions")
    if not isinstance(conditions, list):
        return True
    ready = find((item for item in conditions if isinstance(item, dict)), "Ready")
    return ready is not None and ready.get("status") == "True"
