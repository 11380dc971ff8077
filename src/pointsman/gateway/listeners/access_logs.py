"""Access logs for people: what is written of each request, as JSON or as a line of text.

The JSON has the 24 fields of Envoy Gateway's default and, for requests to pools, those of the
conversation: model, pool, endpoint, tokens, time to first token. Nothing secret is in it: of the
request's headers only those that name the client's program, the forwarding and the request's
number, of its path no query, and never a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2 as format_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2
from google.protobuf.struct_pb2 import Struct

from pointsman.gateway.messages import packed
from pointsman.inference import headers

STDOUT = "/dev/stdout"
NO_ROUTE_FLAG = "NR"
"""A connection that no filter chain takes: the listener tells of it, for nobody else can."""

_PATH = "%PATH(NQ:ORIG_OR_PATH)%"
_SERVED = f"{headers.DESTINATION_NAMESPACE}:{headers.DESTINATION_ENDPOINT_SERVED}"
_TTFT_MS = "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%"


def _usage(key: str) -> str:
    return f"%DYNAMIC_METADATA({headers.USAGE_NAMESPACE}:{key})%"


FIELDS: Mapping[str, str] = {
    ":authority": "%REQ(:AUTHORITY)%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "duration": "%DURATION%",
    "method": "%REQ(:METHOD)%",
    "protocol": "%PROTOCOL%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "route_name": "%ROUTE_NAME%",
    "start_time": "%START_TIME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "user-agent": "%REQ(USER-AGENT)%",
    "x-envoy-origin-path": _PATH,
    "x-envoy-upstream-service-time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x-forwarded-for": "%REQ(X-FORWARDED-FOR)%",
    "x-request-id": "%REQ(X-REQUEST-ID)%",
}
"""Envoy Gateway's default fields; the path goes without its query, where keys may be."""

INFERENCE_FIELDS: Mapping[str, str] = {
    "model": f"%DYNAMIC_METADATA({headers.PICK_NAMESPACE}:{headers.MODEL_KEY})%",
    "pool": f"%CLUSTER_METADATA({headers.PICK_NAMESPACE}:{headers.POOL_KEY})%",
    "endpoint": f"%DYNAMIC_METADATA({_SERVED})%",
    "prompt_tokens": _usage(headers.INPUT_TOKENS_KEY),
    "completion_tokens": _usage(headers.OUTPUT_TOKENS_KEY),
    "ttft_ms": _TTFT_MS,
}
"""Null where it is not known: the request led to no pool, or the answer told no usage."""

TEXT = (
    '[%START_TIME%] "%REQ(:METHOD)% '
    + _PATH
    + ' %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%'
    " in=%BYTES_RECEIVED%B out=%BYTES_SENT%B %DURATION%ms"
    + "".join(f" {name}={value}" for name, value in INFERENCE_FIELDS.items())
    + " host=%UPSTREAM_HOST% id=%REQ(X-REQUEST-ID)%\n"
)
"""One line; what is not known is a dash."""


@dataclass(frozen=True, slots=True)
class AccessLog:
    """One log file, and what is written into it."""

    path: str = STDOUT
    fields: Mapping[str, str] = field(default_factory=dict)
    """Names and formats of a JSON object, one for each request."""
    text: str = ""
    """The format of a line with its end, where it is not JSON."""


JSON_ON_STDOUT = AccessLog(fields={**FIELDS, **INFERENCE_FIELDS})
TEXT_ON_STDOUT = AccessLog(text=TEXT)


def request_log(log: AccessLog) -> accesslog_pb2.AccessLog:
    """The log of a connection manager: every request."""
    written = _format(log)
    if log.path == STDOUT:
        # Not the file of that name: where stdout is a socket it cannot be opened.
        stdout = stream_pb2.StdoutAccessLog(log_format=written)
        return accesslog_pb2.AccessLog(
            name="envoy.access_loggers.stdout", typed_config=packed(stdout)
        )
    file = file_pb2.FileAccessLog(path=log.path, log_format=written)
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=packed(file))


def connection_log(log: AccessLog) -> accesslog_pb2.AccessLog:
    """The log of a listener: connections that no filter chain takes."""
    result = request_log(log)
    result.filter.response_flag_filter.flags.append(NO_ROUTE_FLAG)
    return result


def _format(log: AccessLog) -> format_pb2.SubstitutionFormatString:
    if log.text:
        return format_pb2.SubstitutionFormatString(
            text_format_source={"inline_string": log.text},
        )
    fields = Struct()
    fields.update(dict(log.fields))
    return format_pb2.SubstitutionFormatString(json_format=fields)
