"""`GET /v1/models`: what a pool serves, as one list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

MAX_MODELS = 1_024
"""Of one server's list; more are not read."""


def read_listing(body: bytes) -> dict[str, Mapping[str, Any]] | None:
    """A server's list by model id; None if it is none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, list):
        return None
    return {
        item["id"]: item
        for item in data[:MAX_MODELS]
        if isinstance(item, dict) and isinstance(item.get("id"), str)
    }


def listing(
    names: Iterable[str],
    servers: Iterable[Mapping[str, Mapping[str, Any]]],
    *,
    is_closed: bool = False,
) -> bytes | None:
    """The answer for a pool: the names that its objects give, and those that its servers list.

    Without the latter where the pool is closed to names that it does not know.
    None where neither is known; the request then goes to a server.
    """
    found: dict[str, Mapping[str, Any]] = {
        name: {"id": name, "object": "model", "created": 0, "owned_by": "pointsman"}
        for name in names
    }
    if not is_closed:
        for server in servers:
            for name, item in server.items():
                found.setdefault(name, item)
    if not found:
        return None
    return orjson.dumps({"object": "list", "data": [found[name] for name in sorted(found)]})
