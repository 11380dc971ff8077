"""What Envoy answers by itself, in the language of the API: OpenAI-style JSON with a reason.

Only on listeners that serve model servers; elsewhere Envoy's plain replies stay. A picker's own
errors are local replies to Envoy too. They are left alone: a picker may say whatever it likes as
their details, so what counts is that Envoy has a reason of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from google.protobuf.struct_pb2 import Struct

from pointsman.gateway.messages import packed
from pointsman.inference import headers
from pointsman.inference.errors import ERROR_TYPES

_POOL = f"%CLUSTER_METADATA({headers.PICK_NAMESPACE}:{headers.POOL_KEY})%"
_LEADS_TO_POOL = "xds.cluster_name.contains('inferencepool/')"
_WAS_PICKED = f"'{headers.DESTINATION_NAMESPACE}' in metadata.filter_metadata"
_ENVOYS = (
    "(response.flags != 0 || response.code_details.startsWith('ext_proc_error') || "
    "response.code_details in ['direct_response', 'request_payload_too_large', "
    "'response_payload_too_large', 'cluster_not_found', 'route_not_found', 'local_rate_limited', "
    "'request_rate_limited'])"
)
"""True of what Envoy answers for reasons of its own: most have a response flag."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of Envoy's own, and what is said in its place."""

    status: int
    code: str
    """The machine-readable reason."""
    message: str
    flag: str = ""
    """Envoy's response flag; "" for any."""
    where: str = ""
    """A CEL expression that must hold too."""


_REPLIES = (
    Reply(404, "route_not_found", "No route of this gateway matches the request."),
    Reply(413, "request_too_large", "The request is larger than the gateway takes."),
    Reply(429, "rate_limited", "Too many requests."),
    Reply(
        503,
        "no_endpoint",
        f"There is no healthy endpoint in pool {_POOL}, or its endpoint picker does not answer.",
        "UH",
        f"{_LEADS_TO_POOL} && !({_WAS_PICKED})",
    ),
    Reply(
        503, "no_endpoint", f"There is no healthy endpoint in pool {_POOL}.", "UH", _LEADS_TO_POOL
    ),
    Reply(503, "no_endpoint", "No healthy endpoint in %UPSTREAM_CLUSTER%.", "UH"),
    Reply(503, "overloaded", f"Too many requests wait for pool {_POOL}.", "UO", _LEADS_TO_POOL),
    Reply(503, "overloaded", "Too many requests wait for %UPSTREAM_CLUSTER%.", "UO"),
    Reply(
        503,
        "picker_failed",
        f"The endpoint picker of pool {_POOL} failed (%RESPONSE_CODE_DETAILS%).",
        where="response.code_details.startsWith('ext_proc')",
    ),
    Reply(503, "unavailable", "The model server could not be reached (%RESPONSE_CODE_DETAILS%)."),
    Reply(504, "timeout", "The model server did not answer in time (%RESPONSE_CODE_DETAILS%)."),
    Reply(500, "internal", "The gateway could not send the request on (%RESPONSE_CODE_DETAILS%)."),
)
"""The first that fits counts."""


def config() -> hcm_pb2.LocalReplyConfig:
    """The replies of a listener in front of model servers."""
    return hcm_pb2.LocalReplyConfig(
        mappers=[
            {"filter": _filter(reply), "body_format_override": {"json_format": _body(reply)}}
            for reply in _REPLIES
        ]
    )


def _filter(reply: Reply) -> dict[str, object]:
    conditions = [f"response.code == {reply.status}", _ENVOYS]
    if reply.where:
        conditions.append(reply.where)
    expression = cel_pb2.ExpressionFilter(expression=" && ".join(conditions))
    fits: dict[str, object] = {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": packed(expression),
        }
    }
    if not reply.flag:
        return fits
    return {"and_filter": {"filters": [fits, {"response_flag_filter": {"flags": [reply.flag]}}]}}


def _body(reply: Reply) -> Struct:
    error = {
        "message": reply.message,
        "type": ERROR_TYPES[reply.status],
        "param": None,
        "code": reply.code,
    }
    body = Struct()
    body.update({"error": error})
    return body
