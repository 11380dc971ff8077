"""HTTPRoute: which requests go where, and what is done to them on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.fields import (
    Broken,
    Count32,
    Duration,
    Flag,
    Group,
    HeaderName,
    HeaderValue,
    Hostname,
    Int32,
    KindName,
    NamespaceName,
    ObjectName,
    Port,
    PreciseHostname,
    SectionName,
    Weight,
    set_for_type,
    unique,
)
from pointsman.resources.gateways import GROUP

MAX_MATCHES = 128
"""Of all rules of a route together."""

FilterType = Literal[
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "ExtensionRef",
    "CORS",
]
Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
MethodOrAny = Literal[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"
]
MatchType = Literal["Exact", "RegularExpression"]
Origin = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)"
        r"(:([0-9]{1,5}))?)$)",
    ),
]
_PATH_CHARACTERS = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+")
_PATH_PARTS_REFUSED = ("//", "/./", "/../", "%2f", "%2F", "#")
_PATH_ENDS_REFUSED = ("/..", "/.")


class ParentRef(Model):
    """The Gateway (or one listener of it) that a route wants to attach to."""

    group: Group = GROUP
    kind: KindName = "Gateway"
    namespace: NamespaceName | None = None
    name: ObjectName
    section_name: SectionName | None = None
    port: Port | None = None


class BackendObjectRef(Model):
    """A backend: a Service unless said otherwise."""

    group: Group = ""
    kind: KindName = "Service"
    name: ObjectName
    namespace: NamespaceName | None = None
    port: Port | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.group == "" and self.kind == "Service" and self.port is None:
            yield ("port",), "is required for a Service"


class HeaderMatch(Model):
    """A header that a request must have."""

    type: MatchType = "Exact"
    name: HeaderName
    value: HeaderValue


class QueryParamMatch(Model):
    """A query parameter that a request must have."""

    type: MatchType = "Exact"
    name: HeaderName
    value: str = Field(min_length=1, max_length=1024)


class PathMatch(Model):
    """The path that a request must have."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: str = Field(default="/", max_length=1024)

    def _broken(self) -> Iterator[Broken]:
        if self.type == "RegularExpression":
            return
        if not self.value.startswith("/"):
            yield ("value",), "must start with '/'"
        for part in _PATH_PARTS_REFUSED:
            if part in self.value:
                yield ("value",), f"must not contain {part!r}"
        for end in _PATH_ENDS_REFUSED:
            if self.value.endswith(end):
                yield ("value",), f"must not end with {end!r}"
        if not _PATH_CHARACTERS.fullmatch(self.value.replace("#", "")):
            yield ("value",), "has characters that a path cannot have unless percent-encoded"


class RouteMatch(Model):
    """All of these must hold for a request to match."""

    path: PathMatch = PathMatch()
    headers: tuple[HeaderMatch, ...] = Field(default=(), max_length=16)
    query_params: tuple[QueryParamMatch, ...] = Field(default=(), max_length=16)
    method: Method | None = None

    def _broken(self) -> Iterator[Broken]:
        yield from unique("headers", [item.name for item in self.headers], "name")
        yield from unique("queryParams", [item.name for item in self.query_params], "name")


class HTTPHeader(Model):
    """A header to write."""

    name: HeaderName
    value: HeaderValue


class HeaderModifier(Model):
    """Headers to set, add and remove."""

    set: tuple[HTTPHeader, ...] = Field(default=(), max_length=16)
    add: tuple[HTTPHeader, ...] = Field(default=(), max_length=16)
    remove: tuple[str, ...] = Field(default=(), max_length=16)

    def _broken(self) -> Iterator[Broken]:
        yield from unique("set", [item.name for item in self.set], "name")
        yield from unique("add", [item.name for item in self.add], "name")
        yield from unique("remove", self.remove, "name")


class Fraction(Model):
    """A share of the requests."""

    numerator: Count32
    denominator: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] = 100

    def _broken(self) -> Iterator[Broken]:
        if self.numerator > self.denominator:
            yield ("numerator",), "must not be greater than the denominator"


class RequestMirror(Model):
    """A copy of requests for another backend, whose answers are thrown away."""

    backend_ref: BackendObjectRef
    percent: Annotated[int, Field(strict=True, ge=0, le=100)] | None = None
    fraction: Fraction | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.percent is not None and self.fraction is not None:
            yield ("fraction",), "must not be set when percent is"


class PathModifier(Model):
    """Another path in place of the one asked for."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str | None = Field(default=None, max_length=1024)
    replace_prefix_match: str | None = Field(default=None, max_length=1024)

    def _broken(self) -> Iterator[Broken]:
        fields = (
            ("ReplaceFullPath", "replaceFullPath", self.replace_full_path),
            ("ReplacePrefixMatch", "replacePrefixMatch", self.replace_prefix_match),
        )
        yield from set_for_type(self.type, fields)


class RequestRedirect(Model):
    """The client is sent elsewhere."""

    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class URLRewrite(Model):
    """The backend sees another host or path."""

    hostname: PreciseHostname | None = None
    path: PathModifier | None = None


class CORS(Model):
    """Which pages of other origins may call."""

    allow_origins: tuple[Origin, ...] = Field(default=(), max_length=64)
    allow_credentials: Flag | None = None
    allow_methods: tuple[MethodOrAny, ...] = Field(default=(), max_length=9)
    allow_headers: tuple[HeaderName, ...] = Field(default=(), max_length=64)
    expose_headers: tuple[HeaderName, ...] = Field(default=(), max_length=64)
    max_age: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)] = 5

    def _broken(self) -> Iterator[Broken]:
        lists: tuple[tuple[str, Sequence[str]], ...] = (
            ("allowOrigins", self.allow_origins),
            ("allowMethods", self.allow_methods),
            ("allowHeaders", self.allow_headers),
            ("exposeHeaders", self.expose_headers),
        )
        for field, values in lists:
            yield from unique(field, values, "value")
            if field != "exposeHeaders" and "*" in values and len(values) > 1:
                yield (field,), "must hold nothing else beside '*'"


class ExtensionRef(Model):
    """A filter of the implementation's own, in the same namespace."""

    group: Group
    kind: KindName
    name: ObjectName


class CommonFilter(Model):
    """The filters that every kind of route has; `type` says which field is set."""

    type: str
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    extension_ref: ExtensionRef | None = None

    def _broken(self) -> Iterator[Broken]:
        yield from set_for_type(self.type, self._fields())

    def _fields(self) -> tuple[tuple[str, str, object], ...]:
        """(type, field, value) of every field that a type asks for."""
        return (
            ("RequestHeaderModifier", "requestHeaderModifier", self.request_header_modifier),
            ("ResponseHeaderModifier", "responseHeaderModifier", self.response_header_modifier),
            ("RequestMirror", "requestMirror", self.request_mirror),
            ("ExtensionRef", "extensionRef", self.extension_ref),
        )


class RouteFilter(CommonFilter):
    """One thing that is done to a request or its answer; `type` says which field is set."""

    type: FilterType
    request_redirect: RequestRedirect | None = None
    url_rewrite: URLRewrite | None = None
    cors: CORS | None = None

    def _fields(self) -> tuple[tuple[str, str, object], ...]:
        return (
            *super()._fields(),
            ("RequestRedirect", "requestRedirect", self.request_redirect),
            ("URLRewrite", "urlRewrite", self.url_rewrite),
            ("CORS", "cors", self.cors),
        )

    @property
    def replaces_prefix(self) -> bool:
        """Replaces the matched prefix of the path, which must then be one prefix."""
        return any(
            part is not None and part.path is not None and part.path.type == "ReplacePrefixMatch"
            for part in (self.request_redirect, self.url_rewrite)
        )


Filters = Annotated[tuple[RouteFilter, ...], Field(max_length=16)]
_ONCE = ("CORS", "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite")


def _filter_rules(filters: Sequence[RouteFilter]) -> Iterator[Broken]:
    kinds: list[str] = [item.type for item in filters]
    for kind in _ONCE:
        if kinds.count(kind) > 1:
            position = kinds.index(kind, kinds.index(kind) + 1)
            yield ("filters", position), f"{kind} must not be repeated"
    if "RequestRedirect" in kinds and "URLRewrite" in kinds:
        yield ("filters",), "must not have both a RequestRedirect and a URLRewrite"


class HTTPBackendRef(BackendObjectRef):
    """A backend, its share of the requests, and what is done to those."""

    weight: Weight = 1
    filters: Filters = ()

    def _broken(self) -> Iterator[Broken]:
        yield from super()._broken()
        yield from _filter_rules(self.filters)


class Timeouts(Model):
    """How long a request, and one try of it at a backend, may take; 0s means no limit."""

    request: Duration | None = None
    backend_request: Duration | None = None

    def _broken(self) -> Iterator[Broken]:
        if self.request is None or self.backend_request is None:
            return
        limit = gateway_seconds(self.request)
        if limit != 0 and gateway_seconds(self.backend_request) > limit:
            yield ("backendRequest",), f"must not be longer than request ({self.request})"


class Retry(Model):
    """When and how often a failed request is tried again (experimental channel)."""

    codes: tuple[Annotated[int, Field(strict=True, ge=400, le=599)], ...] = ()
    attempts: Int32 | None = None
    backoff: Duration | None = None


class CookieConfig(Model):
    """How long a session cookie lives."""

    lifetime_type: Literal["Permanent", "Session"] = "Session"


class SessionPersistence(Model):
    """Requests of one session go to one backend (experimental channel)."""

    session_name: str | None = Field(default=None, max_length=128)
    absolute_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None

    def _broken(self) -> Iterator[Broken]:
        permanent = self.cookie_config and self.cookie_config.lifetime_type == "Permanent"
        if permanent and self.absolute_timeout is None:
            yield ("absoluteTimeout",), "is required when the cookie's lifetime is Permanent"
        if self.type == "Header" and self.cookie_config is not None:
            yield ("cookieConfig",), "must not be set when type is Header"


class RouteRule(Model):
    """What matches, what is done, and where it goes. Without matches everything matches."""

    name: SectionName | None = None
    matches: tuple[RouteMatch, ...] = Field(default=(RouteMatch(),), max_length=64)
    filters: Filters = ()
    backend_refs: tuple[HTTPBackendRef, ...] = Field(default=(), max_length=16)
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None

    def _broken(self) -> Iterator[Broken]:
        yield from _filter_rules(self.filters)
        for position, item in enumerate(self.filters):
            if self.backend_refs and item.type == "RequestRedirect":
                yield ("filters", position), "RequestRedirect must not stand beside backendRefs"
        if len(self.matches) == 1 and self.matches[0].path.type == "PathPrefix":
            return
        message = "ReplacePrefixMatch needs exactly one match, with a path of type PathPrefix"
        for position, item in enumerate(self.filters):
            if item.replaces_prefix:
                yield ("filters", position), message
        for position, backend in enumerate(self.backend_refs):
            if any(item.replaces_prefix for item in backend.filters):
                yield ("backendRefs", position, "filters"), message


class HTTPRouteSpec(Model):
    """Where a route attaches, for which hostnames, and its rules."""

    parent_refs: tuple[ParentRef, ...] = Field(default=(), max_length=32)
    hostnames: tuple[Hostname, ...] = Field(default=(), max_length=16)
    rules: tuple[RouteRule, ...] = Field(default=(RouteRule(),), min_length=1, max_length=16)

    def _broken(self) -> Iterator[Broken]:
        yield from parent_ref_rules(self.parent_refs)
        matches = sum(len(rule.matches) for rule in self.rules)
        if matches > MAX_MATCHES:
            yield ("rules",), f"must have at most {MAX_MATCHES} matches together, have {matches}"


def parent_ref_rules(refs: Sequence[ParentRef]) -> Iterator[Broken]:
    """References to the same parent must differ in their sectionName, and all have one."""
    sections: dict[tuple[str, ...], set[str]] = {}
    for position, ref in enumerate(refs):
        parent = (ref.group, ref.kind, ref.namespace or "", ref.name)
        seen = sections.setdefault(parent, set())
        section = ref.section_name or ""
        where = ("parentRefs", position, "sectionName")
        if seen and (not section or "" in seen):
            yield where, "is required in each of several references to the same parent"
        elif section in seen:
            yield where, "must be unique among references to the same parent"
        seen.add(section)


class HTTPRoute(Resource):
    """Requests, by host, path, headers and the like, to backends."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "HTTPRoute", "httproutes")

    spec: HTTPRouteSpec
