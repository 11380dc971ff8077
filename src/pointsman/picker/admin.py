"""What the picker tells about itself: HTTP on a Unix socket, and its metrics on a port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from pointsman.picker.decisions import Decision
from pointsman.picker.director import Director
from pointsman.picker.pools import Pools
from pointsman.picker.report import Report

MAX_DECISIONS_SHOWN = 1_000
FOLLOW_INTERVAL_S = 0.05
"""Decisions that are followed are written in batches."""
EXPLAINED_AT_ONCE = 10
"""Their scores are computed anew; requests must not wait for a thousand of them."""
WRITE_TIMEOUT_S = 10.0
"""A follower that takes nothing for so long is cut off."""
_APPEND_NEWLINE = orjson.OPT_APPEND_NEWLINE


def admin_app(
    director: Director,
    report: Report,
    is_serving: Callable[[], bool],
    clock: Callable[[], float],
) -> web.Application:
    """The application on the admin socket."""

    async def endpoints(_request: web.Request) -> web.Response:
        return _json(endpoint_rows(director.pools, clock()))

    async def decisions(request: web.Request) -> web.StreamResponse:
        if request.query.get("follow") in ("1", "true"):
            return await _follow(director, request)
        text = request.query.get("limit", "50")
        limit = min(int(text), MAX_DECISIONS_SHOWN) if text.isascii() and text.isdigit() else 50
        found = [decision for decision in director.ring if _matches(request, decision)]
        shown = found[-limit:] if limit else []
        rows = []
        for place, decision in enumerate(shown):
            if place % EXPLAINED_AT_ONCE == EXPLAINED_AT_ONCE - 1:
                await asyncio.sleep(0)
            rows.append(_explained(director, decision))
        return _json(rows)

    async def healthz(_request: web.Request) -> web.Response:
        is_ok = is_serving()
        return web.Response(text="ok\n" if is_ok else "not serving\n", status=200 if is_ok else 503)

    app = metrics_app(report, director)
    app.router.add_get("/endpoints", endpoints)
    app.router.add_get("/decisions", decisions)
    app.router.add_get("/healthz", healthz)
    return app


def metrics_app(report: Report, director: Director) -> web.Application:
    """The application on the metrics port, and a part of that on the admin socket."""

    async def metrics(_request: web.Request) -> web.Response:
        text = report.text(director.pools, director.prefixes.blocks)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    return app


def endpoint_rows(pools: Pools, now: float) -> list[dict[str, Any]]:
    """One row for each endpoint of each pool."""
    rows: list[dict[str, Any]] = []
    for view in pools.all():
        for endpoint in view.endpoints:
            measures = endpoint.measures
            rows.append(
                {
                    "pool": view.key,
                    "endpoint": endpoint.address,
                    "pod": f"{endpoint.place.namespace}/{endpoint.place.pod}",
                    "ready": endpoint.is_listed,
                    "queue": measures.waiting if measures is not None else None,
                    "running": measures.running if measures is not None else None,
                    "kv_cache": measures.kv_cache if measures is not None else None,
                    "adapters": sorted(measures.running_adapters) if measures is not None else [],
                    "in_flight": endpoint.requests,
                    "tokens": endpoint.tokens,
                    "prefill_tokens_per_s": (
                        round(endpoint.prefill.tokens_per_s) if endpoint.prefill.is_learnt else None
                    ),
                    "metrics_age_s": (
                        round(now - measures.at, 3) if measures is not None else None
                    ),
                }
            )
    return rows


async def _follow(director: Director, request: web.Request) -> web.StreamResponse:
    """One decision a line as they are made, until the reader goes."""
    response = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
    await response.prepare(request)
    with director.ring.follow() as news:
        while request.transport is not None and not request.transport.is_closing():
            while news:
                decision = news.popleft()
                if _matches(request, decision):
                    line = orjson.dumps(_explained(director, decision), option=_APPEND_NEWLINE)
                    async with asyncio.timeout(WRITE_TIMEOUT_S):
                        await response.write(line)
            await asyncio.sleep(FOLLOW_INTERVAL_S)
    return response


def _explained(director: Director, decision: Decision) -> dict[str, Any]:
    return decision.explained(director.config.profile(decision.wanted.headers))


def _matches(request: web.Request, decision: Decision) -> bool:
    query = request.query
    facts = {
        "request_id": decision.request_id,
        "model": decision.model or "",
        "pool": decision.pool,
    }
    return all(query.get(name, fact) == fact for name, fact in facts.items()) and (
        "endpoint" not in query or query["endpoint"] in decision.endpoints
    )


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
