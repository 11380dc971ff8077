"""What a rule matches, in Envoy's words, and which match comes first.

Precedence (Gateway API, HTTPRouteRule.matches): exact paths, then regular expressions, then longer
prefixes; then a method; then more headers; then more query parameters; then the older route; then
the order within the route. For calls (GRPCRouteRule.matches): the longer service name, then the
longer method name, then more headers. Envoy takes the first match, so the order of the list is the
rule. Matches of GRPCRoutes take nothing but gRPC, and so stand before those of HTTPRoutes.

Header names are the same in any case: of two matches on one header the first counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.gateway.routes import regexes
from pointsman.resources.gateway_api import (
    GRPCMethodMatch,
    GRPCRouteMatch,
    HeaderMatch,
    QueryParamMatch,
    RouteMatch,
)

REGULAR_EXPRESSION = "RegularExpression"
_PATH_RANK = {"Exact": 0, REGULAR_EXPRESSION: 1, "PathPrefix": 2}
_ANY_NAME = "[^/]+"
_SHOWN_CHARACTERS = 60
"""Of an expression that is refused."""


@dataclass(frozen=True, slots=True)
class Match:
    """One entry of a rule's matches, of whatever kind of route."""

    envoy: route_pb2.RouteMatch
    precedence: tuple[int, ...]
    """Sorts the more specific match first."""
    prefix: str = "/"
    """The prefix of the path that a replacement would take away, without a slash at its end."""
    problems: tuple[str, ...] = ()
    """What Envoy would refuse, in words."""


def http_match(match: RouteMatch) -> Match:
    """A match of an HTTPRoute."""
    names = _first_of_each(match.headers)
    headers = [_header(item) for item in names]
    if match.method is not None:
        headers.insert(0, {"name": ":method", "string_match": {"exact": match.method}})
    path = match.path
    expressions = [path.value] if path.type == REGULAR_EXPRESSION else []
    return Match(
        route_pb2.RouteMatch(
            headers=headers,
            query_parameters=[_query_parameter(item) for item in match.query_params],
            **_path(match),
        ),
        (
            1,
            _PATH_RANK[path.type],
            -len(path.value.rstrip("/")) if path.type == "PathPrefix" else -len(path.value),
            0 if match.method is not None else 1,
            -len(names),
            -len(match.query_params),
        ),
        path.value.rstrip("/") if path.type == "PathPrefix" else "",
        tuple(_problems((*expressions, *_expressions((*match.headers, *match.query_params))))),
    )


def grpc_match(match: GRPCRouteMatch) -> Match:
    """A match of a GRPCRoute: the path of a call is `/SERVICE/METHOD`."""
    method = match.method
    service = (method.service if method is not None else None) or ""
    name = (method.method if method is not None else None) or ""
    names = _first_of_each(match.headers)
    is_pattern = method is not None and method.type == REGULAR_EXPRESSION
    expressions = [item for item in (service, name) if item] if is_pattern else []
    return Match(
        route_pb2.RouteMatch(
            headers=[_header(item) for item in names],
            grpc={},
            **_call_path(method, service, name),
        ),
        (0, -len(service), -len(name), -len(names)),
        problems=tuple(_problems((*expressions, *_expressions(match.headers)))),
    )


def _call_path(method: GRPCMethodMatch | None, service: str, name: str) -> dict[str, Any]:
    if not service and not name:
        return {"prefix": "/"}
    if method is not None and method.type == REGULAR_EXPRESSION:
        parts = [f"(?:{item})" if item else _ANY_NAME for item in (service, name)]
        return {"safe_regex": {"regex": "/" + "/".join(parts)}}
    if service and name:
        return {"path": f"/{service}/{name}"}
    if service:
        return {"prefix": f"/{service}/"}
    return {"safe_regex": {"regex": f"/{_ANY_NAME}/{name}"}}


def _path(match: RouteMatch) -> dict[str, Any]:
    value = match.path.value
    if match.path.type == "Exact":
        return {"path": value}
    if match.path.type == REGULAR_EXPRESSION:
        return {"safe_regex": {"regex": value}}
    trimmed = value.rstrip("/")
    return {"path_separated_prefix": trimmed} if trimmed else {"prefix": "/"}


def _first_of_each(headers: Sequence[HeaderMatch]) -> list[HeaderMatch]:
    found: dict[str, HeaderMatch] = {}
    for item in headers:
        found.setdefault(item.name.lower(), item)
    return list(found.values())


def _header(match: HeaderMatch) -> dict[str, Any]:
    return {"name": match.name.lower(), "string_match": _text(match.type, match.value)}


def _query_parameter(match: QueryParamMatch) -> dict[str, Any]:
    return {"name": match.name, "string_match": _text(match.type, match.value)}


def _text(kind: str, value: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": value}} if kind == REGULAR_EXPRESSION else {"exact": value}


def _expressions(matches: Sequence[HeaderMatch | QueryParamMatch]) -> Iterator[str]:
    return (item.value for item in matches if item.type == REGULAR_EXPRESSION)


def _problems(expressions: Sequence[str]) -> Iterator[str]:
    for text in expressions:
        if problem := regexes.problem(text):
            yield f"regular expression {text[:_SHOWN_CHARACTERS]!r}: {problem}"
