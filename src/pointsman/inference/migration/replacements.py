"""An object of an older generation to the objects that take its place.

    InferencePool x-k8s.io/v1alpha2       InferencePool k8s.io/v1, of the same name
    InferenceModel                        InferenceObjective, where it says a criticality, and
                                          InferenceModelRewrite, where the name becomes another
    InferenceObjective of x-k8s.io        the same in llm-d.ai
    InferenceModelRewrite of x-k8s.io     the same in llm-d.ai

The older shapes are those of the inference extension up to v0.5; what took their place is described
in its proposals 1199 (InferencePool v1) and 1816 (rewrites). There is no official number for a
criticality. Ours are those by which the picker orders InferenceModels too: 1, 0 and -1, because 0
is what a request without an objective has, and below 0 means that it may be shed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pointsman.inference.headers import OBJECTIVE
from pointsman.inference.migration.scene import Item, Note, Scene
from pointsman.inference.models import CRITICALITY_PRIORITIES, AnyRewrite
from pointsman.resources.base import Kind
from pointsman.resources.inference_extension import (
    DEFAULT_PICKER_PORT,
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
from pointsman.resources.problems import Problem

_OF_THE_SERVER = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""Metadata that the API server wrote of the older object: a new object has its own."""
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_INT32 = 2**31

_LESS_IMPORTANT = {
    "Standard": (
        "requests without an objective have priority 0 too, so that naming it changes nothing; "
        "Standard gave way while the pool was saturated, and 0 does not"
    ),
    "Sheddable": "what is below 0 gives way while the pool is saturated",
}


@dataclass(slots=True)
class Replaced:
    """What came of one object."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    """Why it stays as it was."""


class Replacements:
    """Makes the objects of today; knows which names are taken and what was said once."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._taken = {
            (kind, item.metadata.namespace, item.metadata.name)
            for kind, classes in _NAMED.items()
            for cls in classes
            for item in scene.all_of(cls)
        }
        self._told_open: set[tuple[str, str]] = set()

    def of(self, item: Item) -> Replaced:
        """What takes the place of an object of an older generation."""
        resource = item.parsed.resource
        out = Replaced()
        if self._scene.is_repeated(item):
            first = self._scene.by_ref[resource.ref] if resource is not None else item
            place = first.parsed.origin
            out.notes.append(item.note(f"stands in {place} already, which counts; it is left out"))
            return out
        out.notes += _left_out(item)
        if isinstance(resource, InferencePoolV1Alpha2):
            self._pool(item, resource, out)
        elif isinstance(resource, InferenceModel):
            self._model(item, resource, out)
        elif isinstance(resource, ExperimentalInferenceObjective):
            self._objective(item, resource, out)
        elif isinstance(resource, ExperimentalInferenceModelRewrite):
            self._rewrite(item, resource, out)
        if out.problems:
            out.notes.clear()
        return out

    def _pool(self, item: Item, pool: InferencePoolV1Alpha2, out: Replaced) -> None:
        if not pool.spec.selector:
            message = "selects nothing, and InferencePool v1 takes one to 64 labels; name them"
            line = item.document.mark.line_of(("spec", "selector"))
            file = item.document.file
            out.problems.append(
                Problem("error", file, line, "spec.selector", message, item.subject)
            )
            return
        if self._is_there(item, out):
            return
        picker = pool.spec.extension_ref
        written = item.data["spec"]["extensionRef"]
        reference: dict[str, Any] = {
            key: written[key] for key in ("group", "kind") if written.get(key) is not None
        }
        reference["name"] = picker.name
        reference["port"] = {"number": picker.port_number or DEFAULT_PICKER_PORT}
        if written.get("failureMode") is not None:
            reference["failureMode"] = picker.failure_mode
        spec = {
            "selector": {"matchLabels": dict(pool.spec.selector)},
            "targetPorts": [{"number": pool.spec.target_port_number}],
            "endpointPickerRef": reference,
        }
        out.objects.append(_object(InferencePool.KIND, _metadata(item), spec))

    def _model(self, item: Item, model: InferenceModel, out: Replaced) -> None:
        spec = model.spec
        pool = spec.pool_ref
        if pool.kind != "InferencePool" or pool.group not in (GROUP, EXPERIMENTAL_GROUP):
            message = f"names the {pool.kind} {pool.name}, where an InferencePool must be named"
            line = item.document.mark.line_of(("spec", "poolRef"))
            file = item.document.file
            out.problems.append(Problem("error", file, line, "spec.poolRef", message, item.subject))
            return
        owner = self._scene.owners.get((item.namespace, pool.name, spec.model_name))
        if owner is not None and owner.ref != model.ref:
            place = self._scene.by_ref[owner.ref].parsed.origin
            why = "is older" if _ages_differ(owner, model) else "comes first by its name"
            out.notes.append(
                item.note(
                    f"the name {spec.model_name!r} belongs to {owner.ref} ({place}), which {why}; "
                    "this one meant nothing and is left out",
                    "spec",
                    "modelName",
                )
            )
            return
        self._say_that_it_opens(item, pool.name, out)
        self._say_importance(item, model, out)
        self._say_targets(item, model, out)

    def _say_that_it_opens(self, item: Item, pool: str, out: Replaced) -> None:
        if (item.namespace, pool) in self._told_open:
            return
        self._told_open.add((item.namespace, pool))
        out.notes.append(
            item.note(
                f"InferencePool {item.namespace}/{pool} refused models of which no InferenceModel "
                "speaks; now every name goes on to its servers, which refuse what they do not serve"
            )
        )

    def _say_importance(self, item: Item, model: InferenceModel, out: Replaced) -> None:
        criticality = model.spec.criticality
        if criticality is None:
            out.notes.append(
                item.note(
                    "no criticality counted as Standard, which gave way while the pool was "
                    "saturated; its requests have priority 0 now, which does not",
                    "spec",
                )
            )
            return
        name = self._name(InferenceObjective.KIND.kind, item, out)
        priority = CRITICALITY_PRIORITIES[criticality]
        out.objects.append(
            _object(
                InferenceObjective.KIND,
                {**_metadata(item), "name": name},
                {"priority": priority, "poolRef": _pool_ref(model.spec.pool_ref.name)},
            )
        )
        text = (
            f"criticality {criticality} becomes priority {priority} of InferenceObjective {name}; "
            f"the model's name no longer says it: a request must carry '{OBJECTIVE}: {name}' and "
            "be believed"
        )
        more = _LESS_IMPORTANT.get(criticality)
        where = ("spec", "criticality")
        out.notes.append(item.note(f"{text}; {more}" if more else text, *where))

    def _say_targets(self, item: Item, model: InferenceModel, out: Replaced) -> None:
        spec = model.spec
        rewrites = self._scene.rewrites(item.namespace, spec.pool_ref.name)
        rules = [(rewrite, rule) for rewrite in rewrites for rule in rewrite.spec.rules]
        for rewrite, rule in rules:
            if any(match.model.value == spec.model_name for match in rule.matches):
                text = f"{rewrite.ref} says what {spec.model_name!r} becomes, as it did before"
                out.notes.append(item.note(f"{text}; the targets are left out", "spec"))
                return
        targets = spec.target_models
        stays = all(target.name == spec.model_name for target in targets)
        # A rule for all names gave way to an InferenceModel, and does so to an exact match.
        if stays and all(rule.matches for _, rule in rules):
            return
        shares = [
            {"modelRewrite": target.name}
            | ({"weight": target.weight} if target.weight is not None else {})
            for target in targets
        ]
        out.objects.append(
            _object(
                InferenceModelRewrite.KIND,
                {**_metadata(item), "name": self._name(InferenceModelRewrite.KIND.kind, item, out)},
                {
                    "poolRef": _pool_ref(spec.pool_ref.name),
                    "rules": [
                        {
                            "matches": [{"model": {"type": "Exact", "value": spec.model_name}}],
                            "targets": shares or [{"modelRewrite": spec.model_name}],
                        }
                    ],
                },
            )
        )

    def _objective(
        self, item: Item, objective: ExperimentalInferenceObjective, out: Replaced
    ) -> None:
        priority = objective.spec.priority
        self._move(item, InferenceObjective.KIND, out)
        if priority is not None and out.objects and not -_INT32 <= priority < _INT32:
            nearest = _INT32 - 1 if priority > 0 else -_INT32
            out.objects[0]["spec"]["priority"] = nearest
            text = f"priority {priority} has no room in 32 bits and becomes {nearest}"
            out.notes.append(item.note(text, "spec", "priority"))

    def _rewrite(
        self, item: Item, rewrite: ExperimentalInferenceModelRewrite, out: Replaced
    ) -> None:
        self._move(item, InferenceModelRewrite.KIND, out)
        if not out.objects:
            return
        ours = _names(rewrite)
        for other in self._scene.rewrites(item.namespace, rewrite.spec.pool_ref.name):
            both = ours & _names(other) if other is not rewrite else set()
            for name in sorted(both):
                text = f"{other.ref} of {other.api_version} speaks of {name} too"
                out.notes.append(
                    item.note(f"{text}; the older counts, and this one is new", "spec")
                )

    def _move(self, item: Item, kind: Kind, out: Replaced) -> None:
        if self._is_there(item, out):
            return
        spec = {**item.data["spec"]}
        pool_ref = {**spec["poolRef"]}
        if pool_ref.get("group") == EXPERIMENTAL_GROUP:
            pool_ref["group"] = GROUP
        spec["poolRef"] = pool_ref
        out.objects.append(_object(kind, _metadata(item), spec))

    def _is_there(self, item: Item, out: Replaced) -> bool:
        ref = item.parsed.ref
        there = self._scene.newer(ref.kind, ref.namespace, ref.name) if ref is not None else None
        if there is not None:
            text = f"{there.parsed.origin} has it in {there.data['apiVersion']} already"
            out.notes.append(item.note(f"{text}, which counts; this one is left out"))
        return there is not None

    def _name(self, kind: str, item: Item, out: Replaced) -> str:
        """The name of the older object, or the first with a number behind it that is free."""
        wanted = item.data["metadata"]["name"]
        for name in _numbered(wanted):
            key = (kind, item.namespace, name)
            if key not in self._taken:
                self._taken.add(key)
                if name != wanted:
                    text = f"the {kind} is called {name}: {wanted} is there already"
                    out.notes.append(item.note(text, "metadata", "name"))
                return name
        raise AssertionError("numbers do not end")


_NAMED = {
    InferenceObjective.KIND.kind: (InferenceObjective, ExperimentalInferenceObjective),
    InferenceModelRewrite.KIND.kind: (InferenceModelRewrite, ExperimentalInferenceModelRewrite),
}

_MADE_ANEW = (InferencePoolV1Alpha2, InferenceModel)
"""Of these only what is known goes over; the others keep their spec as it is written."""

_LONGEST_NAME = 253


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        end = f"-{number}"
        yield name[: _LONGEST_NAME - len(end)].rstrip("-.") + end
        number += 1


def _names(rewrite: AnyRewrite) -> set[str]:
    """What a rewrite speaks of, in words."""
    rules = rewrite.spec.rules
    exact = {repr(match.model.value) for rule in rules for match in rule.matches}
    return exact | ({"all names"} if any(not rule.matches for rule in rules) else set())


def _ages_differ(one: InferenceModel, other: InferenceModel) -> bool:
    return one.metadata.creation_timestamp != other.metadata.creation_timestamp


def _object(kind: Kind, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": metadata,
        "spec": spec,
    }


def _pool_ref(name: str) -> dict[str, Any]:
    return {"group": GROUP, "kind": InferencePool.KIND.kind, "name": name}


def _metadata(item: Item) -> dict[str, Any]:
    """The older object's, without what belongs to that object alone."""
    kept = {
        key: value
        for key, value in item.data["metadata"].items()
        if key not in _OF_THE_SERVER and key not in ("annotations", "finalizers")
    }
    annotations = {
        key: value
        for key, value in (item.data["metadata"].get("annotations") or {}).items()
        if key != _LAST_APPLIED
    }
    return kept | ({"annotations": annotations} if annotations else {})


def _left_out(item: Item) -> Iterator[Note]:
    data = item.data
    if data.get("status"):
        yield item.note("the status is left out: it is written anew", "status")
    if data["metadata"].get("finalizers"):
        text = "finalizers are left out: who set them waits for the older object"
        yield item.note(text, "metadata", "finalizers")
    if not isinstance(item.parsed.resource, _MADE_ANEW):
        return
    for problem in item.parsed.problems:
        place = item.parsed.origin._replace(line=problem.line)
        yield Note(place, item.subject, f"{problem.field}: {problem.message}; it is left out")
