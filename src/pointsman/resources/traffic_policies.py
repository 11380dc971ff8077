"""BackendTrafficPolicy of Envoy Gateway: how requests go on to the servers of routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from pointsman.resources.backend_settings import BackendSettings
from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.envoy_gateway import GROUP
from pointsman.resources.fields import Broken, Flag, Quantity
from pointsman.resources.policy_targets import PolicyTargets


class RequestBuffer(Model):
    """Requests are taken whole before they are sent on; a longer one is 413."""

    limit: Quantity


class ProtocolUpgrade(Model):
    """A protocol that a connection may change to."""

    type: str = Field(min_length=1)
    connect: dict[str, Any] | None = None


class TrafficPolicySpec(PolicyTargets, BackendSettings):
    """How requests of the targets go on. What is only kept for show is a plain mapping."""

    merge_type: Literal["StrategicMerge", "JSONMerge"] | None = None
    """With it, the policy of the Gateway or listener goes on to count for what this one leaves."""
    request_buffer: RequestBuffer | None = None
    http_upgrade: tuple[ProtocolUpgrade, ...] = ()
    use_client_protocol: Flag | None = None
    rate_limit: dict[str, Any] | None = None
    fault_injection: dict[str, Any] | None = None
    admission_control: dict[str, Any] | None = None
    adaptive_concurrency: dict[str, Any] | None = None
    bandwidth_limit: dict[str, Any] | None = None
    compression: tuple[dict[str, Any], ...] = ()
    compressor: tuple[dict[str, Any], ...] = ()
    decompressor: tuple[dict[str, Any], ...] = ()
    response_override: tuple[dict[str, Any], ...] = ()
    telemetry: dict[str, Any] | None = None
    routing_type: Literal["Service", "Endpoint"] | None = None

    def _broken(self) -> Iterator[Broken]:
        yield from super()._broken()
        named = {item.kind for item in self.targets}
        selected = {item.kind for item in self.target_selectors}
        if self.merge_type is not None and "Gateway" in named | selected:
            yield ("mergeType",), "must not be set by a policy that targets a Gateway"


class BackendTrafficPolicy(Resource):
    """Timeouts, retries, limits, checks and the balancing of load, for Gateways and routes."""

    KIND: ClassVar[Kind] = Kind(
        GROUP, "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies", ("btp",)
    )

    spec: TrafficPolicySpec
