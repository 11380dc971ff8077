"""Answers that are errors, in the bodies that vLLM gives."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

BAD_REQUEST = "BadRequestError"
NOT_FOUND = "NotFoundError"
UNAVAILABLE = "Service Unavailable"
UNAUTHORIZED = "Unauthorized"
INTERNAL = "InternalServerError"

BUSY_MESSAGE = (
    "The engine is currently busy and cannot accept new requests. Please try again later."
)


class RequestError(Exception):
    """A request that gets an error. `kind` is the `type` of the body."""

    def __init__(
        self, status: int, message: str, kind: str = BAD_REQUEST, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param

    def body(self) -> dict[str, Any]:
        """The JSON body: the code repeats the status. vLLM's 401 is a bare word."""
        if self.status == 401 and self.kind == UNAUTHORIZED:
            return {"error": UNAUTHORIZED}
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.status,
            }
        }


def unknown_model(name: object, aliases: tuple[str, ...]) -> RequestError:
    """404 for a model that is not served; adapters are not among the aliases, as in vLLM."""
    known = ", ".join(aliases)
    return RequestError(
        404,
        f"The model `{name}` does not exist. Valid aliases: {known}.",
        NOT_FOUND,
        "model",
    )


def json_response(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=orjson.dumps(body),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def detail_response(status: int, detail: Any) -> web.Response:
    """An error in the form of the web framework beneath vLLM: unknown paths, wrong methods."""
    return json_response({"detail": detail}, status)


def busy() -> RequestError:
    """503: a queue limit is reached."""
    return RequestError(503, BUSY_MESSAGE, UNAVAILABLE)
