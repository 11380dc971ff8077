from __future__ import annotations

from fractions import Fraction
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.gateway import names
from pointsman.inference.migration.migrate import migrate
from pointsman.inference.models import PoolModels, ServedModel, pool_models
from pointsman.resources.documents import read
from pointsman.resources.parse import parse_text, unpacked
from pointsman.store import Store

POOL = """
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: llama}
spec: {targetPortNumber: 8000, selector: {app: llama}, extensionRef: {name: chooser}}
"""
POOL_TODAY = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama}
spec:
  selector: {matchLabels: {app: llama}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: chooser, port: {number: 9002}}
"""
MODEL = """
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: food}
spec:
  modelName: food
  criticality: Critical
  poolRef: {name: llama}
  targetModels: [{name: food-1, weight: 9}, {name: food-2, weight: 1}]
"""
X_REWRITE = """
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {name: aliases}
spec:
  poolRef: {group: inference.networking.x-k8s.io, name: llama}
  rules: [{targets: [{modelRewrite: default-model}]}]
"""
X_OBJECTIVE = """
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -5, poolRef: {name: llama}}
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat}
spec:
  rules:
    - backendRefs:
        - {group: inference.networking.x-k8s.io, kind: InferencePool, name: llama}
        - {name: web, port: 80}
"""


def run(*texts: str) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """All objects afterwards, the notes and the problems."""
    documents, faults = read("---".join(dedent(text) for text in texts), "a.yaml")
    assert faults == []
    items = [item for whole in documents for item in unpacked(whole)]
    found = migrate(items, names.pool)
    objects = [
        one
        for item, new in zip(items, found.replacements, strict=True)
        for one in (new if new is not None else (item.data,))
    ]
    return objects, [str(note) for note in found.notes], [str(item) for item in found.problems]


def text_of(objects: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(objects)


def models(text: str) -> PoolModels:
    store = Store()
    parsed = parse_text(text, "b.yaml", strict=True)
    assert [str(problem) for item in parsed for problem in item.problems] == []
    store.apply(item.resource for item in parsed if item.resource is not None)
    return pool_models(store, "default", "llama")


def loaded(text: str) -> Any:
    return yaml.safe_load(text)


def test_a_pool_becomes_a_pool_of_today() -> None:
    assert run(POOL) == ([loaded(POOL_TODAY)], [], [])


def test_what_a_pool_says_of_its_picker_stays() -> None:
    text = POOL.replace("{name: chooser}", "{name: c, portNumber: 9, failureMode: FailOpen}")

    (pool,), _, _ = run(text)

    reference = {"name": "c", "port": {"number": 9}, "failureMode": "FailOpen"}
    assert pool["spec"]["endpointPickerRef"] == reference


def test_labels_and_annotations_stay_and_what_the_server_wrote_goes() -> None:
    metadata = """{name: llama, namespace: prod, labels: {team: a}, uid: u, resourceVersion: "7",
      generation: 3, creationTimestamp: "2026-01-01T00:00:00Z", finalizers: [a/b], annotations: {
      a: b, kubectl.kubernetes.io/last-applied-configuration: "{}"}}"""

    (pool,), notes, _ = run(POOL.replace("{name: llama}", metadata) + "status: {parent: []}\n")

    assert pool["metadata"] == {
        "name": "llama",
        "namespace": "prod",
        "labels": {"team": "a"},
        "annotations": {"a": "b"},
    }
    assert "status" not in pool
    assert [note.partition("default")[0] for note in notes] == notes
    assert any("the status is left out" in note for note in notes)
    assert any("finalizers are left out" in note for note in notes)


def test_a_pool_that_selects_nothing_stays_and_is_an_error() -> None:
    text = POOL.replace("{app: llama}", "{}")

    objects, notes, problems = run(text)

    assert objects == [loaded(text)]
    assert notes == []
    assert problems[0].startswith("a.yaml:5: spec.selector: selects nothing")


def test_a_pool_that_is_there_in_both_generations_stays_as_the_newer() -> None:
    other = POOL_TODAY.replace("app: llama", "app: other")

    objects, notes, _ = run(POOL, other)

    assert objects == [loaded(other)]
    assert len(notes) == 1
    assert "has it in inference.networking.k8s.io/v1 already" in notes[0]


def test_an_older_object_that_is_wrong_stays_and_is_an_error() -> None:
    text = POOL.replace("8000", "800000")

    objects, _, problems = run(text, POOL.replace("v1alpha2", "v1alpha1"))

    assert objects == [loaded(text), loaded(POOL.replace("v1alpha2", "v1alpha1"))]
    assert problems[0] == "a.yaml:5: spec.targetPortNumber: must be at most 65535, is 800000"
    assert "must be inference.networking.x-k8s.io/v1alpha2" in problems[1]


def test_an_unknown_field_is_left_out_with_a_word() -> None:
    (pool,), notes, _ = run(POOL.replace("spec: {", "spec: {targetPort: 7, "))

    assert pool == loaded(POOL_TODAY)
    assert "spec.targetPort: unknown field, did you mean 'targetPortNumber'" in notes[0]
    assert notes[0].endswith("; it is left out")


def test_a_model_becomes_an_objective_and_a_rewrite() -> None:
    objects, notes, problems = run(POOL_TODAY, MODEL)

    pool_ref = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "llama"}
    assert objects[1:] == [
        {
            "apiVersion": "llm-d.ai/v1alpha2",
            "kind": "InferenceObjective",
            "metadata": {"name": "food"},
            "spec": {"priority": 1, "poolRef": pool_ref},
        },
        {
            "apiVersion": "llm-d.ai/v1alpha2",
            "kind": "InferenceModelRewrite",
            "metadata": {"name": "food"},
            "spec": {
                "poolRef": pool_ref,
                "rules": [
                    {
                        "matches": [{"model": {"type": "Exact", "value": "food"}}],
                        "targets": [
                            {"modelRewrite": "food-1", "weight": 9},
                            {"modelRewrite": "food-2", "weight": 1},
                        ],
                    }
                ],
            },
        },
    ]
    assert problems == []
    assert len(notes) == 2
    assert notes[0].startswith("a.yaml:10: InferenceModel default/food: InferencePool default/")
    assert "now every name goes on to its servers" in notes[0]
    assert notes[1].startswith("a.yaml:15: ")
    assert "a request must carry 'x-gateway-inference-objective: food'" in notes[1]


@pytest.mark.parametrize(
    ("criticality", "priority", "words"),
    [
        ("Critical", 1, "priority 1 of InferenceObjective food"),
        ("Standard", 0, "Standard gave way while the pool was saturated, and 0 does not"),
        ("Sheddable", -1, "what is below 0 gives way"),
    ],
)
def test_a_criticality_is_a_priority(criticality: str, priority: int, words: str) -> None:
    objects, notes, _ = run(MODEL.replace("Critical", criticality))

    assert objects[0]["spec"]["priority"] == priority
    assert any(words in note for note in notes)


def test_a_model_without_criticality_needs_no_objective() -> None:
    objects, notes, _ = run(MODEL.replace("  criticality: Critical\n", ""))

    assert [item["kind"] for item in objects] == ["InferenceModelRewrite"]
    assert any("no criticality counted as Standard" in note for note in notes)


@pytest.mark.parametrize("targets", ["[]", "[{name: food}]", "[{name: food, weight: 5}]"])
def test_a_model_that_stays_itself_needs_no_rewrite(targets: str) -> None:
    text = MODEL.replace("[{name: food-1, weight: 9}, {name: food-2, weight: 1}]", targets)

    objects, _, _ = run(text)

    assert [item["kind"] for item in objects] == ["InferenceObjective"]


def test_a_model_that_stays_itself_is_kept_from_a_rule_for_all_names() -> None:
    text = MODEL.replace(
        "  targetModels: [{name: food-1, weight: 9}, {name: food-2, weight: 1}]\n", ""
    )

    objects, _, _ = run(text, X_REWRITE)

    after = models(text_of(objects)).meaning("food")
    assert after is not None
    assert [target.name for target in after.targets] == ["food"]


def test_where_a_rewrite_had_the_last_word_it_still_has() -> None:
    rewrite = X_REWRITE.replace("{targets", "{matches: [{model: {value: food}}], targets")

    objects, notes, _ = run(MODEL, rewrite)

    assert [item["kind"] for item in objects] == ["InferenceObjective", "InferenceModelRewrite"]
    assert objects[1]["metadata"]["name"] == "aliases"
    assert any("says what 'food' becomes, as it did before" in note for note in notes)


def test_of_two_models_with_one_name_only_the_older_goes_over() -> None:
    older = MODEL.replace("{name: food}", '{name: z, creationTimestamp: "2026-01-01T00:00:00Z"}')
    newer = MODEL.replace("{name: food}", '{name: a, creationTimestamp: "2026-01-02T00:00:00Z"}')

    objects, notes, _ = run(newer, older)

    assert {item["metadata"]["name"] for item in objects} == {"z"}
    assert any(
        note.startswith(
            "a.yaml:6: InferenceModel default/a: the name 'food' belongs to "
            "InferenceModel default/z (a.yaml:11), which is older"
        )
        for note in notes
    )


def test_a_name_that_is_taken_gets_a_number_and_a_word() -> None:
    taken = X_OBJECTIVE.replace("name: batch", "name: food")

    objects, notes, _ = run(MODEL, taken)

    found = [item["metadata"]["name"] for item in objects if item["kind"] == "InferenceObjective"]
    assert found == ["food-2", "food"]
    assert any("is called food-2: food is there already" in note for note in notes)
    assert any("'x-gateway-inference-objective: food-2'" in note for note in notes)


def test_models_of_one_name_in_two_namespaces_do_not_meet() -> None:
    other = MODEL.replace("{name: food}", "{name: food, namespace: prod}")

    objects, _, _ = run(MODEL, other)

    assert {item["metadata"]["name"] for item in objects} == {"food"}
    assert len(objects) == 4


def test_a_model_of_something_that_is_no_pool_stays_and_is_an_error() -> None:
    text = MODEL.replace("{name: llama}", "{kind: Service, name: llama}")

    objects, notes, problems = run(text)

    assert objects == [loaded(text)]
    assert notes == []
    assert problems[0].startswith("a.yaml:8: spec.poolRef: names the Service llama")


def test_objectives_and_rewrites_move_to_their_newer_group() -> None:
    objects, _, problems = run(X_OBJECTIVE, X_REWRITE)

    assert problems == []
    assert [item["apiVersion"] for item in objects] == ["llm-d.ai/v1alpha2"] * 2
    assert objects[0]["spec"] == loaded(X_OBJECTIVE)["spec"]
    assert objects[1]["spec"]["poolRef"] == {
        "group": "inference.networking.k8s.io",
        "name": "llama",
    }
    assert objects[1]["spec"]["rules"] == loaded(X_REWRITE)["spec"]["rules"]


def test_a_priority_that_has_no_room_becomes_the_nearest() -> None:
    objects, notes, _ = run(X_OBJECTIVE.replace("-5", "5000000000"))

    assert objects[0]["spec"]["priority"] == 2147483647
    assert "priority 5000000000 has no room in 32 bits" in notes[0]


def test_an_object_of_both_groups_stays_as_the_newer() -> None:
    newer = X_OBJECTIVE.replace("inference.networking.x-k8s.io", "llm-d.ai").replace("-5", "3")

    objects, notes, _ = run(X_OBJECTIVE, newer)

    assert objects == [loaded(newer)]
    assert "has it in llm-d.ai/v1alpha2 already, which counts" in notes[0]


def test_rewrites_that_speak_of_one_name_are_told() -> None:
    newer = X_REWRITE.replace("inference.networking.x-k8s.io/", "llm-d.ai/").replace(
        "aliases", "others"
    )

    _, notes, _ = run(X_REWRITE, newer)

    assert len(notes) == 1
    assert "speaks of all names too; the older counts, and this one is new" in notes[0]


def test_the_second_of_two_objects_with_one_name_is_left_out() -> None:
    objects, notes, _ = run(POOL, POOL)

    assert objects == [loaded(POOL_TODAY)]
    assert notes == [
        "a.yaml:7: InferencePool default/llama: stands in a.yaml:2 already, which counts; "
        "it is left out"
    ]


def test_a_route_names_the_pool_of_today() -> None:
    objects, notes, _ = run(POOL, ROUTE)

    assert objects[1]["spec"]["rules"][0]["backendRefs"] == [
        {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "llama"},
        {"name": "web", "port": 80},
    ]
    assert notes == []


def test_a_route_to_a_pool_elsewhere_is_told_of_once() -> None:
    grpc = ROUTE.replace("HTTPRoute", "GRPCRoute")

    objects, notes, _ = run(ROUTE, grpc)

    for item in objects:
        group = item["spec"]["rules"][0]["backendRefs"][0]["group"]
        assert group == "inference.networking.k8s.io"
    assert len(notes) == 1
    assert "InferencePool default/llama is not in these files" in notes[0]


def test_mirrors_grants_and_policies_name_the_pool_of_today() -> None:
    pool = "{group: inference.networking.x-k8s.io, kind: InferencePool, name: llama}"
    mirror = f"""
    apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {{name: mirrored}}
    spec: {{rules: [{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {pool}}}}}]}}]}}
    """
    grant = """
    apiVersion: gateway.networking.k8s.io/v1beta1
    kind: ReferenceGrant
    metadata: {name: routes}
    spec:
      from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}]
      to: [{group: inference.networking.x-k8s.io, kind: InferencePool}]
    """
    policy = f"""
    apiVersion: gateway.networking.k8s.io/v1
    kind: BackendTLSPolicy
    metadata: {{name: tls}}
    spec: {{targetRefs: [{pool}], validation: {{hostname: a.b, wellKnownCACertificates: System}}}}
    """

    objects, notes, _ = run(POOL, mirror, grant, policy)

    assert "x-k8s.io" not in text_of(objects)
    assert notes == []


def test_statuses_of_others_are_not_rewritten() -> None:
    text = POOL_TODAY + "status: {a: {group: inference.networking.x-k8s.io, kind: InferencePool}}\n"

    assert run(text)[0] == [loaded(text)]


def test_rights_on_older_kinds_are_given_on_those_of_today_too() -> None:
    role = """
    apiVersion: rbac.authorization.k8s.io/v1
    kind: ClusterRole
    metadata: {name: picker}
    rules:
      - {apiGroups: [""], resources: [pods], verbs: [get, watch, list]}
      - apiGroups: [inference.networking.x-k8s.io]
        resources: [inferencepools, inferencemodels]
        verbs: [get, watch, list]
    """

    objects, notes, _ = run(role)

    verbs = ["get", "watch", "list"]
    assert objects[0]["rules"][2:] == [
        {
            "apiGroups": ["inference.networking.k8s.io"],
            "resources": ["inferencepools"],
            "verbs": verbs,
        },
        {
            "apiGroups": ["llm-d.ai"],
            "resources": ["inferenceobjectives", "inferencemodelrewrites"],
            "verbs": verbs,
        },
    ]
    assert len(notes) == 1
    assert run(text_of(objects))[0] == objects


def test_a_picker_is_told_the_group_of_today() -> None:
    deployment = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: picker}
    spec:
      selector: {matchLabels: {app: picker}}
      template:
        metadata: {labels: {app: picker}}
        spec:
          containers:
            - name: a
              args: [--pool-group, inference.networking.x-k8s.io]
            - name: b
              args: ["-pool-group=inference.networking.x-k8s.io", -v, "3"]
    """

    objects, notes, _ = run(deployment)

    first, second = objects[0]["spec"]["template"]["spec"]["containers"]
    assert first["args"] == ["--pool-group", "inference.networking.k8s.io"]
    assert second["args"] == ["-pool-group=inference.networking.k8s.io", "-v", "3"]
    assert notes == []


def test_a_picker_of_the_older_generation_is_told_of() -> None:
    deployment = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: picker}
    spec:
      selector: {matchLabels: {app: picker}}
      template:
        metadata: {labels: {app: picker}}
        spec: {containers: [{name: epp, args: [-poolName, llama]}]}
    """

    objects, notes, _ = run(POOL, deployment)

    assert objects[1] == loaded(deployment)
    assert len(notes) == 1
    assert "one that reads v1 must take its place" in notes[0]
    assert run(text_of(objects))[1] == []


def test_patches_name_the_clusters_of_today() -> None:
    patch = """
    apiVersion: gateway.envoyproxy.io/v1alpha1
    kind: EnvoyPatchPolicy
    metadata: {name: patch}
    spec:
      targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gw}
      type: JSONPatch
      jsonPatches:
        - type: type.googleapis.com/envoy.config.cluster.v3.Cluster
          name: xinferencepool/default/llama
          operation: {op: add, path: /connect_timeout, value: 2s}
        - type: type.googleapis.com/envoy.config.cluster.v3.Cluster
          name: xinferencepool/default/llama/picker
          operation: {op: add, path: /connect_timeout, value: 2s}
        - type: type.googleapis.com/envoy.config.cluster.v3.Cluster
          name: xinferencepool/default/llama-2
          operation: {op: add, path: /connect_timeout, value: 2s}
    """

    objects, _, _ = run(POOL, patch)

    assert [item["name"] for item in objects[1]["spec"]["jsonPatches"]] == [
        "inferencepool/default/llama",
        "inferencepool/default/llama/picker",
        "xinferencepool/default/llama-2",
    ]


def test_items_of_a_list_are_migrated_each() -> None:
    text = """
    apiVersion: v1
    kind: List
    items:
    - apiVersion: inference.networking.x-k8s.io/v1alpha2
      kind: InferenceModel
      metadata: {name: food}
      spec: {modelName: food, poolRef: {name: llama}, targetModels: [{name: f}]}
    """

    objects, notes, _ = run(text)

    assert [item["kind"] for item in objects] == ["InferenceModelRewrite"]
    assert all(note.startswith(("a.yaml:5:", "a.yaml:8:")) for note in notes)


NAMES = st.sampled_from(["a", "b", "c", "d"])
TARGETS = st.lists(NAMES, max_size=3)


@st.composite
def older_models(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for index in range(draw(st.integers(0, 5))):
        weighted = draw(st.booleans())
        targets: list[dict[str, Any]] = [
            {"name": name, **({"weight": draw(st.integers(1, 9))} if weighted else {})}
            for name in draw(TARGETS)
        ]
        spec: dict[str, Any] = {"modelName": draw(NAMES), "poolRef": {"name": "llama"}}
        if criticality := draw(st.sampled_from([None, "Critical", "Standard", "Sheddable"])):
            spec["criticality"] = criticality
        if targets:
            spec["targetModels"] = targets
        found.append(
            {
                "apiVersion": "inference.networking.x-k8s.io/v1alpha2",
                "kind": "InferenceModel",
                "metadata": {
                    "name": f"m{index}",
                    "creationTimestamp": f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
                },
                "spec": spec,
            }
        )
    return found


def shares(served: ServedModel) -> dict[str, Fraction]:
    whole = sum(target.weight for target in served.targets)
    found: dict[str, Fraction] = {}
    for target in served.targets:
        found[target.name] = found.get(target.name, Fraction()) + Fraction(target.weight, whole)
    return found


@given(older=older_models(), has_rule_for_all=st.booleans())
@settings(deadline=None, max_examples=60)
def test_every_name_that_was_served_still_becomes_what_it_became(
    older: list[dict[str, Any]], has_rule_for_all: bool
) -> None:
    extra = [loaded(X_REWRITE)] if has_rule_for_all else []
    before = models(text_of([loaded(POOL), *older, *extra]))

    objects, _, problems = run(text_of([loaded(POOL), *older, *extra]))
    after = models(text_of(objects))

    assert problems == []
    for name in ("a", "b", "c", "d"):
        was, now = before.meaning(name), after.meaning(name)
        assert now is not None
        if was is not None:
            assert shares(was) == shares(now)
    again, notes, _ = run(text_of(objects))
    assert again == objects
    assert notes == []
