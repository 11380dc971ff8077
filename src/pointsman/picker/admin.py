"""What the picker tells about itself: HTTP on a Unix socket, and its metrics on a port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from pointsman.picker.director import Director
from pointsman.picker.pools import Pools
from pointsman.picker.report import Report

MAX_DECISIONS_SHOWN = 1_000


def admin_app(
    director: Director, is_serving: Callable[[], bool], clock: Callable[[], float]
) -> web.Application:
    """The application on the admin socket."""

    async def endpoints(_request: web.Request) -> web.Response:
        return _json(endpoint_rows(director.pools, clock()))

    async def decisions(request: web.Request) -> web.Response:
        text = request.query.get("limit", "50")
        limit = min(int(text), MAX_DECISIONS_SHOWN) if text.isascii() and text.isdigit() else 50
        found = [
            decision
            for decision in director.ring
            if _matches(request, "request_id", decision.request_id)
            and _matches(request, "model", decision.model or "")
            and _matches(request, "pool", decision.pool)
            and ("endpoint" not in request.query or request.query["endpoint"] in decision.endpoints)
        ]
        shown = found[-limit:] if limit else []
        config = director.config
        return _json([each.explained(config.profile(each.wanted.headers)) for each in shown])

    async def healthz(_request: web.Request) -> web.Response:
        is_ok = is_serving()
        return web.Response(text="ok\n" if is_ok else "not serving\n", status=200 if is_ok else 503)

    app = web.Application()
    app.router.add_get("/endpoints", endpoints)
    app.router.add_get("/decisions", decisions)
    app.router.add_get("/healthz", healthz)
    return app


def metrics_app(report: Report, pools: Pools) -> web.Application:
    """The application on the metrics port."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text=report.text(pools), content_type="text/plain", charset="utf-8")

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


def _matches(request: web.Request, name: str, value: str) -> bool:
    return name not in request.query or request.query[name] == value


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
