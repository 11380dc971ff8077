"""Label selectors: which objects are meant by their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from pointsman.resources.base import Model
from pointsman.resources.fields import Broken, LabelKey, LabelValue

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]


class LabelRequirement(Model):
    """One expression over one label."""

    key: LabelKey
    operator: Operator
    values: tuple[LabelValue, ...] = ()

    def _broken(self) -> Iterator[Broken]:
        if self.operator in ("In", "NotIn") and not self.values:
            yield ("values",), f"must be given when operator is {self.operator}"
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            yield ("values",), f"must be empty when operator is {self.operator}"

    def matches(self, labels: Mapping[str, str]) -> bool:
        """NotIn holds too when the label is absent, as Kubernetes has it."""
        if self.operator == "In":
            return labels.get(self.key) in self.values
        if self.operator == "NotIn":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator == "Exists")


class LabelSelector(Model):
    """All of its labels and all of its expressions must hold; an empty one selects everything."""

    match_labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    match_expressions: tuple[LabelRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return labels_match(self.match_labels, labels) and all(
            expression.matches(labels) for expression in self.match_expressions
        )


def labels_match(wanted: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether every wanted label is there with its value."""
    return all(labels.get(key) == value for key, value in wanted.items())
