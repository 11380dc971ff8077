"""The filters of a rule: what is done to a request or its answer besides sending it on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.resources.gateway_api import (
    HeaderModifier,
    PathModifier,
    RequestRedirect,
    RouteFilter,
    RouteMatch,
    URLRewrite,
)

SUPPORTED = frozenset(
    {"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"}
)

_APPEND = "APPEND_IF_EXISTS_OR_ADD"
_OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"
_REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def unsupported(filters: Sequence[RouteFilter]) -> list[str]:
    """The filter types among `filters` that are not served."""
    return [item.type for item in filters if item.type not in SUPPORTED]


def redirect_of(filters: Sequence[RouteFilter]) -> RequestRedirect | None:
    """The redirect among `filters`, which leaves nothing to send on."""
    return next((item.request_redirect for item in filters if item.request_redirect), None)


def apply_headers(
    filters: Sequence[RouteFilter],
    target: route_pb2.Route | route_pb2.WeightedCluster.ClusterWeight,
) -> None:
    """Write the header modifiers into a route or into one cluster of a split."""
    for item in filters:
        if item.request_header_modifier is not None:
            _add_headers(item.request_header_modifier, target.request_headers_to_add)
            target.request_headers_to_remove.extend(item.request_header_modifier.remove)
        if item.response_header_modifier is not None:
            _add_headers(item.response_header_modifier, target.response_headers_to_add)
            target.response_headers_to_remove.extend(item.response_header_modifier.remove)


def rewrite(
    filters: Sequence[RouteFilter], match: RouteMatch, action: route_pb2.RouteAction
) -> None:
    """Write the URL rewrite among `filters` into the action."""
    for item in filters:
        if item.url_rewrite is not None:
            _rewrite(item.url_rewrite, match, action)


def redirect_action(redirect: RequestRedirect, match: RouteMatch) -> route_pb2.RedirectAction:
    """The redirect in Envoy's words."""
    action = route_pb2.RedirectAction(response_code=_REDIRECT_CODES[redirect.status_code])
    if redirect.scheme is not None:
        action.scheme_redirect = redirect.scheme
    if redirect.hostname is not None:
        action.host_redirect = redirect.hostname
    port = redirect.port or {"http": 80, "https": 443}.get(redirect.scheme or "")
    if port is not None:
        action.port_redirect = port
    if redirect.path is not None:
        if redirect.path.replace_full_path is not None:
            action.path_redirect = redirect.path.replace_full_path
        elif _removes_prefix(redirect.path, match):
            action.regex_rewrite.CopyFrom(_without_prefix(match))
        else:
            action.prefix_rewrite = redirect.path.replace_prefix_match or "/"
    return action


def _rewrite(change: URLRewrite, match: RouteMatch, action: route_pb2.RouteAction) -> None:
    if change.hostname is not None:
        action.host_rewrite_literal = change.hostname
    if change.path is None:
        return
    if change.path.replace_full_path is not None:
        action.regex_rewrite.pattern.regex = "^/.*$"
        action.regex_rewrite.substitution = change.path.replace_full_path
    elif _removes_prefix(change.path, match):
        action.regex_rewrite.CopyFrom(_without_prefix(match))
    else:
        action.prefix_rewrite = change.path.replace_prefix_match or "/"


def _removes_prefix(path: PathModifier, match: RouteMatch) -> bool:
    """A prefix that is replaced by nothing leaves `//` or an empty path in a plain replacement."""
    return path.replace_prefix_match in ("", "/") and match.path.value.rstrip("/") != ""


def _without_prefix(match: RouteMatch) -> Any:
    action = route_pb2.RouteAction()
    action.regex_rewrite.pattern.regex = f"^{re.escape(match.path.value.rstrip('/'))}/*"
    action.regex_rewrite.substitution = "/"
    return action.regex_rewrite


def _add_headers(modifier: HeaderModifier, options: Any) -> None:
    """Append what `modifier` sets and adds to a repeated HeaderValueOption."""
    for action, items in ((_OVERWRITE, modifier.set), (_APPEND, modifier.add)):
        for item in items:
            # A percent sign would start one of Envoy's own substitutions.
            header = {"key": item.name, "value": item.value.replace("%", "%%")}
            options.add(header=header, append_action=action)
