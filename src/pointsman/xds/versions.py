"""A snapshot as it goes over the wire: each resource packed, with a version made from its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any as AnyMessage

from pointsman.gateway.snapshot import Key, Snapshot

VERSION_DIGITS = 16
"""64 bits: two versions of one resource never meet by chance."""


@dataclass(frozen=True, slots=True)
class Packed:
    """One resource, ready to be sent."""

    version: str
    resource: AnyMessage


@dataclass(frozen=True, slots=True)
class PackedSnapshot:
    """All resources, ready to be sent."""

    resources: Mapping[Key, Packed] = field(default_factory=dict)

    def names(self, type_url: str) -> dict[str, Packed]:
        """The resources of one type by name, in the order in which they were made."""
        return {key.name: item for key, item in self.resources.items() if key.type_url == type_url}


def pack(found: Snapshot, previous: PackedSnapshot | None = None) -> PackedSnapshot:
    """Pack a snapshot; what equals `previous` is taken from there."""
    before = previous.resources if previous is not None else {}
    result = {}
    for key, resource in found.resources.items():
        content = resource.message.SerializeToString(deterministic=True)
        version = hashlib.blake2b(content, digest_size=VERSION_DIGITS // 2).hexdigest()
        old = before.get(key)
        if old is not None and old.version == version:
            result[key] = old
        else:
            result[key] = Packed(version, AnyMessage(type_url=key.type_url, value=content))
    return PackedSnapshot(result)
