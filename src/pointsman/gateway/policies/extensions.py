"""EnvoyExtensionPolicy: external processors that the user attaches to routes or Gateways.

A route's own policy goes before its Gateway's. Of two policies on one target the older one counts.
A policy that cannot be translated closes the routes it targets: they answer 500, because what the
user put in the way must not be skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2

from pointsman.gateway import conditions, names
from pointsman.gateway.backends import clusters
from pointsman.gateway.backends.references import Destination, Resolver, Unresolved, ref_of
from pointsman.gateway.messages import seconds, wrapped
from pointsman.gateway.snapshot import EnvoyResource
from pointsman.resources.backend_settings import BackendSettings
from pointsman.resources.base import Ref
from pointsman.resources.core import PROVIDED_ANNOTATION
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.envoy_gateway import EnvoyExtensionPolicy, ExtProc

STREAM_TIMEOUT_S = 10.0
"""Envoy Gateway writes this into the gRPC service; a stream outlives it."""

MESSAGE_TIMEOUT_AT_MOST_S = 3600.0

SERVED_SETTINGS = frozenset({"circuit_breaker", "timeout"})

BODY_MODES = {
    "Streamed": "STREAMED",
    "Buffered": "BUFFERED",
    "BufferedPartial": "BUFFERED_PARTIAL",
    "FullDuplexStreamed": "FULL_DUPLEX_STREAMED",
}


@dataclass(frozen=True, slots=True)
class Processor:
    """One external processor: its filter and the cluster behind it."""

    filter_name: str
    config: ext_proc_pb2.ExternalProcessor
    resources: tuple[EnvoyResource, ...]


@dataclass(frozen=True, slots=True)
class Extension:
    """What a policy means for the routes it targets."""

    policy: EnvoyExtensionPolicy
    targets: tuple[Ref, ...]
    """The routes and Gateways for which this policy counts."""
    processors: tuple[Processor, ...] = ()
    problem: str | None = None
    """Why its routes answer 500."""
    conflicts: tuple[Ref, ...] = ()
    """Targets that an older policy holds."""
    provided: tuple[Ref, ...] = ()
    """Services that it names and that Pointsman made."""


class Extensions:
    """All policies, by the object they target."""

    def __init__(self, items: Sequence[Extension]) -> None:
        self.items = tuple(items)
        self._by_target = {target: item for item in items for target in item.targets}

    @property
    def seen_by_routes(self) -> tuple[object, ...]:
        """All that can change what a route becomes; the servers behind processors are not in it."""
        return tuple(
            (item.targets, item.problem, *(each.filter_name for each in item.processors))
            for item in self.items
        )

    def of(self, route: Ref, gateway: Ref) -> Extension | None:
        """The policy that counts for a route on a Gateway."""
        return self._by_target.get(route) or self._by_target.get(gateway)

    def overriding(self, item: Extension, routes: Sequence[Ref]) -> list[Ref]:
        """Which of `routes` have a policy of their own, where `item` targets their Gateway."""
        return [ref for ref in routes if self._by_target.get(ref) not in (None, item)]


def translate(resolver: Resolver) -> Extensions:
    """Every EnvoyExtensionPolicy, older ones first."""
    taken: set[Ref] = set()
    result = []
    policies = resolver.store.list(EnvoyExtensionPolicy)
    for policy in sorted(policies, key=lambda item: item.age_key):
        wanted = target_refs(policy)
        free = tuple(ref for ref in wanted if ref not in taken)
        conflicts = tuple(ref for ref in wanted if ref in taken)
        taken.update(free)
        processors, problem = _processors(policy, resolver)
        provided = _provided(policy, resolver)
        result.append(Extension(policy, free, processors, problem, conflicts, provided))
    return Extensions(result)


def target_refs(policy: EnvoyExtensionPolicy) -> tuple[Ref, ...]:
    """The objects that a policy targets by name."""
    namespace = policy.metadata.namespace
    found = (Ref(item.group, item.kind, namespace, item.name) for item in policy.spec.targets)
    return tuple(dict.fromkeys(found))


def unsupported(policy: EnvoyExtensionPolicy) -> list[str]:
    """Fields of the policy without which it would be another policy, and which are not served."""
    spec = policy.spec
    named = {"targetSelectors": spec.target_selectors, "wasm": spec.wasm, "lua": spec.lua}
    return [name for name, value in named.items() if value]


def ignored(policy: EnvoyExtensionPolicy) -> list[str]:
    """Fields of the policy that only tune it, and that change nothing yet."""
    found: dict[str, None] = {}
    for item in policy.spec.ext_proc:
        settings = item.backend_settings
        for name in settings.model_fields_set if settings is not None else ():
            if name not in SERVED_SETTINGS:
                alias = BackendSettings.model_fields[name].alias or name
                found[f"backendSettings.{alias}"] = None
    return sorted(found)


def _processors(
    policy: EnvoyExtensionPolicy, resolver: Resolver
) -> tuple[tuple[Processor, ...], str | None]:
    refused = unsupported(policy)
    if refused:
        return (), f"Not supported: {', '.join(refused)}"
    result = []
    for index, item in enumerate(policy.spec.ext_proc):
        found = _processor(policy, index, item, resolver)
        if isinstance(found, str):
            return (), f"ExtProc: {found}"
        result.append(found)
    return tuple(result), None


def _provided(policy: EnvoyExtensionPolicy, resolver: Resolver) -> tuple[Ref, ...]:
    namespace = policy.metadata.namespace
    named = dict.fromkeys(
        ref_of(namespace, ref.group, ref.kind, ref.namespace, ref.name)
        for item in policy.spec.ext_proc
        for ref in item.backend_refs
    )
    return tuple(
        ref
        for ref in named
        if (found := resolver.store.find(ref)) is not None
        and PROVIDED_ANNOTATION in found.metadata.annotations
    )


def _processor(
    policy: EnvoyExtensionPolicy, index: int, spec: ExtProc, resolver: Resolver
) -> Processor | str:
    problem = _problem(spec)
    if problem is not None:
        return problem
    meta = policy.metadata
    destinations: list[tuple[Destination, int | None]] = []
    for ref in spec.backend_refs:
        target = ref_of(meta.namespace, ref.group, ref.kind, ref.namespace, ref.name)
        found = resolver.resolve(policy.ref, target, ref.port)
        if isinstance(found, Unresolved):
            return found.message
        destinations.append((found, ref.port))
    first, port = destinations[0]
    if any(destination.tls != first.tls for destination, _ in destinations):
        return "backendRefs are of different BackendTLSPolicies, or some are of none"
    cluster = names.ext_proc_cluster(meta.namespace, meta.name, index)
    members = [
        clusters.locality(cluster, position, 1, destination)
        for position, (destination, _) in enumerate(destinations)
    ]
    origins = (policy.ref, *(destination.ref for destination, _ in destinations))
    by_name = any(destination.needs_dns for destination, _ in destinations)
    make = clusters.dns_cluster if by_name else clusters.eds_cluster
    settings = replace(_settings(spec), tls=first.tls)
    resources = make(cluster, members, settings, origins)
    authority = f"{first.ref.name}.{first.ref.namespace}:{port or 0}"
    config = _filter(spec, cluster, authority)
    return Processor(names.ext_proc_filter(cluster), config, tuple(resources))


def _problem(spec: ExtProc) -> str | None:
    """What Envoy would refuse, and refuse the whole listener for."""
    if not spec.backend_refs:
        return "backendRefs names no server"
    if spec.message_timeout and gateway_seconds(spec.message_timeout) > MESSAGE_TIMEOUT_AT_MOST_S:
        return f"messageTimeout {spec.message_timeout} is longer than Envoy's most, 1h"
    settings = spec.backend_settings
    tcp = settings.timeout.tcp if settings is not None and settings.timeout is not None else None
    if tcp is not None and tcp.connect_timeout and gateway_seconds(tcp.connect_timeout) == 0:
        return "backendSettings.timeout.tcp.connectTimeout must be longer than 0s"
    return None


def _filter(spec: ExtProc, cluster: str, authority: str) -> ext_proc_pb2.ExternalProcessor:
    # Every mode is written out, zero or not: users' patches replace them, and only what is
    # there can be replaced.
    mode: dict[str, Any] = {
        "request_header_mode": "SKIP",
        "response_header_mode": "SKIP",
        "request_body_mode": "NONE",
        "response_body_mode": "NONE",
        "request_trailer_mode": "SKIP",
        "response_trailer_mode": "SKIP",
    }
    result = ext_proc_pb2.ExternalProcessor(
        grpc_service={
            "envoy_grpc": {"cluster_name": cluster, "authority": authority},
            "timeout": seconds(STREAM_TIMEOUT_S),
        },
        failure_mode_allow=bool(spec.fail_open),
    )
    wanted = spec.processing_mode
    if wanted is not None:
        for side, part in (("request", wanted.request), ("response", wanted.response)):
            if part is None:
                continue
            mode[f"{side}_header_mode"] = "SEND"
            if part.body is not None:
                mode[f"{side}_body_mode"] = BODY_MODES[part.body]
                if part.body == "FullDuplexStreamed":
                    mode[f"{side}_trailer_mode"] = "SEND"
            getattr(result, f"{side}_attributes").extend(part.attributes)
        result.allow_mode_override = bool(wanted.allow_mode_override)
    result.processing_mode.CopyFrom(
        ext_proc_pb2.ExternalProcessor(processing_mode=mode).processing_mode
    )
    if spec.message_timeout is not None:
        result.message_timeout.CopyFrom(seconds(gateway_seconds(spec.message_timeout)))
    if spec.metadata is not None:
        options = result.metadata_options
        options.forwarding_namespaces.untyped.extend(spec.metadata.accessible_namespaces)
        options.receiving_namespaces.untyped.extend(spec.metadata.writable_namespaces)
    return result


def _settings(spec: ExtProc) -> clusters.ClusterSettings:
    settings = spec.backend_settings
    connect_timeout_s = clusters.CONNECT_TIMEOUT_S
    breakers: dict[str, Any] = {}
    if settings is not None and settings.circuit_breaker is not None:
        limits = settings.circuit_breaker
        named = {
            "max_connections": limits.max_connections,
            "max_pending_requests": limits.max_pending_requests,
            "max_requests": limits.max_parallel_requests,
            "max_retries": limits.max_parallel_retries,
        }
        breakers = {key: wrapped(value) for key, value in named.items() if value is not None}
    if settings is not None and settings.timeout is not None and settings.timeout.tcp is not None:
        text = settings.timeout.tcp.connect_timeout
        if text is not None:
            connect_timeout_s = gateway_seconds(text)
    return clusters.ClusterSettings(connect_timeout_s, breakers, is_http2=True)


def policy_conditions(
    extensions: Extensions, item: Extension, routes: Sequence[Ref]
) -> list[dict[str, Any]]:
    """What is so about a policy; `routes` are those on the Gateways that it targets."""
    policy = item.policy
    if item.problem is not None:
        return [conditions.not_accepted(policy, "Invalid", item.problem)]
    if item.conflicts and not item.targets:
        held = ", ".join(str(ref) for ref in item.conflicts)
        message = (
            f"Unable to target {held}: another EnvoyExtensionPolicy has already attached to it"
        )
        return [conditions.not_accepted(policy, "Conflicted", message)]
    message = conditions.POLICY_ACCEPTED
    if item.provided:
        listed = ", ".join(f"{ref.namespace}/{ref.name}" for ref in item.provided)
        message = conditions.POLICY_PICKER_PROVIDED.format(names=listed)
    result = [conditions.accepted(policy, message)]
    tuning = ignored(policy)
    if tuning:
        message = f"Fields that have no effect: {', '.join(tuning)}"
        result.append(
            conditions.condition(policy, "Warning", conditions.TRUE, "UnsupportedField", message)
        )
    overriding = extensions.overriding(item, routes)
    if overriding:
        listed = " ".join(f"{ref.namespace}/{ref.name}" for ref in overriding)
        message = (
            "This policy is being overridden by other envoyExtensionPolicies for these routes: "
            f"[{listed}]"
        )
        result.append(
            conditions.condition(policy, "Overridden", conditions.TRUE, "Overridden", message)
        )
    return result
