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
from pointsman.picker.serving.metrics_guard import PATH as METRICS_PATH
from pointsman.picker.serving.metrics_guard import MetricsGuard

MAX_DECISIONS_SHOWN = 1_000
QUESTIONS = ("request_id", "model", "endpoint", "pool", "limit", "follow")
"""What `/decisions` may be asked with."""
MAX_DIGITS = 9
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
        fault = _fault(request)
        if fault:
            return web.Response(text=fault + "\n", status=400)
        if request.query.get("follow") in ("1", "true"):
            return await _follow(director, request)
        limit = min(int(request.query.get("limit", "50")), MAX_DECISIONS_SHOWN)
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


def metrics_app(
    report: Report, director: Director, guard: MetricsGuard | None = None
) -> web.Application:
    """The application on the metrics port, and a part of that on the admin socket.

    With a `guard` everything needs its consent.
    """

    async def metrics(_request: web.Request) -> web.Response:
        text = report.text(director.pools, director.prefixes.blocks)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    app = web.Application(middlewares=[guard.middleware()] if guard is not None else [])
    app.router.add_get(METRICS_PATH, metrics)
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
                    "others": round(endpoint.others, 1),
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


def _fault(request: web.Request) -> str:
    """What is wrong with the question; empty for nothing."""
    unknown = [name for name in request.query if name not in QUESTIONS]
    if unknown:
        return f"{unknown[0][:100]!r} is none of {', '.join(QUESTIONS)}"
    limit = request.query.get("limit", "1")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= MAX_DIGITS):
        return f"limit: {limit[:100]!r} is no number"
    return ""


def _matches(request: web.Request, decision: Decision) -> bool:
    """Of that request, of that pool, for or given that model, won by that endpoint."""
    winner = decision.endpoints[0] if decision.endpoints else ""
    facts = {
        "request_id": (decision.request_id,),
        "pool": (decision.pool,),
        "model": (decision.model, decision.wanted.model),
        "endpoint": (winner, winner.rpartition(":")[0]),
    }
    query = request.query
    return all(query[name] in known for name, known in facts.items() if name in query)


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
