"""The objects of the Gateway API Inference Extension: InferencePool, InferenceModel.

InferencePool exists in two generations. `InferencePoolV1Alpha2.to_v1` turns the older into the
newer, so that nothing but this module and the status writer knows of the older one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.fields import (
    Broken,
    Group,
    KindName,
    LabelKey,
    LabelValue,
    ObjectName,
    Port,
    unique,
)

GROUP = "inference.networking.k8s.io"
EXPERIMENTAL_GROUP = "inference.networking.x-k8s.io"

DEFAULT_PICKER_PORT = 9002
"""The port of an endpoint picker when a v1alpha2 pool names none."""

FailureMode = Literal["FailOpen", "FailClose"]
Criticality = Literal["Critical", "Standard", "Sheddable"]


class PoolSelector(Model):
    """The pods of a pool, by their labels."""

    match_labels: dict[LabelKey, LabelValue] = Field(min_length=1, max_length=64)


class PortNumber(Model):
    """A port."""

    number: Port


class EndpointPickerRef(Model):
    """Who is asked which endpoint should answer."""

    group: Group = ""
    kind: KindName = "Service"
    name: ObjectName
    port: PortNumber | None = None
    failure_mode: FailureMode = "FailClose"

    def _broken(self) -> Iterator[Broken]:
        if self.kind == "Service" and self.port is None:
            yield ("port",), "is required when kind is 'Service'"


class InferencePoolSpec(Model):
    """Which pods, on which ports, picked by whom."""

    selector: PoolSelector
    target_ports: tuple[PortNumber, ...] = Field(min_length=1, max_length=8)
    app_protocol: Literal["http", "kubernetes.io/h2c"] = "http"
    endpoint_picker_ref: EndpointPickerRef | None = None

    def _broken(self) -> Iterator[Broken]:
        yield from unique("targetPorts", [port.number for port in self.target_ports], "number")


class InferencePool(Resource):
    """A pool of model servers; each ready pod has one endpoint for each target port."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "InferencePool", "inferencepools", ("infpool",))

    spec: InferencePoolSpec


class ExtensionRef(Model):
    """The endpoint picker of an older pool."""

    group: Group = ""
    kind: KindName = "Service"
    name: ObjectName
    port_number: Port | None = None
    failure_mode: FailureMode = "FailClose"


class InferencePoolV1Alpha2Spec(Model):
    """Which pods, on which port, picked by whom, in the older shape."""

    selector: dict[LabelKey, LabelValue]
    target_port_number: Port
    extension_ref: ExtensionRef


class InferencePoolV1Alpha2(Resource):
    """A pool in its older generation."""

    KIND: ClassVar[Kind] = Kind(
        EXPERIMENTAL_GROUP, "v1alpha2", "InferencePool", "inferencepools", ("xinfpool",)
    )

    spec: InferencePoolV1Alpha2Spec

    def to_v1(self) -> InferencePool:
        """The same pool as of today: same metadata, today's group and shape, no status."""
        picker = self.spec.extension_ref
        return InferencePool(
            api_version=InferencePool.KIND.api_version,
            kind=self.kind,
            metadata=self.metadata,
            spec=InferencePoolSpec(
                # The older generation allows an empty selector, which today's would refuse.
                selector=PoolSelector.model_construct(match_labels=self.spec.selector),
                target_ports=(PortNumber(number=self.spec.target_port_number),),
                endpoint_picker_ref=EndpointPickerRef(
                    group=picker.group,
                    kind=picker.kind,
                    name=picker.name,
                    port=PortNumber(number=picker.port_number or DEFAULT_PICKER_PORT),
                    failure_mode=picker.failure_mode,
                ),
            ),
        )


class PoolRef(Model):
    """The pool that serves a model, in the same namespace."""

    group: Group = EXPERIMENTAL_GROUP
    kind: KindName = "InferencePool"
    name: ObjectName


class TargetModel(Model):
    """A model that a server really has."""

    name: str = Field(max_length=253)
    weight: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None


class InferenceModelSpec(Model):
    """A model name that clients use, and what it means."""

    model_name: str = Field(max_length=256)
    criticality: Criticality | None = None
    target_models: tuple[TargetModel, ...] = Field(default=(), max_length=10)
    pool_ref: PoolRef

    def _broken(self) -> Iterator[Broken]:
        unweighted = [i for i, target in enumerate(self.target_models) if target.weight is None]
        if 0 < len(unweighted) < len(self.target_models):
            where = ("targetModels", unweighted[0], "weight")
            yield where, "must be set for all target models or for none"


class InferenceModel(Resource):
    """A model name, its importance, and the split of its traffic."""

    KIND: ClassVar[Kind] = Kind(
        EXPERIMENTAL_GROUP, "v1alpha2", "InferenceModel", "inferencemodels", ("infmodel",)
    )

    spec: InferenceModelSpec
