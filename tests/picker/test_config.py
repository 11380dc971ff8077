"""EndpointPickerConfig: what it means, and every fault told at once."""

from __future__ import annotations

import random
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.picker.config import ConfigError, PickerConfig, read_config
from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.endpoints.table import Seen
from pointsman.picker.scheduling import labels
from pointsman.picker.scheduling.memory import NoHitLru
from pointsman.picker.scheduling.parameters import Plugin
from pointsman.picker.scheduling.plugins import BUILT_IN, LATER, PARAMETERS, factories
from pointsman.picker.scheduling.profile import DEFAULT, Picking, choose
from pointsman.picker.scheduling.request import Wanted
from pointsman.resources.selectors import LabelSelector

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


def read(text: str) -> PickerConfig:
    return read_config(HEAD + textwrap.dedent(text))


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        read(text)
    return list(error.value.problems)


def server(name: str, requests: int = 0, tokens: int = 0, **measures: Any) -> Seen:
    found = measures.pop("labels", {})
    return Seen(name, Measures(0.0, **measures) if measures else None, requests, tokens, found)


def test_without_plugins_it_is_the_default_profile() -> None:
    assert read("").profiles == {"default": DEFAULT}
    older = read_config(
        "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig"
    )
    assert older.profiles == {"default": DEFAULT}


def test_the_references_default_configuration() -> None:
    config = read(
        """
        plugins:
        - type: queue-scorer
        - type: kv-cache-utilization-scorer
        - type: prefix-cache-scorer
        - type: metrics-data-source
        - type: core-metrics-extractor
        - type: single-profile-handler
        schedulingProfiles:
        - name: default
          plugins:
          - {pluginRef: queue-scorer, weight: 2}
          - {pluginRef: kv-cache-utilization-scorer, weight: 2}
          - {pluginRef: prefix-cache-scorer, weight: 3}
        dataLayer:
          sources:
          - pluginRef: metrics-data-source
            extractors: [{pluginRef: core-metrics-extractor}]
        """
    )
    profile = config.profiles["default"]
    assert [(scorer.name, scorer.weight) for scorer in profile.scorers] == [
        ("queue-scorer", 2),
        ("kv-cache-utilization-scorer", 2),
        ("prefix-cache-scorer", 3),
    ]
    assert profile.picking is Picking.MAX_SCORE
    assert profile.max_endpoints == 1


def test_without_profiles_every_plugin_is_in_the_one_there_is() -> None:
    profile = read(
        """
        plugins:
        - {type: decode-filter}
        - {name: q, type: queue-scorer}
        - {type: weighted-random-picker, parameters: {maxNumOfEndpoints: 2}}
        """
    ).profiles["default"]
    assert [step.name for step in profile.filters] == ["decode-filter"]
    assert [scorer.name for scorer in profile.scorers] == ["q"]
    assert (profile.picking, profile.max_endpoints) == (Picking.WEIGHTED_RANDOM, 2)


def test_profiles_are_chosen_by_a_header() -> None:
    config = read(
        """
        plugins:
        - {type: header-profile-handler, parameters: {headerName: X-P, defaultProfile: a}}
        - {type: queue-scorer}
        - {type: random-picker}
        schedulingProfiles:
        - {name: a, plugins: [{pluginRef: queue-scorer}]}
        - {name: b, plugins: [{pluginRef: random-picker}]}
        """
    )
    assert config.profile({}) is config.profiles["a"]
    assert config.profile({"x-p": "b"}) is config.profiles["b"]
    assert config.profile({"x-p": "c"}) is None


def test_saturation_is_measured_as_configured() -> None:
    config = read(
        """
        plugins:
        - {name: s, type: concurrency-detector, parameters: {maxConcurrency: 10}}
        flowControl: {saturationDetector: {pluginRef: s}}
        """
    )
    counts = [server("a", requests=5), server("b", requests=15)]
    assert config.detector(counts) == 1.0
    assert config.detector([]) == 0.0


def test_every_fault_is_told_with_its_place() -> None:
    assert faults(
        """
        featureGates: [flowControl, flowControll=true]
        plugins:
        - {type: queue-scorr}
        - {type: latency-scorer}
        - {type: token-load-scorer, parameters: {queueThresholdToken: 5}}
        - {type: random-picker, parameters: {maxNumOfEndpoints: 0}}
        - {type: random-picker}
        schedulingProfiles:
        - {name: a, plugins: [{pluginRef: que-scorer}]}
        - {name: a, plugins: []}
        saturationDetector: {pluginRef: random-picker}
        """
    ) == [
        "featureGates[0]: queues are not part of this version yet",
        "featureGates[1]: feature gate 'flowControll' is not known; did you mean 'flowControl'?",
        "plugins[0].type: plugin type 'queue-scorr' is not known; did you mean 'queue-scorer'?",
        "plugins[1].type: latency-scorer is not part of this version yet: "
        "it needs predictions of latency",
        "plugins[2].parameters.queueThresholdToken: field 'queueThresholdToken' is not known; "
        "did you mean 'queueThresholdTokens'?",
        "plugins[3].parameters.maxNumOfEndpoints: Input should be greater than or equal to 1",
        "plugins[4].name: 'random-picker' is the name of an earlier plugin",
        "schedulingProfiles[0].plugins[0].pluginRef: plugin 'que-scorer' is not known; "
        "did you mean 'queue-scorr'?",
        "schedulingProfiles[1].name: 'a' is the name of an earlier profile",
        "saturationDetector.pluginRef: 'random-picker' is no detector",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("plugin: []", "plugin: field 'plugin' is not known; did you mean 'plugins'?"),
        (
            "schedulingProfiles: [{name: a, plugins: [{pluginReff: x}]}]",
            "schedulingProfiles[0].plugins[0].pluginReff: field 'pluginReff' is not known; "
            "did you mean 'pluginRef'?",
        ),
        (
            "schedulingProfiles: [{name: a}, {name: b}]",
            "schedulingProfiles: several profiles need a plugin of type header-profile-handler",
        ),
        (
            "plugins: [{type: random-picker}, {type: max-score-picker}]",
            "schedulingProfiles[0].plugins[1]: the profile already has the picker 'random-picker'",
        ),
    ],
)
def test_faults(text: str, fault: str) -> None:
    assert fault in faults(text)


@pytest.mark.parametrize("text", ["", "[]", "a: [", "- 1", "kind: Pod\napiVersion: v1\n"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_config(text)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["plugins", "type", "name", "parameters", "pluginRef"]), x
            )
        ),
        max_leaves=8,
    )
)
def test_no_configuration_breaks_it(value: Any) -> None:
    import yaml

    text = yaml.safe_dump({"plugins": value, "kind": "EndpointPickerConfig", "apiVersion": "x"})
    with pytest.raises(ConfigError):
        read_config(text)


def test_no_type_is_both_there_and_not() -> None:
    assert not set(PARAMETERS) & set(LATER)
    assert not BUILT_IN & set(LATER)
    required: dict[str, dict[str, Any]] = {
        "by-label": {"label": "a", "validValues": ["b"]},
        "header-label-affinity-scorer": {"headerName": "h", "labelKey": "l"},
        "endpoint-attribute-filter": {
            "attribute": "a",
            "algorithm": {"type": "threshold", "threshold": {"operator": "Equal", "value": 1}},
        },
        "endpoint-attribute-scorer": {
            "attributeKey": "a",
            "algorithm": {"type": "linear_lower_is_better"},
        },
        "utilization-filter": {"conditions": [{"metric": "waiting-queue", "maxValue": 3}]},
    }
    for name, factory in factories().items():
        assert isinstance(factory(required.get(name, {})), Plugin)


MINE = """
from pointsman.picker.scheduling.parameters import Plugin

def favourite(parameters):
    first = parameters["first"]
    def score(endpoints, wanted):
        return [1.0 if endpoint.address == first else 0.0 for endpoint in endpoints]
    return Plugin(scorer=score)
"""


def install(folder: Path, value: str) -> None:
    """What an installer leaves of a package with one plugin."""
    (folder / "pointsman_test_mine.py").write_text(MINE)
    info = folder / "pointsman_test_mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pointsman-test-mine\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        f"[pointsman.picker.plugins]\nfavourite-scorer = {value}\n"
    )


def test_a_plugin_of_ones_own_is_found_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "pointsman_test_mine:favourite")
    monkeypatch.syspath_prepend(tmp_path)
    config = read("plugins: [{type: favourite-scorer, parameters: {first: b}}]")
    chosen = choose(
        config.profiles["default"], [server("a"), server("b")], Wanted(), random.Random(1)
    )
    assert chosen[0].address == "b"
    assert "plugins[0].parameters: KeyError: 'first'" in faults(
        "plugins: [{type: favourite-scorer}]"
    )


def test_a_plugin_that_cannot_be_loaded_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "pointsman_test_mine:missing")
    monkeypatch.syspath_prepend(tmp_path)
    (first, *_) = faults("plugins: [{type: favourite-scorer}]")
    assert first.startswith("the plugin 'favourite-scorer' (pointsman_test_mine:missing) cannot be")


def test_weighted_random_has_chances_as_the_totals() -> None:
    config = read(
        """
        plugins:
        - {type: kv-cache-utilization-scorer}
        - {type: weighted-random-picker}
        """
    )
    servers = [server("a", kv_cache=0.25), server("b", kv_cache=0.75), server("c", kv_cache=1.0)]
    rng = random.Random(3)
    found = Counter(
        choose(config.profiles["default"], servers, Wanted(), rng)[0].address for _ in range(4_000)
    )
    assert found["c"] == 0
    assert 2_850 <= found["a"] <= 3_150


SERVERS = [server("a"), server("b"), server("c")]
COLD = Wanted("m")
WARM = Wanted("m", cached_tokens={"a": 64}, hashed_tokens=64)


def test_no_hit_lru() -> None:
    memory = NoHitLru()
    assert memory.score(SERVERS, COLD) == [1, 0.5, 0]
    assert memory.score(SERVERS, WARM) == [0.5, 0.5, 0.5]
    assert memory.score(SERVERS[:1], COLD) == [1]
    memory.picked("a", COLD)
    assert memory.score(SERVERS, COLD) == [0, 1, 0.5]
    memory.picked("b", COLD)
    memory.picked("c", WARM)
    assert memory.score(SERVERS, COLD) == [0.5, 0, 1]


def labelled(**found: str) -> Seen:
    return server("x", labels={name.replace("_", "-"): value for name, value in found.items()})


def test_labels() -> None:
    red, blue, bare = labelled(color="red"), labelled(color="blue"), labelled()
    every = [red, blue, bare]
    selector = LabelSelector.model_validate({"matchLabels": {"color": "red"}})
    assert labels.by_selector(every, COLD, selector=selector) == [red]
    values = frozenset({"blue"})
    assert labels.by_label(every, COLD, label="color", values=values) == [blue]
    kept = labels.by_label(every, COLD, label="color", values=values, allows_none=True)
    assert kept == [blue, bare]
    wanted = Wanted(headers={"x-color": "red"})
    scores = labels.header_label_affinity(every, wanted, header="x-color", label="color")
    assert scores == [1, 0, 0]


def test_context_length() -> None:
    def score(text: str | None, length: int) -> float:
        found = server("x", labels={} if text is None else {labels.CONTEXT_LABEL: text})
        return labels.context_length([found], Wanted(prompt_tokens=length))[0]

    assert score(None, 5) == 0.5
    assert score("nonsense", 5) == 0.0
    assert score("5-5", 5) == 1.0
    assert score("0-15000", 14_999) > 0.3 > score("15001-20000", 14_999)
    fitting = server("x", labels={labels.CONTEXT_LABEL: "0-10,20-30"})
    other = server("y", labels={labels.CONTEXT_LABEL: "11-19"})
    keep = labels.in_context_length
    assert keep([fitting, other], Wanted(prompt_tokens=25)) == [fitting]
    assert keep([fitting, other], Wanted(prompt_tokens=99)) == [fitting, other]


def affinity(config: PickerConfig, endpoints: list[Seen], wanted: Wanted) -> list[Any]:
    return list(config.profiles["default"].filters[0].apply(endpoints, wanted))


def test_the_references_affinity_filter() -> None:
    config = read(
        "plugins: [{type: prefix-cache-affinity-filter, parameters: {maxTTFTPenaltyMs: 100}}]"
    )
    wanted = Wanted(cached_tokens={"a": 90, "b": 85, "c": 10}, hashed_tokens=100)
    assert affinity(config, SERVERS, wanted) == SERVERS[:2]
    slow = [server("a", tokens=8_000), server("b", tokens=8_000), server("c")]
    assert affinity(config, slow, wanted) == slow
    patient = read("plugins: [{type: prefix-cache-affinity-filter}]")
    assert affinity(patient, slow, wanted) == slow[:2]
    curious = read(
        "plugins: [{type: prefix-cache-affinity-filter, parameters: {explorationProbability: 1}}]"
    )
    explored = Wanted(cached_tokens={"a": 90}, hashed_tokens=100, draw=0.5)
    assert affinity(curious, SERVERS, explored) == SERVERS


def test_limits_and_detectors_as_filters() -> None:
    limited = read(
        """
        plugins:
        - type: utilization-filter
          parameters: {conditions: [{metric: waiting-queue, maxValue: 3}]}
        """
    )
    calm, busy = server("a", waiting=3), server("b", waiting=4)
    assert affinity(limited, [calm, busy], COLD) == [calm]
    assert affinity(limited, [busy], COLD) == []
    detector = read("plugins: [{type: utilization-detector}]")
    full = server("c", waiting=9)
    assert affinity(detector, [calm, full], COLD) == [calm]
    assert affinity(detector, [full], COLD) == [full]
    counted = read("plugins: [{type: concurrency-detector, parameters: {maxConcurrency: 2}}]")
    assert affinity(counted, [server("a", 1), server("b", 2)], COLD) == [server("a", 1)]
