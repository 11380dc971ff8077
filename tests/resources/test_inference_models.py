"""InferenceObjective and InferenceModelRewrite, in both groups."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.resources import kinds
from pointsman.resources.inference_models import (
    ExperimentalInferenceModelRewrite,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    InferenceObjective,
)
from pointsman.resources.parse import Parsed, parse_object

GROUPS = ("llm-d.ai", "inference.networking.x-k8s.io")


def parsed(kind: str, spec: Any, group: str = GROUPS[0]) -> Parsed:
    return parse_object(
        {
            "apiVersion": f"{group}/v1alpha2",
            "kind": kind,
            "metadata": {"name": "x", "namespace": "default"},
            "spec": spec,
        }
    )


def fields(kind: str, spec: Any, group: str = GROUPS[0]) -> list[str]:
    return [problem.field for problem in parsed(kind, spec, group).problems]


RULE = {"matches": [{"model": {"value": "a"}}], "targets": [{"modelRewrite": "b", "weight": 3}]}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("InferenceObjective", {"poolRef": {"name": "p"}}),
        ("InferenceObjective", {"priority": -7, "poolRef": {"name": "p", "group": ""}}),
        ("InferenceModelRewrite", {"poolRef": {"name": "p"}, "rules": []}),
        ("InferenceModelRewrite", {"poolRef": {"name": "p"}, "rules": [{}]}),
        ("InferenceModelRewrite", {"poolRef": {"name": "p"}, "rules": [RULE]}),
        (
            "InferenceModelRewrite",
            {"poolRef": {"name": "p"}, "rules": [{"targets": [{"modelRewrite": ""}]}]},
        ),
    ],
)
def test_what_the_crd_takes_is_taken_and_written_back(group: str, kind: str, spec: Any) -> None:
    item = parsed(kind, spec, group)
    assert item.problems == ()
    assert item.resource is not None
    assert parse_object(item.resource.to_dict()).resource == item.resource


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("InferenceObjective", {}, "spec.poolRef"),
        ("InferenceObjective", {"priority": "1", "poolRef": {"name": "p"}}, "spec.priority"),
        ("InferenceObjective", {"priority": 2**31, "poolRef": {"name": "p"}}, "spec.priority"),
        ("InferenceObjective", {"poolRef": {"name": ""}}, "spec.poolRef.name"),
        ("InferenceModelRewrite", {"poolRef": {"name": "p"}}, "spec.rules"),
        (
            "InferenceModelRewrite",
            {"poolRef": {"name": "p"}, "rules": [{"targets": []}]},
            "spec.rules[0].targets",
        ),
        (
            "InferenceModelRewrite",
            {"poolRef": {"name": "p"}, "rules": [{"targets": [{"weight": 1}]}]},
            "spec.rules[0].targets[0].modelRewrite",
        ),
        (
            "InferenceModelRewrite",
            {
                "poolRef": {"name": "p"},
                "rules": [{"targets": [{"modelRewrite": "b", "weight": 0}]}],
            },
            "spec.rules[0].targets[0].weight",
        ),
        (
            "InferenceModelRewrite",
            {"poolRef": {"name": "p"}, "rules": [{"matches": [{"model": {"value": ""}}]}]},
            "spec.rules[0].matches[0].model.value",
        ),
        (
            "InferenceModelRewrite",
            {
                "poolRef": {"name": "p"},
                "rules": [{"matches": [{"model": {"value": "a", "type": "Prefix"}}]}],
            },
            "spec.rules[0].matches[0].model.type",
        ),
    ],
)
def test_what_the_crd_refuses_is_refused(kind: str, spec: Any, field: str) -> None:
    assert fields(kind, spec) == [field]


def test_the_older_group_has_room_for_larger_priorities() -> None:
    spec = {"priority": 2**40, "poolRef": {"name": "p"}}
    assert fields("InferenceObjective", spec, GROUPS[1]) == []
    spec["priority"] = 2**63
    assert fields("InferenceObjective", spec, GROUPS[1]) == ["spec.priority"]


@pytest.mark.parametrize(
    ("word", "classes"),
    [
        ("infobj", (InferenceObjective, ExperimentalInferenceObjective)),
        ("inferenceobjectives.llm-d.ai", (InferenceObjective,)),
        ("infrewrite", (InferenceModelRewrite, ExperimentalInferenceModelRewrite)),
        (
            "inferencemodelrewrite.inference.networking.x-k8s.io",
            (ExperimentalInferenceModelRewrite,),
        ),
    ],
)
def test_a_bare_word_means_both_groups_the_newer_first(word: str, classes: tuple[Any, ...]) -> None:
    assert kinds.by_name(word) == classes
