"""Choosing by metrics of one's own, and turning away by chance."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman.picker.config import ConfigError, PickerConfig, read_config
from pointsman.picker.endpoints.measures import Measures, read_measures
from pointsman.picker.endpoints.table import Seen
from pointsman.picker.scheduling.media import media_of
from pointsman.picker.scheduling.request import Wanted

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
ANY = Wanted("m")


def plugin(kind: str, parameters: str) -> PickerConfig:
    return read_config(f"{HEAD}plugins: [{{type: {kind}, parameters: {{{parameters}}}}}]")


def servers(*values: float | None) -> list[Seen]:
    """Servers whose attribute `a` has these values; None: it was never told."""
    found = []
    for place, value in enumerate(values):
        custom = {} if value is None else {"a": value}
        found.append(Seen(str(place), Measures(0.0, custom=custom), 0, 0))
    return found


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ("operator: LessThan, value: 5", "0234"),
        ("operator: LessThan, value: 4", "034"),
        ("operator: LessThanOrEqual, value: 4", "0234"),
        ("operator: GreaterThan, value: 4", "14"),
        ("operator: GreaterThanOrEqual, value: 4", "124"),
        ("operator: Equal, value: 4", "24"),
        ("operator: NotEqual, value: 4", "0134"),
    ],
)
def test_a_filter_compares_one_number(parameters: str, kept: str) -> None:
    config = plugin(
        "endpoint-attribute-filter",
        f"attribute: a, algorithm: {{type: threshold, threshold: {{{parameters}}}}}",
    )
    (step,) = config.profiles["default"].filters
    found = step.apply(servers(3, 9, 4, 0, None), ANY)
    assert "".join(each.address for each in found) == kept


def test_a_filter_says_what_becomes_of_the_missing_and_of_none() -> None:
    algorithm = "algorithm: {type: threshold, threshold: {operator: LessThan, value: 1}}"
    every = servers(3, None)

    def kept(more: str) -> str:
        config = plugin("endpoint-attribute-filter", f"attribute: a, {algorithm}{more}")
        found = config.profiles["default"].filters[0].apply(every, ANY)
        return "".join(each.address for each in found)

    assert kept("") == "1"
    assert kept(", onMissing: Fail") == ""
    assert kept(", onMissing: Fail, fallbackOnEmpty: true") == "01"


@pytest.mark.parametrize(
    ("algorithm", "values", "expected"),
    [
        ("type: linear_lower_is_better", (10, 5, 0), [0, 0.5, 1]),
        ("type: linear_higher_is_better", (10, 5, 0), [1, 0.5, 0]),
        ("type: linear_higher_is_better", (10, None, 0), [1, 0, 0]),
        ("type: linear_lower_is_better", (7, 7, None), [1, 1, 0]),
        ("type: linear_lower_is_better", (None, None), [0, 0]),
        (
            "type: linear_lower_is_better, normalization: {fixedRange: {min: 0, max: 1}}",
            (0.25, 3, -1, None),
            [0.75, 0, 1, 0],
        ),
        ("type: linear_lower_is_better, normalization: {adaptiveRange: {}}", (1, 0), [0, 1]),
    ],
)
def test_a_scorer_ranks_by_one_number(
    algorithm: str, values: tuple[float | None, ...], expected: list[float]
) -> None:
    config = plugin("endpoint-attribute-scorer", f"attributeKey: a, algorithm: {{{algorithm}}}")
    (scorer,) = config.profiles["default"].scorers
    assert scorer.score(servers(*values), ANY) == pytest.approx(expected)


def test_what_the_picker_knows_anyway_has_a_name() -> None:
    config = plugin(
        "endpoint-attribute-scorer",
        "attributeKey: WaitingQueueSize, algorithm: {type: linear_lower_is_better}",
    )
    queues = [Seen(str(n), Measures(0.0, waiting=n), 0, 0) for n in (4, 2)]
    queues.append(Seen("silent", None, 0, 0))
    assert config.profiles["default"].scorers[0].score(queues, ANY) == [0, 1, 0]


TEXT = b"""
my_queue{tier="gold"} 3
my_queue{tier="iron"} 8
my_running 2
spare 0.5
odd NaN
"""


def test_metrics_of_ones_own_are_read() -> None:
    extraction = plugin(
        "core-metrics-extractor",
        """engineConfigs: [{name: mine, queuedRequestsSpec: 'my_queue{tier=gold}',
        runningRequestsSpec: my_running, customMetrics: [
          {attributeKey: spare, metricSpec: spare},
          {attributeKey: iron, metricSpec: 'my_queue{tier="iron"}'},
          {attributeKey: odd, metricSpec: odd}, {attributeKey: gone, metricSpec: gone}]}]""",
    ).extraction
    found = read_measures(TEXT, 1.0, 0, extraction)
    assert found is not None
    assert (found.waiting, found.running, found.kv_cache) == (3, 2, None)
    assert found.custom == {"spare": 0.5, "iron": 8}
    assert read_measures(TEXT, 1.0) is None


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("core-metrics-extractor", "engineConfigs: [{name: m, kvUsageSpec: 'a{b'}]"),
        ("core-metrics-extractor", "engineConfigs: [{name: m, kvUsageSpec: 'a{b=1,c=2}'}]"),
        ("endpoint-attribute-filter", "attribute: a, algorithm: {type: topK, topK: {k: 1}}"),
        (
            "endpoint-attribute-scorer",
            "attributeKey: a, algorithm: {type: linear_lower_is_better, normalization: "
            "{fixedRange: {min: 1, max: 1}}}",
        ),
        (
            "endpoint-attribute-scorer",
            "attributeKey: a, producer: dcgm-extractor, algorithm: {type: linear_lower_is_better}",
        ),
        ("prefix-cache-affinity-filter", "ttftSource: latencyPredictor"),
    ],
)
def test_what_is_not_served_is_refused(kind: str, parameters: str) -> None:
    with pytest.raises(ConfigError, match=r"plugins\[0\].parameters"):
        plugin(kind, parameters)


def busy(*loads: tuple[int, float] | None) -> list[Seen]:
    return [
        Seen(
            str(n), None if load is None else Measures(0.0, waiting=load[0], kv_cache=load[1]), 0, 0
        )
        for n, load in enumerate(loads)
    ]


@pytest.mark.parametrize(
    ("loads", "chance"),
    [
        ([(0, 0.0)], 0.0),
        ([(1, 0.0)], 0.096),
        ([(0, 0.272)], 1.0),
        ([(1, 0.16), (1, 0.0)], 0.096),
        ([None], 1.0),
        ([], 0.0),
    ],
)
def test_the_chance_of_a_refusal_grows_with_the_load(loads: list[Any], chance: float) -> None:
    (admitter,) = plugin("probabilistic-admitter", "").admitters
    assert admitter(busy(*loads)) == pytest.approx(chance, abs=1e-3)


def test_a_header_names_the_servers_for_a_test() -> None:
    (step,) = plugin("header-based-testing-filter", "").profiles["default"].filters
    every = [Seen(f"10.0.0.{n}:{port}", None, 0, 0) for n in (1, 2) for port in (80, 81)]
    every.append(Seen("[fd00::1]:80", None, 0, 0))

    def kept(text: str) -> list[str]:
        wanted = Wanted(headers={"test-epp-endpoint-selection": text} if text else {})
        return [each.address for each in step.apply(every, wanted)]

    assert kept("10.0.0.2:81, 10.0.0.1") == ["10.0.0.2:81", "10.0.0.1:80", "10.0.0.1:81"]
    assert kept("fd00::1,[fd00::1]") == ["[fd00::1]:80"]
    assert kept("10.0.0.9, ,") == kept("") == []


def test_what_changes_nothing_is_said() -> None:
    config = read_config(
        HEAD
        + """
plugins:
- {type: token-producer, parameters: {modelName: m, vllm: {url: x}}}
- {type: session-affinity-scorer, parameters: {sessionIdConfig: {evictionSweepSeconds: 1}}}
- {type: queue-scorer}
"""
    )
    assert config.notes == (
        "plugins[0] (token-producer): without effect here: modelName, vllm",
        "plugins[1] (session-affinity-scorer): without effect here: evictionSweepSeconds",
    )


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def seen(*urls: str) -> Wanted:
    parts = [{"type": "text", "text": "what is this?"}, *(image(url) for url in urls)]
    return Wanted(media=media_of({"messages": [{"role": "user", "content": parts}]}))


def test_images_go_where_they_have_been_seen() -> None:
    config = read_config(
        f"{HEAD}plugins: [{{type: mm-embeddings-cache-producer, parameters: "
        "{cacheSizeInMBPerServer: 4}}, {type: mm-embeddings-cache-scorer}]"
    )
    profile = config.profiles["default"]
    assert profile.reads_media
    (memory,) = profile.listeners
    every = [Seen(name, None, 0, 0) for name in "ab"]
    score = profile.scorers[0].score
    assert score(every, seen("1")) == [0, 0]
    memory.picked("a", seen("1", "2", "2"))
    assert score(every, seen("1")) == [1, 0]
    assert score(every, seen("1", "2", "3", "4")) == [0.5, 0]
    assert score(every, ANY) == [0, 0]
    # Two have room: the one that was seen the longest ago is forgotten.
    memory.picked("a", seen("1"))
    memory.picked("a", seen("3"))
    assert score(every, seen("2")) == [0, 0]
    assert score(every, seen("1", "3")) == [1, 0]


@pytest.mark.parametrize(
    "part",
    [
        image("u"),
        {"type": "image_url", "image_url": "u"},
        {"type": "input_image", "image_url": "u"},
        {"type": "image", "source": {"type": "base64", "data": "u"}},
        {"type": "input_audio", "input_audio": {"data": "u", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "u"}},
    ],
)
def test_an_item_is_known_by_its_address_or_content(part: dict[str, Any]) -> None:
    fields = {"messages": [{"role": "user", "content": [part]}]}
    assert media_of(fields) == (hash("u"),)
    assert media_of({"input": fields["messages"]}) == (hash("u"),)


@pytest.mark.parametrize("fields", [{}, {"messages": "x"}, {"messages": [1, {"content": [1, {}]}]}])
def test_what_is_no_item_is_none(fields: dict[str, Any]) -> None:
    assert media_of(fields) == ()
