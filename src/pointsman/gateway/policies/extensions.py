"""EnvoyExtensionPolicy: external processors that the user attaches to routes or Gateways.

Which policy counts for a route is told by `targets`. A policy that cannot be translated closes the
routes it targets: they answer 500, because what the user put in the way must not be skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy.extensions.filters.http.ext_proc.v3 import ext_proc_pb2
from envoy.type.v3 import http_status_pb2
from google.protobuf.message import Message

from pointsman.gateway import conditions, names
from pointsman.gateway.backends import cluster_settings, clusters, load_balancing
from pointsman.gateway.backends.references import Destination, Resolver, Unresolved, ref_of
from pointsman.gateway.messages import seconds, wrapped
from pointsman.gateway.policies.targets import Place, Subject, Targets
from pointsman.gateway.policies.verdicts import Remarks
from pointsman.gateway.snapshot import EnvoyResource
from pointsman.resources.backend_settings import BackendSettings
from pointsman.resources.base import Ref
from pointsman.resources.core import PROVIDED_ANNOTATION
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.envoy_gateway import EnvoyExtensionPolicy, ExtProc

STREAM_TIMEOUT_S = 10.0
"""Envoy Gateway writes this into the gRPC service; a stream outlives it."""

MESSAGE_TIMEOUT_AT_MOST_S = 3600.0

ENVOY_STATUSES = frozenset(http_status_pb2.StatusCode.values()) - {0}

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
    processors: tuple[Processor, ...] = ()
    problem: str | None = None
    """Why its routes answer 500."""
    provided: tuple[Ref, ...] = ()
    """Services that it names and that Pointsman made."""


class Extensions:
    """All policies, by what they target."""

    def __init__(self, items: Sequence[Extension] = ()) -> None:
        self.items = tuple(items)
        self.targets = Targets(item.policy for item in items)
        self._by_policy = {item.policy.ref: item for item in items}
        self.filters: Mapping[str, Message] = {
            processor.filter_name: processor.config
            for item in items
            for processor in item.processors
        }
        """The configuration of every processor's filter, by the filter's name."""

    def of_route(self, route: Subject, rule: str | None, place: Place) -> Extension | None:
        """The policy that counts for a rule of a route on a listener."""
        found = self.targets.of_route(route, rule, place)
        return self._by_policy[found.ref] if found is not None else None

    @property
    def seen_by_routes(self) -> tuple[object, ...]:
        """All that can change what a route becomes; the servers behind processors are not in it."""
        return tuple(
            (
                item.policy.ref,
                item.policy.metadata.creation_timestamp,
                item.policy.spec.targets,
                item.policy.spec.target_selectors,
                item.problem,
                *(each.filter_name for each in item.processors),
            )
            for item in self.items
        )


def translate(resolver: Resolver) -> Extensions:
    """Every EnvoyExtensionPolicy."""
    result = []
    for policy in resolver.store.list(EnvoyExtensionPolicy):
        processors, problem = _processors(policy, resolver)
        result.append(Extension(policy, processors, problem, _provided(policy, resolver)))
    return Extensions(result)


def unsupported(policy: EnvoyExtensionPolicy) -> list[str]:
    """Fields of the policy without which it would be another policy, and which are not served."""
    spec = policy.spec
    named = {"wasm": spec.wasm, "lua": spec.lua}
    return [name for name, value in named.items() if value]


def ignored(policy: EnvoyExtensionPolicy) -> list[str]:
    """Fields of the policy that only tune it, and that change nothing."""
    found: dict[str, None] = {}
    for item in policy.spec.ext_proc:
        if item.backend_settings is not None:
            for name in _ignored_settings(item.backend_settings):
                found[f"backendSettings.{name}"] = None
    return sorted(found)


def _ignored_settings(settings: BackendSettings) -> Iterator[str]:
    if settings.proxy_protocol is not None:
        yield "proxyProtocol"
    if settings.load_balancer is not None:
        yield from load_balancing.ignored(settings.load_balancer)
        if settings.load_balancer.consistent_hash is not None:
            yield "loadBalancer.consistentHash"
    http = settings.timeout.http if settings.timeout is not None else None
    if http is not None and http.request_timeout is not None:
        yield "timeout.http.requestTimeout"
    if http is not None and http.stream_idle_timeout is not None:
        yield "timeout.http.streamIdleTimeout"
    retry = settings.retry
    if retry is not None and retry.num_attempts_per_priority is not None:
        yield "retry.numAttemptsPerPriority"
    if retry is not None and retry.per_retry is not None and retry.per_retry.timeout is not None:
        yield "retry.perRetry.timeout"


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
        clusters.locality(cluster, str(position), 1, destination, is_fallback=bool(ref.fallback))
        for position, ((destination, _), ref) in enumerate(
            zip(destinations, spec.backend_refs, strict=True)
        )
    ]
    origins = (policy.ref, *(destination.ref for destination, _ in destinations))
    by_name = any(destination.needs_dns for destination, _ in destinations)
    make = clusters.dns_cluster if by_name else clusters.eds_cluster
    settings = clusters.ClusterSettings(
        is_http2=True,
        policy=spec.backend_settings,
        check_host=clusters.host_of(first),
        tls=first.tls,
    )
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
    if spec.status_on_error is not None and spec.status_on_error not in ENVOY_STATUSES:
        return f"statusOnError {spec.status_on_error} is no status that Envoy can answer"
    if spec.shadow_mode and _bodies(spec) - {"Streamed"}:
        return "shadowMode needs bodies that are Streamed, or none"
    if spec.backend_settings is not None:
        found = cluster_settings.problems(spec.backend_settings)
        return "; ".join(f"backendSettings.{text}" for text in found) or None
    return None


def _bodies(spec: ExtProc) -> set[str]:
    mode = spec.processing_mode
    sides = (mode.request, mode.response) if mode is not None else ()
    return {side.body for side in sides if side is not None and side.body is not None}


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
            "retry_policy": _retry(spec),
        },
        failure_mode_allow=bool(spec.fail_open),
        observability_mode=spec.shadow_mode,
        status_on_error={"code": spec.status_on_error} if spec.status_on_error else None,
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


def _retry(spec: ExtProc) -> dict[str, Any] | None:
    """How often a stream that cannot be opened is tried again."""
    retry = spec.backend_settings.retry if spec.backend_settings is not None else None
    if retry is None:
        return None
    result: dict[str, Any] = {"num_retries": wrapped(retry.num_retries)}
    if retry.retry_on is not None and retry.retry_on.triggers:
        result["retry_on"] = ",".join(retry.retry_on.triggers)
    wait = retry.per_retry.back_off if retry.per_retry is not None else None
    if wait is not None and wait.base_interval is not None:
        result["retry_back_off"] = {"base_interval": seconds(gateway_seconds(wait.base_interval))}
        if wait.max_interval is not None:
            most = seconds(gateway_seconds(wait.max_interval))
            result["retry_back_off"]["max_interval"] = most
    return result


def remarks(item: Extension) -> Remarks:
    """What is told of a policy beside its targets."""
    message = conditions.POLICY_ACCEPTED
    if item.provided:
        listed = ", ".join(f"{ref.namespace}/{ref.name}" for ref in item.provided)
        message = conditions.POLICY_PICKER_PROVIDED.format(names=listed)
    tuning = ignored(item.policy)
    warnings = (f"Fields that have no effect: {', '.join(tuning)}",) if tuning else ()
    return Remarks(item.problem, warnings, message)
