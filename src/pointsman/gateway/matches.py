"""What a rule matches, in Envoy's words, and which match comes first.

Precedence (Gateway API, HTTPRouteRule.matches): exact paths, then regular expressions, then longer
prefixes; then a method; then more headers; then more query parameters; then the older route; then
the order within the route. Envoy takes the first match, so the order of the list is the rule.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.resources.gateway_api import HeaderMatch, QueryParamMatch, RouteMatch

_PATH_RANK = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}


def envoy_match(match: RouteMatch) -> route_pb2.RouteMatch:
    """The match of one entry of `rules[].matches`."""
    headers = [_header(item) for item in match.headers]
    if match.method is not None:
        headers.insert(0, {"name": ":method", "string_match": {"exact": match.method}})
    return route_pb2.RouteMatch(
        headers=headers,
        query_parameters=[_query_parameter(item) for item in match.query_params],
        **_path(match),
    )


def precedence(match: RouteMatch) -> tuple[int, int, int, int, int]:
    """Sorts the more specific match first."""
    return (
        _PATH_RANK[match.path.type],
        -len(match.path.value),
        0 if match.method is not None else 1,
        -len(match.headers),
        -len(match.query_params),
    )


def _path(match: RouteMatch) -> dict[str, Any]:
    value = match.path.value
    if match.path.type == "Exact":
        return {"path": value}
    if match.path.type == "RegularExpression":
        return {"safe_regex": {"regex": value}}
    trimmed = value.rstrip("/")
    return {"path_separated_prefix": trimmed} if trimmed else {"prefix": "/"}


def _header(match: HeaderMatch) -> dict[str, Any]:
    return {"name": match.name.lower(), "string_match": _text(match.type, match.value)}


def _query_parameter(match: QueryParamMatch) -> dict[str, Any]:
    return {"name": match.name, "string_match": _text(match.type, match.value)}


def _text(kind: str, value: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": value}} if kind == "RegularExpression" else {"exact": value}
