"""What the references of a route or policy lead to: addresses, or the reason why not."""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from pointsman.gateway import conditions, names
from pointsman.gateway.backends.declared_tls import declared_tls
from pointsman.gateway.backends.members import Members, is_address
from pointsman.gateway.backends.upstream_tls import TLSPolicies, UpstreamTLS, tls_policies
from pointsman.gateway.options import Options
from pointsman.resources.base import Ref, Resource
from pointsman.resources.core import (
    PICKER_ANNOTATION,
    PROVIDED_ANNOTATION,
    ConfigMap,
    Pod,
    Secret,
    Service,
    ServicePort,
    pod_address,
)
from pointsman.resources.discovery import EndpointSlice
from pointsman.resources.envoy_gateway import Backend, EnvoyGatewayConfig
from pointsman.resources.gateway_api import BackendTLSPolicy, ReferenceGrant
from pointsman.resources.inference_extension import (
    DEFAULT_PICKER_PORT,
    InferencePool,
    InferencePoolV1Alpha2,
)
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
    """Its servers; () of a pool, whose servers come and go while what leads to it stays (see
    `Resolver.servers`)."""
    needs_dns: bool = False
    """The hosts are names that Envoy resolves."""
    is_http2: bool = False
    is_plaintext: bool = False
    """The object says that its servers speak without TLS, where TLS would be assumed."""
    is_fallback: bool = False
    """The object says that its servers are for when the others are not well."""
    tls: UpstreamTLS | None = None
    """How to speak TLS to its servers; None for in the clear."""
    pool: InferencePool | None = None
    """The pool as its user wrote it, in today's generation."""
    picker: Picker | Unresolved | None = None
    """Who picks for the pool, or why nobody does though it names somebody."""


@dataclass(frozen=True, slots=True)
class Picker:
    """Who picks for a pool."""

    cluster: str
    is_own: bool
    """It is the one beside Envoy, behind a Unix socket."""
    is_provided: bool = False
    """The pool names a Service that is not defined; ours stands in for it."""
    destination: Destination | None = None
    """Its Service, where it has one."""
    is_marked: bool = False
    """Its Service says that Pointsman's picker is behind it."""

    @property
    def is_pointsman(self) -> bool:
        """It is Pointsman's, and is asked in the way that costs least."""
        return self.is_own or self.is_marked


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a reference leads nowhere: a reason of the ResolvedRefs condition, and words."""

    reason: str
    message: str


Resolution = Destination | Unresolved


@dataclass(frozen=True, slots=True, eq=False)
class Servers:
    """What the ready pods of a pool come to."""

    destination: Destination
    pods: Sequence[Pod]
    addresses: tuple[Address, ...]

    def are_of(self, destination: Destination, pods: Sequence[Pod]) -> bool:
        """Whether they are these very pods'."""
        return (
            self.destination is destination
            and len(self.pods) == len(pods)
            and all(map(operator.is_, self.pods, pods))
        )


_Question = tuple[Ref, int | None, tuple[str, str, str] | None]
"""A reference, its port, and who asks where that matters: from another namespace."""


class Resolver:
    """Follows references among the objects of a store.

    What was found is kept, and kept as the same object for as long as it is equal: who holds it can
    tell by identity whether anything behind a reference has changed.
    """

    INPUTS: ClassVar[tuple[type[Resource], ...]] = (
        Service,
        Backend,
        Pod,
        EndpointSlice,
        ReferenceGrant,
        InferencePool,
        InferencePoolV1Alpha2,
        BackendTLSPolicy,
    )
    """The kinds that decide what a reference leads to."""

    AUTHORITIES: ClassVar[tuple[type[Resource], ...]] = (ConfigMap, Secret)
    """These too, where there are BackendTLSPolicies, or Backends that declare TLS."""

    CAPACITY = 100_000
    """References that are kept; the next resolver keeps only those that somebody still follows."""

    def __init__(
        self,
        store: Store,
        config: EnvoyGatewayConfig,
        options: Options,
        before: Resolver | None = None,
    ) -> None:
        """`before` is the resolver of an earlier state of the store."""
        self.store = store
        self.config = config
        self.options = options
        self._inputs = self._versions()
        self._before = before.found if before is not None else {}
        self.found: dict[_Question, Resolution] = {}
        """Every answer so far."""
        self.known_servers: dict[Ref, Servers] = {}
        """Of every pool that was asked for so far."""
        self._servers_before = before.known_servers if before is not None else {}
        self.members: Members = Members(store, before.members if before is not None else None)
        self.tls_policies: TLSPolicies = tls_policies(
            store, options.authorities_path, before.tls_policies if before is not None else None
        )

    def following(self, config: EnvoyGatewayConfig, options: Options) -> Resolver:
        """The resolver of the store as it is now: this one, where nothing has changed for it."""
        is_same = (
            (config, options) == (self.config, self.options)
            and self._inputs == self._versions()
            and len(self.found) < self.CAPACITY
        )
        return self if is_same else Resolver(self.store, config, options, self)

    @property
    def referred(self) -> frozenset[Ref]:
        """Everything that a reference names."""
        return frozenset(ref for ref, _, _ in self.found)

    def _versions(self) -> tuple[int, ...]:
        trusts = bool(self.store.list(BackendTLSPolicy)) or any(
            item.spec.tls is not None for item in self.store.list(Backend)
        )
        kinds = (*self.INPUTS, *self.AUTHORITIES) if trusts else self.INPUTS
        return tuple(self.store.kind_version(kind) for kind in kinds)

    def resolve(self, source: Ref, ref: Ref, port: int | None) -> Resolution:
        """What `ref` leads to, named by the object `source`, with the port it names."""
        is_near = ref.namespace == source.namespace
        question = (ref, port, None if is_near else (source.group, source.kind, source.namespace))
        found = self.found.get(question)
        if found is None:
            found = self._resolve(source, ref, port)
            before = self._before.get(question)
            if before == found:
                found = before
            self.found[question] = found
        return found

    def _resolve(self, source: Ref, ref: Ref, port: int | None) -> Resolution:
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

    def servers(self, destination: Destination) -> tuple[Address, ...]:
        """The ready model servers of the pool that a reference leads to.

        One for each port of each pod, and the same object for as long as they are the same.
        """
        pool = destination.pool
        if pool is None or (destination.tls is not None and destination.tls.is_broken):
            return ()
        found = self.known_servers.get(destination.ref)
        if found is None or found.destination is not destination:
            labels = pool.spec.selector.match_labels
            pods = self.members.ready_pods(pool.metadata.namespace, labels)
            found = self._servers_before.get(destination.ref)
            if found is None or not found.are_of(destination, pods):
                found = Servers(destination, pods, tuple(_pool_addresses(pool, pods)))
            self.known_servers[destination.ref] = found
        return found.addresses

    def service_addresses(self, service: Service, port: ServicePort) -> tuple[Address, ...]:
        """The ready servers behind one port of a Service: its pods, or its EndpointSlices."""
        if not service.spec.selector:
            return tuple(self._slice_addresses(service, port))
        pods = self.members.ready_pods(service.metadata.namespace, service.spec.selector)
        return tuple(
            Address(*found)
            for pod in pods
            if (number := _target_port(pod, port)) is not None
            and (found := pod_address(pod, number)) is not None
        )

    def _slice_addresses(self, service: Service, port: ServicePort) -> Iterator[Address]:
        meta = service.metadata
        for item in self.members.slices(meta.namespace, meta.name):
            numbers = [
                found.port
                for found in item.ports
                if found.port is not None and (found.name or "") == (port.name or "")
            ]
            for endpoint in item.endpoints:
                if endpoint.is_ready and is_address(endpoint.addresses[0]):
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
        plain = Destination(ref, addresses, is_http2=is_h2c, is_plaintext=is_h2c)
        return self._secured(plain, found.name)

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
        fixed = [Address(item.ip.address, item.ip.port) for item in endpoints if item.ip]
        sockets = [Address(item.unix.path, 0) for item in endpoints if item.unix]
        found = Destination(
            ref,
            (*dns, *fixed, *sockets),
            needs_dns=bool(dns),
            is_http2=is_h2c,
            is_fallback=bool(backend.spec.fallback),
        )
        declared, _ = declared_tls(self.store, backend, self.options.authorities_path)
        return self._secured(found, declared=declared)

    def _pool(self, ref: Ref) -> Resolution:
        pool = find_pool(self.store, ref)
        if pool is None:
            return Unresolved("BackendNotFound", f"{ref} not found")
        # What others write into the object (its status) must not make it another destination.
        pool = pool.with_metadata(resource_version="").with_status(None)
        is_h2c = pool.spec.app_protocol in H2C_PROTOCOLS
        return self._secured(
            Destination(ref, is_http2=is_h2c, pool=pool, picker=self._picker(ref, pool))
        )

    def _secured(
        self,
        found: Destination,
        section: str | None = None,
        *,
        declared: UpstreamTLS | None = None,
    ) -> Destination:
        """The same with what a BackendTLSPolicy says of it, or of that port of it, or it itself."""
        tls = self.tls_policies.of(found.ref, section) or declared
        if tls is None:
            return found
        # Whom nobody can vouch for is not spoken to: no address is left, and clients get a 503.
        addresses = () if tls.is_broken else found.addresses
        return replace(found, tls=tls, addresses=addresses)

    def _picker(self, ref: Ref, pool: InferencePool) -> Picker | Unresolved | None:
        """The Service that a pool names, or ours where none is named or none is there."""
        has_own = self.options.own_picker_socket is not None
        reference = pool.spec.endpoint_picker_ref
        if reference is None and not has_own:
            return self._provided_picker(ref)
        if reference is None:
            return Picker(names.OWN_PICKER_CLUSTER, is_own=True)
        target = ref_of(ref.namespace, reference.group, reference.kind, None, reference.name)
        port = reference.port.number if reference.port is not None else None
        found = self.resolve(ref, target, port)
        if isinstance(found, Destination) and found.pool is None:
            is_marked = self._is_marked(target, PICKER_ANNOTATION)
            return Picker(
                names.pool_picker(ref), is_own=False, destination=found, is_marked=is_marked
            )
        if has_own and (target.group, target.kind) == SERVICE and self.store.find(target) is None:
            return Picker(names.OWN_PICKER_CLUSTER, is_own=True, is_provided=True)
        message = found.message if isinstance(found, Unresolved) else f"{target} cannot pick"
        return Unresolved("InvalidExtensionRef", message)

    def _provided_picker(self, pool: Ref) -> Picker | None:
        """The Service that was made for a pool that names none, in a cluster."""
        service = ref_of(pool.namespace, *SERVICE, None, names.provided_picker(pool.name))
        if not self._is_marked(service, PROVIDED_ANNOTATION):
            return None
        found = self.resolve(pool, service, DEFAULT_PICKER_PORT)
        if not isinstance(found, Destination):
            return None
        cluster = names.pool_picker(pool)
        return Picker(cluster, is_own=False, is_provided=True, destination=found, is_marked=True)

    def _is_marked(self, service: Ref, annotation: str) -> bool:
        found = self.store.find(service)
        return found is not None and found.metadata.annotations.get(annotation) == "true"

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
        if endpoint.ip and not is_address(endpoint.ip.address):
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


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _pool_addresses(pool: InferencePool, pods: Sequence[Pod]) -> Iterator[Address]:
    ports = [item.number for item in pool.spec.target_ports]
    for pod in pods:
        for port in ports:
            found = pod_address(pod, port)
            if found is not None:
                yield Address(*found)


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
