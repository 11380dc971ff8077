"""The Envoys of a Gateway, as objects of Kubernetes: pure, from a Gateway to what is made for it.

A Deployment with its ServiceAccount and its PodDisruptionBudget, a Service in front of it, and a
ConfigMap with the bootstrap, all in the Gateway's namespace and all owned by it, so that they go
with it. The Secret by which the Envoys show who they are is made by `key_ring`.

Sources: GEP-1762 (names, labels and ownership of what is made for a Gateway), and the provider
fields of Envoy Gateway's EnvoyProxy.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointsman.cluster.patching import patched
from pointsman.cluster.settings import (
    CLASS_LABEL,
    COMPONENT_LABEL,
    GATEWAY_LABEL,
    MANAGED_LABEL,
    MANAGER,
    NAME_LABEL,
    Installation,
    container_security,
    pod_security,
)
from pointsman.gateway import names
from pointsman.gateway.bootstraps import BootstrapError, customized
from pointsman.gateway.listeners.binding import BoundListener
from pointsman.gateway.proxies import process_settings
from pointsman.resources.base import Ref
from pointsman.resources.envoy_infrastructure import (
    KubernetesProvider,
    ProxyDeployment,
    ProxyDisruptionBudget,
    ProxyService,
)
from pointsman.resources.envoy_proxy import EnvoyProxy
from pointsman.resources.gateway_api import Gateway
from pointsman.xds.bootstrap import READY_PORT, ControlPlane, pod_bootstrap, sds_files

COMPONENT = "proxy"
CONTAINER = "envoy"
BOOTSTRAP_FILE = "bootstrap.json"
DIGEST_ANNOTATION = "pointsman.dev/bootstrap"
"""On the pods: what they were started with, so that another bootstrap rolls them over."""

CONFIGURATION_FOLDER = Path("/etc/pointsman/envoy")
CERTIFICATES_FOLDER = Path("/etc/pointsman/certificates")
RUN_FOLDER = Path("/run/pointsman")
ADMIN_SOCKET = RUN_FOLDER / "envoy-admin.sock"

DEFAULT_DRAIN_S = 60.0
DEFAULT_MIN_DRAIN_S = 10.0
"""Envoy Gateway's: how long running answers may take at an Envoy's end, and how long new requests
are still taken there, while everybody learns that it goes."""
LAST_MOMENTS_S = 10
"""Between the end of the drain and the kubelet's patience."""

QUIET = {"misc": "error"}
"""Envoy warns of each message that is new to it, at each change of a listener."""

PRIVILEGED_PORTS = 1024
UNPRIVILEGED_SYSCTL = "net.ipv4.ip_unprivileged_port_start"
"""A safe sysctl: the pod's own network lets anybody bind the ports from there on."""
MAX_NAME = 63
"""Of a Service, which is a DNS label."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Made:
    """What is made for a Gateway."""

    gateway: Ref
    name: str
    objects: tuple[Object, ...] = ()
    problem: str | None = None
    """Why nothing can be made."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, Any] = field(default_factory=dict)


def name_of(gateway: Gateway) -> str:
    """How everything that is made for a Gateway is called: after it and its class.

    A name that is too long for a Service is cut, and told from others by a digest.
    """
    full = f"{gateway.metadata.name}-{gateway.spec.gateway_class_name}".replace(".", "-")
    if not full[0].isalpha():
        full = f"gw-{full}"
    if len(full) <= MAX_NAME and "." not in gateway.metadata.name:
        return full
    whole = f"{gateway.metadata.name}/{gateway.spec.gateway_class_name}"
    digest = hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()
    return f"{full[: MAX_NAME - len(digest) - 1].rstrip('-')}-{digest}"


Ports = tuple[tuple[int, str], ...]
"""Ports, each with its protocol, in order."""


def ports_of(listeners: Iterable[BoundListener]) -> dict[Ref, Ports]:
    """The ports of each Gateway on which a listener is served."""
    found: dict[Ref, dict[int, str]] = {}
    for item in listeners:
        if item.is_served:
            found.setdefault(item.gateway.ref, {})[item.spec.port] = item.spec.protocol
    return {gateway: tuple(sorted(ports.items())) for gateway, ports in found.items()}


def made_for(
    gateway: Gateway, proxy: EnvoyProxy | None, ports: Ports, installation: Installation
) -> Made:
    """What a Gateway with listeners on these ports needs; `proxy` says how.

    A Gateway without a listener that is served needs nothing yet.
    """
    name = name_of(gateway)
    infrastructure = gateway.spec.infrastructure
    labels = {
        **(infrastructure.labels if infrastructure is not None else {}),
        NAME_LABEL: CONTAINER,
        **_selector(gateway),
        CLASS_LABEL: _label(gateway.spec.gateway_class_name),
    }
    made = Made(
        gateway.ref,
        name,
        labels=labels,
        annotations=dict(infrastructure.annotations) if infrastructure is not None else {},
        owner=_owner(gateway),
    )
    if not ports:
        return made
    provider = _provider(proxy)
    try:
        configuration = _configuration(gateway.ref, proxy, installation)
    except BootstrapError as error:
        return Made(gateway.ref, name, problem=str(error))
    objects = (
        _object(made, "v1", "ServiceAccount", {"automountServiceAccountToken": False}),
        _object(made, "v1", "ConfigMap", {"data": configuration}),
        _service(made, gateway, ports, provider.envoy_service or ProxyService()),
        _budget(made, gateway, provider.envoy_pdb or ProxyDisruptionBudget()),
        _deployment(made, gateway, ports, proxy, configuration, installation),
    )
    return Made(made.gateway, name, objects, None, made.labels, made.annotations, made.owner)


def certificate_secret(made: Made, certificate: bytes, key: bytes, authorities: bytes) -> Object:
    """The Secret by which the Envoys of a Gateway show who they are."""
    data = {"tls.crt": certificate, "tls.key": key, "ca.crt": authorities}
    content = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return _object(made, "v1", "Secret", {"type": "kubernetes.io/tls", "data": content})


def _provider(proxy: EnvoyProxy | None) -> KubernetesProvider:
    provider = proxy.spec.provider if proxy is not None else None
    found = provider.kubernetes if provider is not None else None
    return found or KubernetesProvider()


def _selector(gateway: Gateway) -> dict[str, str]:
    return {
        MANAGED_LABEL: MANAGER,
        COMPONENT_LABEL: COMPONENT,
        GATEWAY_LABEL: _label(gateway.metadata.name),
    }


def _label(name: str) -> str:
    """A name as the value of a label, which has no more than 63 characters."""
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
    return f"{name[: MAX_NAME - len(digest) - 1].rstrip('-.')}-{digest}"


def _owner(gateway: Gateway) -> Object:
    return {
        "apiVersion": Gateway.KIND.api_version,
        "kind": Gateway.KIND.kind,
        "name": gateway.metadata.name,
        "uid": gateway.metadata.uid,
        "controller": True,
    }


def _object(
    made: Made,
    api_version: str,
    kind: str,
    content: Mapping[str, Any],
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Object:
    given = {**(annotations or {}), **made.annotations}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": made.name,
            "namespace": made.gateway.namespace,
            "labels": {**(labels or {}), **made.labels},
            **({"annotations": given} if given else {}),
            "ownerReferences": [dict(made.owner)],
        },
        **content,
    }


def _configuration(
    gateway: Ref, proxy: EnvoyProxy | None, installation: Installation
) -> dict[str, str]:
    """The files that the Envoys start with.

    Raises:
        BootstrapError: the EnvoyProxy changes the bootstrap in a way that cannot be.
    """
    control_plane = ControlPlane(
        installation.host, installation.xds_port, CERTIFICATES_FOLDER, CONFIGURATION_FOLDER
    )
    own = pod_bootstrap(names.fleet(gateway), control_plane, ADMIN_SOCKET)
    wanted = proxy.spec.bootstrap if proxy is not None else None
    bootstrap = customized(own, wanted) if wanted is not None else own
    files = {BOOTSTRAP_FILE: bootstrap, **sds_files(control_plane)}
    return {name: json.dumps(content, sort_keys=True) for name, content in files.items()}


def _service(made: Made, gateway: Gateway, ports: Ports, wanted: ProxyService) -> Object:
    spec: Object = {
        "type": wanted.type,
        "selector": _selector(gateway),
        "ports": [
            {
                "name": f"{protocol.lower()}-{port}",
                "port": port,
                "targetPort": port,
                "protocol": "TCP",
            }
            for port, protocol in ports
        ],
    }
    if wanted.type != "ClusterIP":
        spec["externalTrafficPolicy"] = wanted.external_traffic_policy or "Local"
    asked = [item.value for item in gateway.spec.addresses if item.value is not None]
    if wanted.type == "LoadBalancer":
        ip = wanted.load_balancer_ip or next(iter(asked), None)
        given = {
            "loadBalancerClass": wanted.load_balancer_class,
            "allocateLoadBalancerNodePorts": wanted.allocate_load_balancer_node_ports,
            "loadBalancerIP": ip,
            "loadBalancerSourceRanges": list(wanted.load_balancer_source_ranges) or None,
        }
        spec |= {key: value for key, value in given.items() if value is not None}
    elif asked:
        spec["externalIPs"] = asked
    item = _object(
        made,
        "v1",
        "Service",
        {"spec": spec},
        labels=wanted.labels,
        annotations=wanted.annotations,
    )
    return patched(item, wanted.patch)


def _budget(made: Made, gateway: Gateway, wanted: ProxyDisruptionBudget) -> Object:
    limit: Object = {"maxUnavailable": 1}
    if wanted.min_available is not None:
        limit = {"minAvailable": wanted.min_available}
    elif wanted.max_unavailable is not None:
        limit = {"maxUnavailable": wanted.max_unavailable}
    spec = {**limit, "selector": {"matchLabels": _selector(gateway)}}
    item = _object(made, "policy/v1", "PodDisruptionBudget", {"spec": spec})
    return patched(item, wanted.patch)


def _deployment(
    made: Made,
    gateway: Gateway,
    ports: Ports,
    proxy: EnvoyProxy | None,
    configuration: Mapping[str, str],
    installation: Installation,
) -> Object:
    wanted = _provider(proxy).envoy_deployment or ProxyDeployment()
    pod = wanted.pod
    settings = process_settings(proxy)
    drain_s = DEFAULT_DRAIN_S if settings.drain_timeout_s is None else settings.drain_timeout_s
    min_drain_s = DEFAULT_MIN_DRAIN_S if settings.min_drain_s is None else settings.min_drain_s
    digest = hashlib.blake2b(json.dumps(configuration, sort_keys=True).encode(), digest_size=8)
    security = pod_security()
    if any(port < PRIVILEGED_PORTS for port, _ in ports):
        security["sysctls"] = [{"name": UNPRIVILEGED_SYSCTL, "value": "0"}]
    given: Object = {
        "affinity": pod.affinity,
        "tolerations": list(pod.tolerations) or None,
        "nodeSelector": dict(pod.node_selector) or None,
        "imagePullSecrets": [
            *({"name": name} for name in installation.image_pull_secrets),
            *pod.image_pull_secrets,
        ]
        or None,
        "priorityClassName": pod.priority_class_name,
        "hostUsers": pod.host_users,
        "initContainers": list(wanted.init_containers) or None,
        "topologySpreadConstraints": _spread(gateway)
        if pod.topology_spread_constraints is None
        else list(pod.topology_spread_constraints),
    }
    template = {
        "metadata": {
            "labels": {**pod.labels, **made.labels},
            "annotations": {
                **made.annotations,
                **pod.annotations,
                DIGEST_ANNOTATION: digest.hexdigest(),
            },
        },
        "spec": {
            "serviceAccountName": made.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {**security, **(pod.security_context or {})},
            "terminationGracePeriodSeconds": round(min_drain_s + drain_s) + LAST_MOMENTS_S,
            "containers": [
                _container(ports, wanted, _arguments(proxy, drain_s, min_drain_s), installation)
            ],
            "volumes": [
                {"name": "configuration", "configMap": {"name": made.name}},
                {"name": "certificates", "secret": {"secretName": made.name}},
                {"name": "run", "emptyDir": {}},
                *pod.volumes,
            ],
            **{key: value for key, value in given.items() if value is not None},
        },
    }
    spec: Object = {
        "selector": {"matchLabels": _selector(gateway)},
        "strategy": wanted.strategy
        or {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        "template": template,
    }
    if wanted.replicas is not None:
        # Where nobody says, `kubectl scale` and autoscalers may.
        spec["replicas"] = wanted.replicas
    return patched(_object(made, "apps/v1", "Deployment", {"spec": spec}), wanted.patch)


def _spread(gateway: Gateway) -> list[Object]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": _selector(gateway)},
        }
    ]


def _arguments(proxy: EnvoyProxy | None, drain_s: float, min_drain_s: float) -> list[str]:
    settings = process_settings(proxy)
    found = {**QUIET, **settings.component_levels}
    levels = [f"{name}:{level}" for name, level in sorted(found.items())]
    return [
        "proxy",
        *("--bootstrap", str(CONFIGURATION_FOLDER / BOOTSTRAP_FILE)),
        *("--admin-socket", str(ADMIN_SOCKET)),
        *("--node-id", "$(POD_NAMESPACE)/$(POD_NAME)"),
        *("--drain-timeout", f"{drain_s:g}"),
        *("--min-drain", f"{min_drain_s:g}"),
        *(("--concurrency", str(settings.concurrency)) if settings.concurrency else ()),
        *(("--log-level", settings.log_level) if settings.log_level else ()),
        *("--component-log-level", ",".join(levels)),
    ]


def _container(
    ports: Ports,
    wanted: ProxyDeployment,
    arguments: Sequence[str],
    installation: Installation,
) -> Object:
    given = wanted.container

    def field_of(path: str) -> Object:
        return {"fieldRef": {"fieldPath": path}}

    pull = {"imagePullPolicy": installation.image_pull_policy}
    return {
        "name": CONTAINER,
        "image": _image(wanted, installation),
        **(pull if installation.image_pull_policy else {}),
        "args": list(arguments),
        "env": [
            {"name": "POD_NAME", "valueFrom": field_of("metadata.name")},
            {"name": "POD_NAMESPACE", "valueFrom": field_of("metadata.namespace")},
            *given.env,
        ],
        "ports": [
            *(
                {"name": f"port-{port}", "containerPort": port, "protocol": "TCP"}
                for port, _ in ports
            ),
            {"name": "metrics", "containerPort": READY_PORT, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": READY_PORT},
            "periodSeconds": 2,
            "timeoutSeconds": 1,
            "failureThreshold": 2,
        },
        "livenessProbe": {
            # An Envoy that waits for the control plane is well.
            "tcpSocket": {"port": READY_PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 3,
            "failureThreshold": 6,
            "initialDelaySeconds": 10,
        },
        "resources": given.resources or {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "securityContext": {**container_security(), **(given.security_context or {})},
        "volumeMounts": [
            {"name": "configuration", "mountPath": str(CONFIGURATION_FOLDER), "readOnly": True},
            {"name": "certificates", "mountPath": str(CERTIFICATES_FOLDER), "readOnly": True},
            {"name": "run", "mountPath": str(RUN_FOLDER)},
            *given.volume_mounts,
        ],
    }


def _image(wanted: ProxyDeployment, installation: Installation) -> str:
    container = wanted.container
    if container.image is not None:
        return container.image
    if container.image_repository is not None:
        _, _, tag = installation.image.rpartition("/")[2].partition(":")
        return f"{container.image_repository}:{tag}" if tag else container.image_repository
    return installation.image
