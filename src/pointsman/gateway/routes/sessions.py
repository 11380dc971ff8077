"""Session persistence: requests of one session go to the server that answered its first.

The server is told to the client in a cookie or header, and told back by it; nothing is kept here.
Not served, and said so: a time after which an idle session ends, since nothing here would know.
"""

from __future__ import annotations

import re

from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2

from pointsman.gateway.messages import packed, seconds
from pointsman.resources.durations import gateway_seconds
from pointsman.resources.gateway_api import SessionPersistence

FILTER = "envoy.filters.http.stateful_session"
_TOKEN = re.compile(r"[A-Za-z0-9!#$&'*+.^_`|~-]+")
"""What both a header and a cookie may be called."""
_STATE = "envoy.http.stateful_session"


def listener_filter() -> stateful_session_pb2.StatefulSession:
    """The filter on the listener, which keeps no sessions by itself."""
    return stateful_session_pb2.StatefulSession()


def unserved(spec: SessionPersistence) -> list[str]:
    """What it asks for and is not served."""
    found = []
    if spec.idle_timeout is not None:
        found.append("sessionPersistence.idleTimeout")
    if spec.absolute_timeout is not None and not _is_permanent(spec):
        found.append("sessionPersistence.absoluteTimeout: of anything but a Permanent cookie")
    if spec.session_name and not _TOKEN.fullmatch(spec.session_name):
        found.append(f"sessionPersistence.sessionName {spec.session_name!r}")
    return found


def _is_permanent(spec: SessionPersistence) -> bool:
    config = spec.cookie_config
    return config is not None and config.lifetime_type == "Permanent"


def on_route(
    spec: SessionPersistence, default_name: str, prefix: str
) -> stateful_session_pb2.StatefulSessionPerRoute:
    """The sessions of a route; a cookie is for the paths under `prefix`."""
    name = spec.session_name or default_name
    if spec.type == "Header":
        kind = "header"
        state: header_pb2.HeaderBasedSessionState | cookie_pb2.CookieBasedSessionState
        state = header_pb2.HeaderBasedSessionState(name=name)
    else:
        kind = "cookie"
        state = cookie_pb2.CookieBasedSessionState(cookie={"name": name, "path": prefix or "/"})
        if _is_permanent(spec) and spec.absolute_timeout is not None:
            state.cookie.ttl.CopyFrom(seconds(gateway_seconds(spec.absolute_timeout)))
    return stateful_session_pb2.StatefulSessionPerRoute(
        stateful_session={
            "session_state": {"name": f"{_STATE}.{kind}", "typed_config": packed(state)}
        }
    )
