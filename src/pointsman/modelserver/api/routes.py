"""Which handler answers which path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from pointsman.modelserver.api import admin, lora
from pointsman.modelserver.api.chat import chat
from pointsman.modelserver.api.completions import completions
from pointsman.modelserver.api.embeddings import embeddings
from pointsman.modelserver.api.errors import json_response
from pointsman.modelserver.api.fields import Body
from pointsman.modelserver.api.messages import count_tokens, messages
from pointsman.modelserver.api.responses import responses
from pointsman.modelserver.api.tokenization import detokenize, tokenize

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica

Handler = Callable[["Replica", web.BaseRequest, Body], Awaitable[web.StreamResponse]]
GetHandler = Callable[["Replica", web.BaseRequest], web.StreamResponse]

EMULATED_VERSION = "0.32.0"
"""The vLLM whose behaviour this server follows."""

GENERATION_PATHS = frozenset(
    (
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
    )
)
"""Paths that use the engine; failures are injected there."""

MESSAGES_PATHS = frozenset(("/v1/messages", "/v1/messages/count_tokens"))
"""Paths whose errors have Anthropic's form."""

LORA_PATHS = frozenset(("/v1/load_lora_adapter", "/v1/unload_lora_adapter"))
"""Paths that exist only where adapters may be loaded at run time."""

POST_HANDLERS: dict[str, Handler] = {
    "/v1/completions": completions,
    "/v1/chat/completions": chat,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens,
    "/v1/embeddings": embeddings,
    "/tokenize": tokenize,
    "/detokenize": detokenize,
    "/admin/config": admin.configure,
    "/reset_prefix_cache": admin.reset_cache,
    "/v1/load_lora_adapter": lora.load,
    "/v1/unload_lora_adapter": lora.unload,
}


def get_handlers() -> dict[str, GetHandler]:
    """Paths that answer at once."""
    return {
        "/v1/models": _models,
        "/health": _health,
        "/ping": _health,
        "/version": _version,
        "/load": _load,
        "/metrics": _metrics,
        "/admin/config": admin.show,
    }


def _models(replica: Replica, request: web.BaseRequest) -> web.StreamResponse:
    return json_response({"object": "list", "data": replica.models.cards()})


def _health(replica: Replica, request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=200 if replica.conduct.is_healthy else 503)


def _version(replica: Replica, request: web.BaseRequest) -> web.StreamResponse:
    return json_response({"version": EMULATED_VERSION})


def _load(replica: Replica, request: web.BaseRequest) -> web.StreamResponse:
    return json_response({"server_load": 0})


def _metrics(replica: Replica, request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(
        body=replica.metrics_text(),
        headers={"Content-Type": "text/plain; version=1.0.0; charset=utf-8"},
    )
