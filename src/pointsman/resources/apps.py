"""The objects of the apps group: Deployment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pointsman.resources.base import Kind, Model, Resource
from pointsman.resources.core import PodTemplate
from pointsman.resources.fields import Broken, Count32
from pointsman.resources.selectors import LabelSelector


class DeploymentSpec(Model):
    """How many pods of which kind."""

    UNUSED: ClassVar[frozenset[str]] = frozenset(
        {
            "minReadySeconds",
            "paused",
            "progressDeadlineSeconds",
            "revisionHistoryLimit",
            "strategy",
        }
    )

    replicas: Count32 = 1
    selector: LabelSelector
    template: PodTemplate

    def _broken(self) -> Iterator[Broken]:
        if not self.selector.match_labels and not self.selector.match_expressions:
            yield ("selector",), "must not be empty: it would select every pod"
        elif not self.selector.matches(self.template.metadata.labels):
            where = ("template", "metadata", "labels")
            yield where, "must have the labels that spec.selector asks for"


class Deployment(Resource):
    """Pods of one kind, kept at a number."""

    KIND: ClassVar[Kind] = Kind("apps", "v1", "Deployment", "deployments", ("deploy",))

    spec: DeploymentSpec
