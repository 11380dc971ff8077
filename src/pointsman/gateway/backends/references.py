"""What the references of a route or policy lead to: addresses, or the reason why not."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from pointsman.gateway import conditions
from pointsman.gateway.options import Options
from pointsman.resources.base import Ref
from pointsman.resources.core import Pod, Service, ServicePort, pod_address, pod_ip, pod_is_ready
from pointsman.resources.discovery import EndpointSlice
from pointsman.resources.envoy_gateway import Backend, EnvoyGatewayConfig
from pointsman.resources.gateway_api import ReferenceGrant
from pointsman.resources.inference_extension import InferencePool, InferencePoolV1Alpha2
from pointsman.store import Store

SERVICE = ("", "Service")
BACKEND = (Backend.KIND.group, Backend.KIND.kind)
POOL_GROUPS = ("inference.networking.k8s.io", "inference.networking.x-k8s.io")
POOL = "InferencePool"

MAX_SOCKET_PATH_BYTES = 107
"""Of the operating system."""

H2C_PROTOCOLS = frozenset({"kubernetes.io/h2c", "gateway.envoyproxy.io/h2c"})


@dataclass(frozen=True, slots=True)
class Address:
    """One server: an IP or name with a port, or a Unix socket's path (port 0)."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Destination:
    """What a reference leads to."""

    ref: Ref
    addresses: tuple[Address, ...] = ()
    needs_dns: bool = False
    """The hosts are names that Envoy resolves."""
    is_http2: bool = False
    is_plaintext: bool = False
    """The object says that its servers speak without TLS, where TLS would be assumed."""
    pool: InferencePool | None = None


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a reference leads nowhere: a reason of the ResolvedRefs condition, and words."""

    reason: str
    message: str


Resolution = Destination | Unresolved


@dataclass(frozen=True, slots=True)
class Resolver:
    """Follows references among the objects of a store."""

    store: Store
    config: EnvoyGatewayConfig
    options: Options

    def resolve(self, source: Ref, ref: Ref, port: int | None) -> Resolution:
        """What `ref` leads to, named by the object `source`, with the port it names."""
        if ref.namespace != source.namespace and not self.is_granted(source, ref):
            return Unresolved(
                "RefNotPermitted",
                f"Backend ref to {ref} not permitted by any ReferenceGrant.",
            )
        kind = (ref.group, ref.kind)
        if kind == SERVICE:
            return self._service(ref, port)
        if kind == BACKEND:
            return self._backend(ref)
        if ref.kind == POOL and ref.group in POOL_GROUPS:
            return self._pool(ref)
        return Unresolved(
            "InvalidKind",
            f"{ref.kind} of group {ref.group!r} cannot be a backend; use a Service, a Backend "
            "or an InferencePool",
        )

    def pool_addresses(self, pool: InferencePool) -> tuple[Address, ...]:
        """The ready model servers of a pool: one for each port of each pod."""
        labels = pool.spec.selector.match_labels
        pods = self._ready_pods(pool.metadata.namespace, labels)
        ports = [item.number for item in pool.spec.target_ports]
        return tuple(
            Address(*found)
            for pod in pods
            for port in ports
            if (found := pod_address(pod, port)) is not None
        )

    def service_addresses(self, service: Service, port: ServicePort) -> tuple[Address, ...]:
        """The ready servers behind one port of a Service: its pods, or its EndpointSlices."""
        if not service.spec.selector:
            return tuple(self._slice_addresses(service, port))
        pods = self._ready_pods(service.metadata.namespace, service.spec.selector)
        return tuple(
            Address(*found)
            for pod in pods
            if (number := _target_port(pod, port)) is not None
            and (found := pod_address(pod, number)) is not None
        )

    def _ready_pods(self, namespace: str, labels: dict[str, str]) -> list[Pod]:
        return [
            pod
            for pod in self.store.list(Pod, namespace)
            if labels.items() <= pod.metadata.labels.items()
            and pod_is_ready(pod)
            and _is_address(pod_ip(pod) or "")
        ]

    def _slice_addresses(self, service: Service, port: ServicePort) -> Iterator[Address]:
        for item in self.store.list(EndpointSlice, service.metadata.namespace):
            if item.metadata.labels.get("kubernetes.io/service-name") != service.metadata.name:
                continue
            numbers = [
                found.port
                for found in item.ports
                if found.port is not None and (found.name or "") == (port.name or "")
            ]
            for endpoint in item.endpoints:
                if endpoint.is_ready and _is_address(endpoint.addresses[0]):
                    yield from (Address(endpoint.addresses[0], number) for number in numbers)

    def _service(self, ref: Ref, port: int | None) -> Resolution:
        service = self.store.get(Service, ref.namespace, ref.name)
        if service is None:
            return Unresolved("BackendNotFound", f"{ref} not found")
        if port is None:
            return Unresolved("PortNotSpecified", f"A valid port number is needed for {ref}")
        found = next((item for item in service.spec.ports if item.port == port), None)
        if found is None:
            known = ", ".join(str(item.port) for item in service.spec.ports)
            return Unresolved("BackendNotFound", f"{ref} has no port {port}; it has: {known}")
        is_h2c = found.app_protocol in H2C_PROTOCOLS
        addresses = self.service_addresses(service, found)
        return Destination(ref, addresses, is_http2=is_h2c, is_plaintext=is_h2c)

    def _backend(self, ref: Ref) -> Resolution:
        backend = self.store.get(Backend, ref.namespace, ref.name)
        if backend is None:
            return Unresolved("BackendNotFound", f"{ref} not found")
        problem = backend_problem(backend, self.config, self.options)
        if problem is not None:
            return Unresolved("UnsupportedValue", problem)
        is_h2c = any(item in H2C_PROTOCOLS for item in backend.spec.app_protocols)
        endpoints = backend.spec.endpoints
        dns = [Address(item.fqdn.hostname, item.fqdn.port) for item in endpoints if item.fqdn]
        if dns:
            return Destination(ref, tuple(dns), needs_dns=True, is_http2=is_h2c)
        fixed = [Address(item.ip.address, item.ip.port) for item in endpoints if item.ip]
        sockets = [Address(item.unix.path, 0) for item in endpoints if item.unix]
        return Destination(ref, (*fixed, *sockets), is_http2=is_h2c)

    def _pool(self, ref: Ref) -> Resolution:
        pool = find_pool(self.store, ref)
        if pool is None:
            return Unresolved("BackendNotFound", f"{ref} not found")
        is_h2c = pool.spec.app_protocol in H2C_PROTOCOLS
        return Destination(ref, self.pool_addresses(pool), is_http2=is_h2c, pool=pool)

    def is_granted(self, source: Ref, target: Ref) -> bool:
        """Whether a ReferenceGrant lets `source` name `target` in another namespace."""
        for grant in self.store.list(ReferenceGrant, target.namespace):
            comes = any(
                (item.group, item.kind, item.namespace)
                == (source.group, source.kind, source.namespace)
                for item in grant.spec.from_
            )
            goes = any(
                (item.group, item.kind) == (target.group, target.kind)
                and item.name in (None, target.name)
                for item in grant.spec.to
            )
            if comes and goes:
                return True
        return False


def find_pool(store: Store, ref: Ref) -> InferencePool | None:
    """The pool that `ref` names, in today's generation."""
    found = store.find(ref)
    if isinstance(found, InferencePoolV1Alpha2):
        return found.to_v1()
    return found if isinstance(found, InferencePool) else None


def backend_problem(backend: Backend, config: EnvoyGatewayConfig, options: Options) -> str | None:
    """Why a Backend is not accepted; None where it is.

    Rules of Envoy Gateway v1.3: the switch must be on, hostnames have two labels or more, and
    loopback addresses are for one machine only.
    """
    if not config.extension_apis.enable_backend:
        return conditions.BACKEND_DISABLED
    endpoints = backend.spec.endpoints
    for endpoint in endpoints:
        if endpoint.fqdn and "." not in endpoint.fqdn.hostname.strip("."):
            return (
                f"The Backend was not accepted: hostname {endpoint.fqdn.hostname} is not a "
                "valid FQDN"
            )
        if endpoint.ip and not _is_address(endpoint.ip.address):
            return f"The Backend was not accepted: {endpoint.ip.address} is not an IP address"
        if endpoint.unix and not 0 < len(endpoint.unix.path.encode()) <= MAX_SOCKET_PATH_BYTES:
            return (
                "The Backend was not accepted: the path of a Unix socket has 1 to "
                f"{MAX_SOCKET_PATH_BYTES} bytes"
            )
        if endpoint.ip and not options.is_alone and _is_loopback(endpoint.ip.address):
            return (
                f"The Backend was not accepted: IP address {endpoint.ip.address} in the "
                "loopback range is only supported on one machine"
            )
    return None


def _is_address(text: str) -> bool:
    """An IP address as Envoy takes it: one that it does not take would cost the whole cluster."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _target_port(pod: Pod, port: ServicePort) -> int | None:
    """The container port behind a Service's port, by number or by name."""
    target = port.target_port if port.target_port is not None else port.port
    if isinstance(target, int):
        return target
    return next(
        (
            item.container_port
            for container in (pod.spec.containers if pod.spec is not None else ())
            for item in container.ports
            if item.name == target
        ),
        None,
    )


def ref_of(source_namespace: str, group: str, kind: str, namespace: str | None, name: str) -> Ref:
    """The object that a backendRef names; its namespace is the source's where it says none."""
    return Ref(group, kind, namespace or source_namespace, name)
