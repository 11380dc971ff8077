"""What Envoy answers by itself, in the language of the API: OpenAI-style JSON with a reason.

Only on listeners that serve model servers; elsewhere Envoy's plain replies stay. The picker's own
errors are local replies to Envoy too: their details say `pointsman`, and they are left alone, as is
what has no details (an answer from upstream).
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from google.protobuf.struct_pb2 import Struct

from pointsman.gateway.messages import packed
from pointsman.inference.errors import ERROR_TYPES, OWN_DETAILS

_NOT_OURS = f"response.code_details != '{OWN_DETAILS}' && response.code_details != ''"

_REPLIES = (
    (404, "", "route_not_found", "No route of this gateway matches the request."),
    (413, "", "request_too_large", "The request is larger than the gateway takes."),
    (429, "", "rate_limited", "Too many requests."),
    (503, "UH", "no_endpoint", "No healthy endpoint in %UPSTREAM_CLUSTER%."),
    (503, "UO", "overloaded", "Too many requests wait for %UPSTREAM_CLUSTER%."),
    (503, "", "unavailable", "The model server could not be reached (%RESPONSE_CODE_DETAILS%)."),
    (504, "", "timeout", "The model server did not answer in time (%RESPONSE_CODE_DETAILS%)."),
    (500, "", "internal", "The gateway could not send the request on (%RESPONSE_CODE_DETAILS%)."),
)
"""Status, Envoy's response flag or "" for any, code and message. The first that fits counts."""


def config() -> hcm_pb2.LocalReplyConfig:
    """The replies of a listener in front of model servers."""
    return hcm_pb2.LocalReplyConfig(
        mappers=[
            {
                "filter": _filter(status, flag),
                "body_format_override": {"json_format": _body(status, code, message)},
            }
            for status, flag, code, message in _REPLIES
        ]
    )


def _filter(status: int, flag: str) -> dict[str, Any]:
    expression = cel_pb2.ExpressionFilter(expression=f"response.code == {status} && {_NOT_OURS}")
    ours = {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": packed(expression),
        }
    }
    if not flag:
        return ours
    return {"and_filter": {"filters": [ours, {"response_flag_filter": {"flags": [flag]}}]}}


def _body(status: int, code: str, message: str) -> Struct:
    error = {"message": message, "type": ERROR_TYPES[status], "param": None, "code": code}
    body = Struct()
    body.update({"error": error})
    return body
