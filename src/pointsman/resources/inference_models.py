"""What came after InferenceModel: InferenceObjective and InferenceModelRewrite.

Both exist in two API groups with the same shape: `inference.networking.x-k8s.io`, where they began,
and `llm-d.ai`, where they went. The only difference is the room for a priority.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.fields import Group, Int32, KindName, ObjectName
from pointsman.resources.inference_extension import EXPERIMENTAL_GROUP, GROUP

LLM_D_GROUP = "llm-d.ai"

Int64 = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]


class PoolOfToday(Model):
    """The pool that an object is about, in the same namespace."""

    group: Group = GROUP
    kind: KindName = "InferencePool"
    name: ObjectName


class ExperimentalObjectiveSpec(Model):
    """How important requests are that name this objective, in the older group."""

    priority: Int64 | None = None
    pool_ref: PoolOfToday


class InferenceObjectiveSpec(Model):
    """How important requests are that name this objective; unset is 0, below 0 may be shed."""

    priority: Int32 | None = None
    pool_ref: PoolOfToday


class InferenceObjective(Resource):
    """A priority with a name."""

    KIND: ClassVar[Kind] = Kind(
        LLM_D_GROUP, "v1alpha2", "InferenceObjective", "inferenceobjectives", ("infobj",)
    )

    spec: InferenceObjectiveSpec


class ExperimentalInferenceObjective(Resource):
    """A priority with a name, in the older group."""

    KIND: ClassVar[Kind] = Kind(
        EXPERIMENTAL_GROUP, "v1alpha2", "InferenceObjective", "inferenceobjectives", ("infobj",)
    )

    spec: ExperimentalObjectiveSpec


class ModelMatch(Model):
    """The model that the client asks for."""

    type: Literal["Exact"] = "Exact"
    value: str = Field(min_length=1)


class RewriteMatch(Model):
    """What a request must be like."""

    model: ModelMatch


class RewriteTarget(Model):
    """The model that the server gets to hear, with its share."""

    model_rewrite: str
    weight: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None


class RewriteRule(Model):
    """Requests that match any of `matches` (all requests where there is none) get a target."""

    matches: tuple[RewriteMatch, ...] = ()
    targets: tuple[RewriteTarget, ...] = Field(default=(), min_length=1)
    """May be left out, though not be empty: the name then stays as it is."""


class InferenceModelRewriteSpec(Model):
    """Which model names become which, in a pool."""

    pool_ref: PoolOfToday
    rules: tuple[RewriteRule, ...]


class InferenceModelRewrite(Resource):
    """Aliases and splits of model names."""

    KIND: ClassVar[Kind] = Kind(
        LLM_D_GROUP, "v1alpha2", "InferenceModelRewrite", "inferencemodelrewrites", ("infrewrite",)
    )

    spec: InferenceModelRewriteSpec


class ExperimentalInferenceModelRewrite(Resource):
    """Aliases and splits of model names, in the older group."""

    KIND: ClassVar[Kind] = Kind(
        EXPERIMENTAL_GROUP,
        "v1alpha2",
        "InferenceModelRewrite",
        "inferencemodelrewrites",
        ("infrewrite",),
    )

    spec: InferenceModelRewriteSpec
