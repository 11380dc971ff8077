"""Envoy's resources as JSON data and back, in the shape that users' patches know.

The shape is protobuf's JSON with snake_case names. An Any whose type the Python package lacks (it
lags behind Envoy) travels as a TypedStruct: Envoy itself reads it, only we cannot check it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.message import Message

from pointsman.gateway import snapshot
from pointsman.gateway.patches import type_modules

TYPED_STRUCT = f"{snapshot.TYPE_PREFIX}xds.type.v3.TypedStruct"
_STRUCT_TYPES = (TYPED_STRUCT, f"{snapshot.TYPE_PREFIX}udpa.type.v1.TypedStruct")


def to_dict(message: Message) -> Any:
    """`message` as JSON data: snake_case, nothing for what is unset or zero."""
    return _plain(json_format.MessageToDict(message, preserving_proto_field_name=True))


def from_dict(cls: type[Message], document: Any) -> Message:
    """The message that `document` describes.

    Raises:
        json_format.ParseError: a field is unknown or of the wrong type.
    """
    return json_format.ParseDict(_known_types_only(document), cls())


def _plain(value: Any) -> Any:
    """Plain dictionaries and lists; protobuf writes ordered ones for what is inside an Any."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _known_types_only(value: Any) -> Any:
    if isinstance(value, list):
        return [_known_types_only(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    type_url = value.get("@type")
    if isinstance(type_url, str) and type_url not in _STRUCT_TYPES and not _is_known(type_url):
        content = {key: item for key, item in value.items() if key != "@type"}
        return {"@type": TYPED_STRUCT, "type_url": type_url, "value": content}
    return {key: _known_types_only(item) for key, item in value.items()}


def _is_known(type_url: str) -> bool:
    name = type_url.rpartition("/")[2]
    try:
        descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        return type_modules.load(name)
    return True
