"""GRPCRoute: which calls, by service and method, go where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.fields import Broken, Hostname, SectionName, Weight, unique
from pointsman.resources.gateways import GROUP
from pointsman.resources.http_routes import (
    MAX_MATCHES,
    BackendObjectRef,
    CommonFilter,
    HeaderMatch,
    MatchType,
    ParentRef,
    parent_ref_rules,
)

_SERVICE = re.compile(r"\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*", re.ASCII | re.IGNORECASE)
_METHOD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*", re.ASCII)


class GRPCMethodMatch(Model):
    """The service, the method, or both that a call must name."""

    type: MatchType = "Exact"
    service: str | None = Field(default=None, max_length=1024)
    method: str | None = Field(default=None, max_length=1024)

    def _broken(self) -> Iterator[Broken]:
        if self.service is None and self.method is None:
            yield (), "must have a service, a method, or both"
        if self.type != "Exact":
            return
        if self.service is not None and not _SERVICE.fullmatch(self.service):
            yield ("service",), "must be the name of a service like 'package.Service'"
        if self.method is not None and not _METHOD.fullmatch(self.method):
            yield ("method",), "must be the name of a method: letters, digits and '_'"


class GRPCRouteMatch(Model):
    """All of these must hold for a call to match."""

    method: GRPCMethodMatch | None = None
    headers: tuple[HeaderMatch, ...] = Field(default=(), max_length=16)

    def _broken(self) -> Iterator[Broken]:
        yield from unique("headers", [item.name for item in self.headers], "name")


class GRPCRouteFilter(CommonFilter):
    """One thing that is done to a call or its answer; `type` says which field is set."""

    type: Literal[
        "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"
    ]


GRPCFilters = Annotated[tuple[GRPCRouteFilter, ...], Field(max_length=16)]


def _once(filters: Sequence[GRPCRouteFilter]) -> Iterator[Broken]:
    kinds = [item.type for item in filters]
    for kind in ("RequestHeaderModifier", "ResponseHeaderModifier"):
        positions = [position for position, item in enumerate(kinds) if item == kind]
        if len(positions) > 1:
            yield ("filters", positions[1]), f"{kind} must not be repeated"


class GRPCBackendRef(BackendObjectRef):
    """A backend, its share of the calls, and what is done to those."""

    weight: Weight = 1
    filters: GRPCFilters = ()

    def _broken(self) -> Iterator[Broken]:
        yield from super()._broken()
        yield from _once(self.filters)


class GRPCRouteRule(Model):
    """What matches, what is done, and where it goes. Without matches every call matches."""

    name: SectionName | None = None
    matches: tuple[GRPCRouteMatch, ...] = Field(default=(), max_length=64)
    filters: GRPCFilters = ()
    backend_refs: tuple[GRPCBackendRef, ...] = Field(default=(), max_length=16)

    def _broken(self) -> Iterator[Broken]:
        yield from _once(self.filters)


class GRPCRouteSpec(Model):
    """Where a route attaches, for which hostnames, and its rules."""

    parent_refs: tuple[ParentRef, ...] = Field(default=(), max_length=32)
    hostnames: tuple[Hostname, ...] = Field(default=(), max_length=16)
    rules: tuple[GRPCRouteRule, ...] = Field(default=(), max_length=16)

    def _broken(self) -> Iterator[Broken]:
        yield from parent_ref_rules(self.parent_refs)
        matches = sum(len(rule.matches) for rule in self.rules)
        if matches > MAX_MATCHES:
            yield ("rules",), f"must have at most {MAX_MATCHES} matches together, have {matches}"


class GRPCRoute(Resource):
    """Calls, by host, service, method and headers, to backends that speak HTTP/2."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "GRPCRoute", "grpcroutes")

    spec: GRPCRouteSpec
