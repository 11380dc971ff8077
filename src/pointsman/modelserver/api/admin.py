"""Steering a running server: `/admin/config`, and dropping the prefix cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from pointsman.modelserver.api.errors import RequestError, json_response
from pointsman.modelserver.api.fields import Body
from pointsman.modelserver.runtime import change, settings_of

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica


def show(replica: Replica, request: web.BaseRequest) -> web.StreamResponse:
    """GET: every setting as it is now."""
    return json_response(settings_of(replica))


async def configure(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """POST: changes the settings that are given, all or none."""
    try:
        change(replica, body)
    except (ValueError, TypeError) as error:
        raise RequestError(400, str(error)) from None
    return json_response(settings_of(replica))


async def reset_cache(replica: Replica, request: web.BaseRequest, body: Body) -> web.StreamResponse:
    """`/reset_prefix_cache`: forgets all prefixes, which needs that nothing runs."""
    if not replica.driver.engine.scheduler.pool.clear():
        raise RequestError(409, "Requests hold blocks; the prefix cache was not reset.")
    return web.Response(status=200)
