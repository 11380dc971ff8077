"""Token usage, read by Envoy from the answers of model servers into dynamic metadata.

OpenAI's APIs tell it as `usage.prompt_tokens` and `usage.completion_tokens`, its Responses API and
Anthropic's as `usage.input_tokens` and `usage.output_tokens`; in a stream the Responses API puts it
under `response`, and Anthropic begins with it under `message`. The last word of a stream counts. A
stream whose client did not ask for usage tells none, and nothing is written then.

Both filters stand last before the router and are off until a route to a pool switches them on. To
read an answer in JSON Envoy holds it until it is complete, which is when model servers send it
anyway; one that would not fit the listener's buffer would cost the client a 500, so only answers
that say that they are small enough are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as route_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from xds.type.v3 import typed_struct_pb2

from pointsman.gateway import names
from pointsman.gateway.messages import packed
from pointsman.inference import headers

MAX_EVENT_BYTES = 256 * 1024
"""Larger events of a stream are passed on unread: log probabilities can be long, usage is not."""

MAX_DIGITS = 7
"""Of the content-length of an answer in JSON that is read: up to ten megabytes."""

JSON_TYPES = r"(?i)application/json\s*(;.*)?"

_TYPES = "type.googleapis.com/envoy.extensions"
_SSE_TYPE = f"{_TYPES}.filters.http.sse_to_metadata.v3.SseToMetadata"
_JSON_TYPE = f"{_TYPES}.filters.http.json_to_metadata.v3.JsonToMetadata"
_PARSER_TYPE = f"{_TYPES}.content_parsers.json.v3.JsonContentParser"

_NAMES = {
    "prompt_tokens": headers.INPUT_TOKENS_KEY,
    "input_tokens": headers.INPUT_TOKENS_KEY,
    "completion_tokens": headers.OUTPUT_TOKENS_KEY,
    "output_tokens": headers.OUTPUT_TOKENS_KEY,
    "total_tokens": headers.TOTAL_TOKENS_KEY,
}
"""What the APIs call it, to the metadata key."""

_IN_STREAMS = (
    ("response", "usage", "input_tokens"),
    ("response", "usage", "output_tokens"),
    ("response", "usage", "total_tokens"),
    ("message", "usage", "input_tokens"),
)


def listener_filters(buffer_limit_bytes: int) -> dict[str, Message]:
    """The filters of a listener with routes to pools, by name, and with that buffer limit.

    They travel as TypedStructs: the Python types lack one of them and parts of the other.
    """
    rules = [_rule("usage", name) for name in _NAMES]
    json_rules = {"rules": rules, "allow_content_types_regex": {"regex": JSON_TYPES}}
    streamed = [*rules, *(_rule(*path) for path in _IN_STREAMS)]
    parser = {
        "name": "envoy.content_parsers.json",
        "typed_config": {"@type": _PARSER_TYPE, "rules": [{"rule": rule} for rule in streamed]},
    }
    sse_rules = {"content_parser": parser, "max_event_size": MAX_EVENT_BYTES}
    return {
        names.JSON_USAGE_FILTER: _unless_large(
            _typed(_JSON_TYPE, {"response_rules": json_rules}), buffer_limit_bytes
        ),
        names.SSE_USAGE_FILTER: _typed(_SSE_TYPE, {"response_rules": sse_rules}),
    }


def on_route(target: route_pb2.Route | route_pb2.WeightedCluster.ClusterWeight) -> None:
    """Read the usage of what this route's servers answer."""
    for name in _filter_names():
        switch = route_pb2.FilterConfig(config={})
        target.typed_per_filter_config[name].CopyFrom(packed(switch))


def _filter_names() -> Iterator[str]:
    yield names.JSON_USAGE_FILTER
    yield names.SSE_USAGE_FILTER


def _rule(*path: str) -> dict[str, Any]:
    return {
        "selectors": [{"key": part} for part in path],
        "on_present": {
            "metadata_namespace": headers.USAGE_NAMESPACE,
            "key": _NAMES[path[-1]],
            "type": "NUMBER",
        },
    }


def _unless_large(reader: Message, buffer_limit_bytes: int) -> Message:
    """The filter for answers whose length is told and has fewer digits than the limit."""
    # A limit of a few bytes is allowed; no answer of so few has usage in it.
    digits = max(1, min(MAX_DIGITS, len(str(buffer_limit_bytes)) - 1))
    length = http_inputs_pb2.HttpResponseHeaderMatchInput(header_name="content-length")
    is_small = {
        "input": {"name": "content-length", "typed_config": packed(length)},
        "value_match": {"safe_regex": {"google_re2": {}, "regex": f"[0-9]{{1,{digits}}}"}},
    }
    skip = {"name": "skip", "typed_config": packed(skip_action_pb2.SkipFilter())}
    otherwise = {
        "predicate": {"not_matcher": {"single_predicate": is_small}},
        "on_match": {"action": skip},
    }
    result: Message = extension_matcher_pb2.ExtensionWithMatcher(
        extension_config={"name": "json_to_metadata", "typed_config": packed(reader)},
        xds_matcher={"matcher_list": {"matchers": [otherwise]}},
    )
    return result


def _typed(type_url: str, value: dict[str, Any]) -> Message:
    struct = Struct()
    struct.update(value)
    result: Message = typed_struct_pb2.TypedStruct(type_url=type_url, value=struct)
    return result
