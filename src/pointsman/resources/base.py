"""What every object has: metadata, a kind, a reference, a status.

An object is frozen. Its `spec` is typed by the module of its API group; its `status` stays a plain
mapping, because Pointsman writes it and never decides on what it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from pointsman.resources.fields import (
    OBJECT_NAME,
    Broken,
    Integer,
    LabelKey,
    LabelValue,
    NamespaceOrNone,
    Timestamp,
    rules_error,
)

DEFAULT_NAMESPACE = "default"


class Model(BaseModel):
    """A frozen value with camelCase names outside and snake_case names inside.

    Unknown fields are refused here; `resources.parse` turns them into warnings by taking them out
    and validating again.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True
    )

    UNUSED: ClassVar[frozenset[str]] = frozenset()
    """Known fields (camelCase) that nothing here reads: dropped without a word."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        # The API server takes a null field for an absent one.
        if isinstance(data, dict) and (cls.UNUSED or None in data.values()):
            return {k: v for k, v in data.items() if v is not None and k not in cls.UNUSED}
        return data

    @model_validator(mode="after")
    def _obeys(self) -> Self:
        if problems := tuple(self._broken()):
            raise rules_error(problems)
        return self

    def _broken(self) -> Iterable[Broken]:
        """The rules over several fields that do not hold; all are told at once."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """The value as users write it: camelCase, defaults shown, nothing for what is empty."""
        return _written(self)


class Lenient(Model):
    """A value of an API too large to list: what is not named here is ignored."""

    model_config = ConfigDict(extra="ignore")


class Ref(NamedTuple):
    """Which object is meant. `namespace` is "" for kinds that live in the cluster."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"


@dataclass(frozen=True, slots=True)
class Kind:
    """The names of a kind, as `kubectl api-resources` shows them."""

    group: str
    """`""` for the core group."""
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or only the version in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


class OwnerReference(Model):
    """Who made an object (a Pod's Deployment)."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Model):
    """The part of an object that is the same for every kind."""

    # What the API server adds is of no interest here.
    UNUSED: ClassVar[frozenset[str]] = frozenset(
        {
            "clusterName",
            "deletionGracePeriodSeconds",
            "finalizers",
            "generateName",
            "managedFields",
            "selfLink",
        }
    )

    name: str = Field(min_length=1, max_length=253, pattern=OBJECT_NAME)
    namespace: NamespaceOrNone = ""
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    generation: Integer = 0
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: Timestamp = ""
    """RFC 3339, as the API server writes it; such texts sort as their times do."""
    deletion_timestamp: str | None = None
    owner_references: tuple[OwnerReference, ...] = ()


def _written(model: Model) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value is None or (
            value in _EMPTY and value == field.get_default(call_default_factory=True)
        ):
            continue
        out[field.alias or name] = _plain(value)
    return out | (model.model_extra or {})


_EMPTY: tuple[Any, ...] = ((), {}, "")


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return _written(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


class Resource(Model):
    """An object of some kind. Each subclass names its kind in `KIND` and types its `spec`."""

    KIND: ClassVar[Kind]
    STATUS_IS_INPUT: ClassVar[bool] = False
    """What others say in the status decides something (where a Pod lives), beside the spec."""

    api_version: str
    kind: str
    metadata: ObjectMeta
    status: dict[str, Any] | None = None

    @property
    def ref(self) -> Ref:
        """The reference by which others name this object."""
        return Ref(self.KIND.group, self.KIND.kind, self.metadata.namespace, self.metadata.name)

    @property
    def age_key(self) -> tuple[str, str, str]:
        """Sorts older objects first, then by namespace and name: the rule by which ties are cut."""
        meta = self.metadata
        return (meta.creation_timestamp, meta.namespace, meta.name)

    def with_metadata(self, **changes: Any) -> Self:
        """A copy with some of its metadata changed."""
        return self.model_copy(update={"metadata": self.metadata.model_copy(update=changes)})

    def with_status(self, status: dict[str, Any] | None) -> Self:
        """A copy with another status."""
        return self.model_copy(update={"status": status})
