"""What a user means by `pods`, `gtw inference-gateway`, `svc,deploy` or `pod/a svc/b`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pointsman.cli.connection import fail
from pointsman.resources import kinds
from pointsman.resources.base import Resource


@dataclass(frozen=True, slots=True)
class Target:
    """Objects of one kind: all, or the one of a name."""

    classes: tuple[type[Resource], ...]
    """Usually one; two where a bare word means both generations of a kind."""
    name: str | None = None

    @property
    def resource(self) -> str:
        """`plural.group`, as error messages have it."""
        kind = self.classes[0].KIND
        return f"{kind.plural}.{kind.group}" if kind.group else kind.plural

    @property
    def is_namespaced(self) -> bool:
        """Its objects live in namespaces."""
        return self.classes[0].KIND.namespaced

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(group, kind) of its classes."""
        return [(cls.KIND.group, cls.KIND.kind) for cls in self.classes]

    def has(self, item: dict[str, Any]) -> bool:
        """Whether an object as users write it is meant."""
        group = item["apiVersion"].rpartition("/")[0]
        return (group, item["kind"]) in self.pairs and self.name in (
            None,
            item["metadata"]["name"],
        )


def targets(words: Sequence[str]) -> list[Target]:
    """The arguments of `get` and `wait`; a wrong one ends the command."""
    if not words:
        fail("You must specify the type of resource to get. Use: pointsman api-resources")
    if any("/" in word for word in words):
        return [_slashed(word) for word in words]
    first, *names = words
    if first.lower() == "all":
        found = [Target((cls,)) for cls in kinds.USED]
    else:
        found = [_kind(word) for word in first.split(",") if word]
    if not names:
        return found
    if len(found) > 1:
        fail("a name can be given for one resource type only (or write TYPE/NAME)")
    return [Target(found[0].classes, name) for name in names]


def _slashed(word: str) -> Target:
    kind, slash, name = word.partition("/")
    if not slash or not kind or not name or "/" in name or "," in kind:
        fail(
            "there is no need to specify a resource type as a separate argument when passing "
            "arguments in resource/name form (e.g. 'get resource/<name>')"
        )
    return Target(_kind(kind).classes, name)


def _kind(word: str) -> Target:
    classes = kinds.by_name(word)
    if not classes:
        near = kinds.names_like(word)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        fail(f'the server doesn\'t have a resource type "{word}"{hint}')
    return Target(classes)
