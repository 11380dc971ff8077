"""CORS: which pages of other origins may call, told to browsers by Envoy's own filter.

The filter is on a listener only when a route there asks for it, and does nothing until a route's
policy says so. A request before the request (a preflight) from an origin that may not call is
answered without the headers that would let it, and never reaches a backend.
"""

from __future__ import annotations

import re

from envoy.extensions.filters.http.cors.v3 import cors_pb2

from pointsman.gateway.messages import wrapped
from pointsman.resources.gateway_api import CORS

FILTER = "envoy.filters.http.cors"


def listener_filter() -> cors_pb2.Cors:
    """The filter on the listener, which knows of no policy."""
    return cors_pb2.Cors()


def policy(spec: CORS) -> cors_pb2.CorsPolicy:
    """The policy of a route."""
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=[_origin(item) for item in spec.allow_origins],
        allow_methods=", ".join(spec.allow_methods),
        allow_headers=", ".join(spec.allow_headers),
        expose_headers=", ".join(spec.expose_headers),
        max_age=str(spec.max_age),
        allow_credentials=wrapped(bool(spec.allow_credentials)),
        forward_not_matching_preflights=wrapped(False),
    )


def _origin(origin: str) -> dict[str, object]:
    if "*" not in origin:
        return {"exact": origin}
    if origin == "*":
        return {"safe_regex": {"regex": ".*"}}
    # A wildcard stands for any labels before the rest, and for a whole host where there is no rest.
    return {"safe_regex": {"regex": re.escape(origin).replace(r"\*", "[^/:]+")}}
