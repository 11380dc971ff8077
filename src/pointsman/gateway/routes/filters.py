"""The filters of a rule: what is done to a request or its answer besides sending it on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb2

from pointsman.gateway.backends.references import Unresolved
from pointsman.resources.gateway_api import (
    CORS,
    CommonFilter,
    HeaderModifier,
    HTTPHeader,
    PathModifier,
    RequestMirror,
    RequestRedirect,
    RouteFilter,
    URLRewrite,
)

EXTENSION = "ExtensionRef"
OF_RULES = frozenset(
    {
        "CORS",
        EXTENSION,
        "RequestHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "ResponseHeaderModifier",
        "URLRewrite",
    }
)
OF_BACKENDS = frozenset({EXTENSION, "RequestHeaderModifier", "ResponseHeaderModifier"})
"""What can be done to the share of one backend among several."""

_APPEND = "APPEND_IF_EXISTS_OR_ADD"
_OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"
_REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_WELL_KNOWN_PORTS = {"http": 80, "https": 443}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNCHANGEABLE = frozenset({"", "host"})
"""Headers that Envoy lets no route set or remove; of its own, those that begin with a colon too."""


def unserved(filters: Sequence[CommonFilter], served: frozenset[str]) -> Iterator[str]:
    """What of `filters` is not served: where, and in words."""
    for position, item in enumerate(filters):
        where = f"filters[{position}]: {item.type}"
        if item.type not in served:
            yield where
        else:
            yield from (f"{where}: {text}" for text in _problems(item))


def redirect_of(filters: Sequence[CommonFilter]) -> RequestRedirect | None:
    """The redirect among `filters`, which leaves nothing to send on."""
    return next(
        (item.request_redirect for item in _of_http(filters) if item.request_redirect), None
    )


def extension_problem(filters: Sequence[CommonFilter], where: str) -> Unresolved | None:
    """A filter of `filters` that leads to an object that nobody here knows.

    Rule (Gateway API, HTTPRouteFilter.type): such a filter is not skipped; the requests that it was
    for are answered with an error.
    """
    for position, item in enumerate(filters):
        if item.extension_ref is not None:
            ref = item.extension_ref
            message = (
                f"{where}filters[{position}]: {ref.kind} {ref.name} of group {ref.group} is no "
                "filter that is known here"
            )
            return Unresolved("InvalidKind", message)
    return None


def cors_of(filters: Sequence[CommonFilter]) -> CORS | None:
    """The CORS policy among `filters`."""
    return next((item.cors for item in _of_http(filters) if item.cors), None)


def mirrors_of(filters: Sequence[CommonFilter]) -> list[tuple[int, RequestMirror]]:
    """The mirrors among `filters`, each with its position."""
    return [
        (position, item.request_mirror)
        for position, item in enumerate(filters)
        if item.request_mirror is not None
    ]


def mirror_policy(mirror: RequestMirror, cluster: str) -> dict[str, Any]:
    """Which share of the requests is copied to `cluster`."""
    policy: dict[str, Any] = {"cluster": cluster, "disable_shadow_host_suffix_append": True}
    share: dict[str, Any] | None = None
    if mirror.percent is not None:
        share = {"numerator": mirror.percent, "denominator": "HUNDRED"}
    elif mirror.fraction is not None:
        whole = mirror.fraction.denominator
        share = {
            "numerator": round(mirror.fraction.numerator * 1_000_000 / whole),
            "denominator": "MILLION",
        }
    if share is not None:
        policy["runtime_fraction"] = {"default_value": share}
    return policy


def apply_headers(
    filters: Sequence[CommonFilter],
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


def rewrite(filters: Sequence[CommonFilter], prefix: str, action: route_pb2.RouteAction) -> None:
    """Write the URL rewrite among `filters` into the action; a later one takes its place."""
    for item in _of_http(filters):
        if item.url_rewrite is not None:
            _rewrite(item.url_rewrite, prefix, action)


def redirect_action(
    redirect: RequestRedirect, prefix: str, scheme: str, port: int
) -> route_pb2.RedirectAction:
    """The redirect in Envoy's words, of a request that came by `scheme` to `port`.

    Rule (Gateway API, HTTPRequestRedirectFilter.port): the port is the one given, or else the
    well-known one of the scheme given, or else the listener's; a well-known one is better not told.
    """
    action = route_pb2.RedirectAction(response_code=_REDIRECT_CODES[redirect.status_code])
    if redirect.scheme is not None:
        action.scheme_redirect = redirect.scheme
    if redirect.hostname is not None:
        action.host_redirect = redirect.hostname
    wanted = redirect.port or _WELL_KNOWN_PORTS.get(redirect.scheme or "", port)
    is_well_known = wanted == _WELL_KNOWN_PORTS[redirect.scheme or scheme]
    # The host that the client named stays, and with it a port that may be another.
    keeps_host = redirect.hostname is None
    if not is_well_known or (keeps_host and (redirect.scheme or redirect.port)):
        action.port_redirect = wanted
    if redirect.path is not None:
        if redirect.path.replace_full_path is not None:
            action.path_redirect = redirect.path.replace_full_path
        else:
            _replace_prefix(redirect.path, prefix, action)
    return action


def _rewrite(change: URLRewrite, prefix: str, action: route_pb2.RouteAction) -> None:
    if change.hostname is not None:
        action.host_rewrite_literal = change.hostname
    if change.path is None:
        return
    action.ClearField("regex_rewrite")
    action.ClearField("prefix_rewrite")
    if change.path.replace_full_path is not None:
        action.regex_rewrite.pattern.regex = "^/.*$"
        # A backslash would name a part of what was matched.
        path = change.path.replace_full_path.replace("\\", "\\\\")
        action.regex_rewrite.substitution = path if path.startswith("/") else f"/{path}"
    else:
        _replace_prefix(change.path, prefix, action)


def _replace_prefix(
    path: PathModifier, prefix: str, action: route_pb2.RouteAction | route_pb2.RedirectAction
) -> None:
    """Replace whole elements of the path.

    Rule (Gateway API, HTTPPathModifier): a slash at the end of either prefix changes nothing. Of
    `/foo/bar`, `/foo` or `/foo/` replaced by `/x` or `/x/` leaves `/x/bar`, replaced by nothing
    leaves `/bar`.
    """
    wanted = (path.replace_prefix_match or "").strip("/")
    if not prefix:
        action.prefix_rewrite = f"/{wanted}/" if wanted else "/"
    elif wanted:
        action.prefix_rewrite = f"/{wanted}"
    else:
        action.regex_rewrite.pattern.regex = f"^{re.escape(prefix)}/*"
        action.regex_rewrite.substitution = "/"


def _of_http(filters: Sequence[CommonFilter]) -> Iterator[RouteFilter]:
    return (item for item in filters if isinstance(item, RouteFilter))


def _add_headers(modifier: HeaderModifier, options: Any) -> None:
    """Append what `modifier` sets and adds to a repeated HeaderValueOption."""
    for action, items in ((_OVERWRITE, modifier.set), (_APPEND, modifier.add)):
        for item in _first_of_each(items):
            # A percent sign would start one of Envoy's own substitutions.
            header = {"key": item.name, "value": item.value.replace("%", "%%")}
            options.add(header=header, append_action=action)


def _first_of_each(items: Iterable[HTTPHeader]) -> list[HTTPHeader]:
    """Header names are the same in any case: of two that name one header the first counts."""
    found: dict[str, HTTPHeader] = {}
    for item in items:
        found.setdefault(item.name.lower(), item)
    return list(found.values())


def _problems(item: CommonFilter) -> Iterator[str]:
    """What Envoy would refuse, and refuse the whole listener for."""
    for modifier in (item.request_header_modifier, item.response_header_modifier):
        if modifier is not None:
            yield from header_problems(modifier)
    if not isinstance(item, RouteFilter):
        return
    for part in (item.request_redirect, item.url_rewrite):
        path = part.path if part is not None else None
        if path is not None:
            text = path.replace_full_path or path.replace_prefix_match or ""
            if _CONTROL.search(text):
                yield f"control characters in the path {text!r}"


def header_problems(modifier: HeaderModifier) -> Iterator[str]:
    """What Envoy would refuse of a change of headers, in words."""
    written = (*modifier.set, *modifier.add)
    for name in (*(item.name for item in written), *modifier.remove):
        if name.lower() in _UNCHANGEABLE or name.startswith(":") or _CONTROL.search(name):
            yield f"the header {name!r} cannot be changed"
    for item in written:
        if _CONTROL.search(item.value.replace("\t", "")):
            yield f"control characters in the value of {item.name}"
