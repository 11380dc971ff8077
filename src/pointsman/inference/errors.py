"""Errors in the language of the API: the JSON body that OpenAI clients understand."""

from __future__ import annotations

import json
from dataclasses import dataclass

OWN_DETAILS = "pointsman"
"""Envoy's `response_code_details` of an answer that the picker gave in place of a model server."""

ERROR_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "internal_server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
"""HTTP status to OpenAI error type; anything else is an `api_error`."""


@dataclass(frozen=True, slots=True)
class ApiError:
    """An answer that is an error.

    `code` is the machine-readable reason (`model_not_found`), `param` the field of the request
    that was wrong, `retry_after_s` goes out as the Retry-After header.
    """

    status: int
    message: str
    code: str
    param: str | None = None
    retry_after_s: int | None = None

    def body(self) -> bytes:
        """The OpenAI-style JSON body, in UTF-8."""
        error = {
            "message": self.message,
            "type": ERROR_TYPES.get(self.status, "api_error"),
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error}, ensure_ascii=False).encode()
