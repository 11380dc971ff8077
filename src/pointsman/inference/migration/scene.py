"""What the files that are migrated have, old and new, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from pointsman.inference.models import AnyRewrite, winners
from pointsman.resources.base import DEFAULT_NAMESPACE, Ref, Resource
from pointsman.resources.documents import Document
from pointsman.resources.inference_extension import (
    EXPERIMENTAL_GROUP,
    GROUP,
    InferenceModel,
    InferencePool,
    InferencePoolV1Alpha2,
)
from pointsman.resources.inference_models import (
    ExperimentalInferenceModelRewrite,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    InferenceObjective,
)
from pointsman.resources.parse import Origin, Parsed

R = TypeVar("R", bound=Resource)

OLDER = (
    InferencePoolV1Alpha2,
    InferenceModel,
    ExperimentalInferenceObjective,
    ExperimentalInferenceModelRewrite,
)
"""The kinds that become others."""
OLDER_KINDS = frozenset((cls.KIND.group, cls.KIND.kind) for cls in OLDER)


class Note(NamedTuple):
    """Something that is not as it was before, in words."""

    origin: Origin
    subject: str
    """Like `InferenceModel default/sql`."""
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.subject}: {self.text}"


@dataclass(frozen=True, slots=True)
class Item:
    """An object of the files, as it is written and as it is understood."""

    document: Document
    parsed: Parsed

    @property
    def data(self) -> dict[str, Any]:
        """As it is written."""
        found: dict[str, Any] = self.document.data
        return found

    @property
    def subject(self) -> str:
        """What to call it in a note."""
        return str(self.parsed.ref) if self.parsed.ref is not None else str(self.data.get("kind"))

    @property
    def namespace(self) -> str:
        """Where it lives."""
        ref = self.parsed.ref
        return ref.namespace if ref is not None else DEFAULT_NAMESPACE

    def note(self, text: str, *where: str | int) -> Note:
        """A note on this object, or on a field of it."""
        line = self.document.mark.line_of(where)
        return Note(Origin(self.document.file, line), self.subject, text)


@dataclass(frozen=True, slots=True)
class Scene:
    """The objects of all files."""

    items: tuple[Item, ...]
    by_ref: Mapping[Ref, Item] = field(default_factory=dict)
    """The first that stands in the files."""
    owners: Mapping[tuple[str, str, str], InferenceModel] = field(default_factory=dict)
    """(namespace, pool, model name) to the InferenceModel that has the name."""

    @classmethod
    def of(cls, items: Iterable[Item]) -> Scene:
        """Look at everything once."""
        found = tuple(items)
        by_ref: dict[Ref, Item] = {}
        for item in found:
            if item.parsed.ref is not None:
                by_ref.setdefault(item.parsed.ref, item)
        models = [
            resource
            for item in by_ref.values()
            if isinstance(resource := item.parsed.resource, InferenceModel)
        ]
        return cls(found, by_ref, winners(models))

    @property
    def has_older(self) -> bool:
        """Whether there is anything to migrate."""
        return any(isinstance(item.parsed.resource, OLDER) for item in self.items)

    def all_of(self, cls: type[R], namespace: str | None = None) -> Iterator[R]:
        """All objects of that class, of one namespace or of all."""
        for item in self.by_ref.values():
            resource = item.parsed.resource
            if isinstance(resource, cls) and namespace in (None, resource.metadata.namespace):
                yield resource

    def is_repeated(self, item: Item) -> bool:
        """Another object of that name stands before it."""
        ref = item.parsed.ref
        return ref is not None and self.by_ref[ref] is not item

    def has_pool(self, namespace: str, name: str) -> bool:
        """Whether the files have that pool, in whichever generation."""
        groups = (GROUP, EXPERIMENTAL_GROUP)
        return any(Ref(group, "InferencePool", namespace, name) in self.by_ref for group in groups)

    def older_pools(self) -> Iterator[Ref]:
        """Those that become others."""
        return (pool.ref for pool in self.all_of(InferencePoolV1Alpha2))

    def newer(self, kind: str, namespace: str, name: str) -> Item | None:
        """The object of today's generation that has that name already."""
        cls = {
            "InferencePool": InferencePool,
            "InferenceObjective": InferenceObjective,
            "InferenceModelRewrite": InferenceModelRewrite,
        }[kind]
        return self.by_ref.get(Ref(cls.KIND.group, kind, namespace, name))

    def rewrites(self, namespace: str, pool: str) -> list[AnyRewrite]:
        """The rewrites of a pool, of both groups."""
        found: list[AnyRewrite] = [
            *self.all_of(InferenceModelRewrite, namespace),
            *self.all_of(ExperimentalInferenceModelRewrite, namespace),
        ]
        return [item for item in found if item.spec.pool_ref.name == pool]
