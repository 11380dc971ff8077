"""What the picker counts, and the text in which Prometheus reads it.

Names, labels and buckets are those of the inference extension's picker. Labels are bounded: after
`MAX_LABEL_SETS` different ones a metric counts the rest under `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from pointsman import __version__
from pointsman.picker.director import Picked
from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.ends.usage import Usage
from pointsman.picker.extproc.answers import Refuse
from pointsman.picker.pools import Pools

MAX_LABEL_SETS = 1_000

DURATION_BUCKETS_S = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20),
    *(30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600),
)
SIZE_BUCKETS_BYTES = tuple(2**power for power in range(6, 31))
TOKEN_BUCKETS = (
    *(1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
    *(131072, 262144, 524288, 1048576),
)
DECISION_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)

HIT_RATIO_BUCKETS = tuple(tenth / 10 for tenth in range(11))

FIRST_TOKEN_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
USAGE_BUCKETS = tuple(4**power for power in range(14))
"""Those of OpenTelemetry's conventions for generative AI."""

Labels = tuple[str, ...]


class Counter:
    """A number that only grows, for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Labels = ()) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self.values: dict[Labels, float] = {}

    def add(self, labels: Labels, amount: float = 1) -> None:
        """Count."""
        if labels not in self.values and len(self.values) >= MAX_LABEL_SETS:
            labels = ("other",) * len(self.labels)
        self.values[labels] = self.values.get(labels, 0) + amount

    def lines(self) -> Iterator[str]:
        """The series."""
        for labels, value in self.values.items():
            yield f"{self.name}{_labels(self.labels, labels)} {_number(value)}"


class Gauge(Counter):
    """A number that goes up and down."""

    kind = "gauge"

    def set(self, labels: Labels, value: float) -> None:
        """Say what it is now."""
        self.values[labels] = value


class Histogram:
    """How values are spread, for each set of labels."""

    kind = "histogram"

    def __init__(
        self, name: str, text: str, buckets: tuple[float, ...], labels: Labels = ()
    ) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._buckets = buckets
        self._series: dict[Labels, tuple[list[int], list[float]]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value."""
        series = self._series.get(labels)
        if series is None:
            if len(self._series) >= MAX_LABEL_SETS:
                labels = ("other",) * len(self.labels)
            series = self._series.setdefault(labels, ([0] * (len(self._buckets) + 1), [0.0]))
        series[0][bisect_left(self._buckets, value)] += 1
        series[1][0] += value

    def lines(self) -> Iterator[str]:
        """The series: cumulative buckets, sum and count."""
        for labels, (counts, total) in self._series.items():
            below = 0
            for limit, count in zip((*self._buckets, None), counts, strict=True):
                below += count
                edge = "+Inf" if limit is None else _number(limit)
                shown = _labels((*self.labels, "le"), (*labels, edge))
                yield f"{self.name}_bucket{shown} {below}"
            shown = _labels(self.labels, labels)
            yield f"{self.name}_sum{shown} {_number(total[0])}"
            yield f"{self.name}_count{shown} {below}"


Metric = Counter | Histogram

_BY_MODEL = ("model_name", "target_model_name")


class Report:
    """All metrics of one picker."""

    def __init__(self) -> None:
        self._begin_requests()
        self._begin_answers()
        self._begin_decisions()
        self._begin_pools()

    def _begin_requests(self) -> None:
        self.requests = Counter(
            "inference_objective_request_total", "Requests, by model and target.", _BY_MODEL
        )
        self.errors = Counter(
            "inference_objective_request_error_total",
            "Requests that the picker answered with an error.",
            (*_BY_MODEL, "error_code"),
        )
        self.running = Gauge(
            "inference_objective_running_requests", "Requests under way.", ("model_name",)
        )
        self.durations = Histogram(
            "inference_objective_request_duration_seconds",
            "From the request's headers to the end of its stream.",
            DURATION_BUCKETS_S,
            _BY_MODEL,
        )
        self.sizes = Histogram(
            "inference_objective_request_sizes",
            "Bytes of request bodies.",
            SIZE_BUCKETS_BYTES,
            _BY_MODEL,
        )
        self.input_tokens = Histogram(
            "inference_objective_input_tokens",
            "Estimated tokens of prompts.",
            TOKEN_BUCKETS,
            _BY_MODEL,
        )
        self.unread = Counter(
            "pointsman_picker_unread_bodies_total",
            "Bodies that were balanced without being read: compressed, not JSON, or cut off.",
        )
        self.protocol_errors = Counter(
            "pointsman_picker_protocol_errors_total",
            "Streams that were ended because a message came where it may not come.",
        )

    def _begin_answers(self) -> None:
        self.usage = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of prompts and answers, as model servers count them.",
            USAGE_BUCKETS,
            ("gen_ai_token_type", "gen_ai_request_model", "gen_ai_response_model"),
        )
        self.unknown_usage = Counter(
            "pointsman_picker_unknown_usage_total",
            "Good answers that did not tell their tokens.",
            _BY_MODEL,
        )
        self.first_tokens = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From the request to the first byte of the answer's body.",
            FIRST_TOKEN_BUCKETS_S,
            ("gen_ai_request_model", "gen_ai_response_model"),
        )

    def _begin_decisions(self) -> None:
        self.decisions = Histogram(
            "inference_extension_scheduler_e2e_duration_seconds",
            "Time of one decision.",
            DECISION_BUCKETS_S,
        )
        self.attempts = Counter(
            "inference_extension_scheduler_attempts_total",
            "Decisions, by the server that was picked.",
            ("status", "target_model_name", "pod_name", "namespace", "port"),
        )
        self.prefix_size = Gauge(
            "inference_extension_prefix_indexer_size",
            "Blocks of prompts that some server is taken to hold.",
        )
        self.prefix_hits = Histogram(
            "inference_extension_prefix_indexer_hit_ratio",
            "Share of the prompt that the picked server is taken to hold.",
            HIT_RATIO_BUCKETS,
        )
        self.info = Gauge(
            "inference_extension_info", "Which picker this is.", ("commit", "build_ref")
        )
        self.info.set(("", f"pointsman {__version__}"), 1)

    def _begin_pools(self) -> None:
        self.scrape_errors = Counter(
            "pointsman_picker_scrape_errors_total",
            "Readings of model servers' metrics that failed.",
            ("endpoint",),
        )
        self.queue = Gauge(
            "inference_pool_average_queue_size",
            "Requests waiting at a pool's model servers, mean.",
            ("name",),
        )
        self.kv_cache = Gauge(
            "inference_pool_average_kv_cache_utilization",
            "Share of the KV cache in use in a pool, mean.",
            ("name",),
        )
        self.running_at_servers = Gauge(
            "inference_pool_average_running_requests",
            "Requests in the batches of a pool's model servers, mean.",
            ("name",),
        )
        self.queues = Gauge(
            "inference_pool_per_pod_queue_size",
            "Requests waiting at one model server.",
            ("name", "model_server_pod"),
        )
        self.ready_pods = Gauge(
            "inference_pool_ready_pods", "Pods of a pool that are ready.", ("name",)
        )

    def decided(self, picked: Picked) -> Labels:
        """A request was answered or sent on its way; returns its model and target."""
        ask = picked.ask
        labels = ((ask.model if ask is not None else None) or "", picked.target or "")
        answer = picked.answer
        if isinstance(answer, Refuse):
            # A model that nobody serves is the client's word: it must not fill the labels.
            shown = ("", "") if answer.error.code == "model_not_found" else labels
            self.requests.add(shown)
            self.errors.add((*shown, answer.error.code))
            self.attempts.add(("failure", shown[1], "", "", ""))
            return labels
        self.requests.add(labels)
        if picked.reservation is not None:
            self.running.add(labels[:1])
            place = picked.reservation.endpoint.place
            where = (place.pod, place.namespace, str(place.port))
            self.attempts.add(("success", labels[1], *where))
        if picked.held_share is not None:
            self.prefix_hits.observe((), picked.held_share)
        if ask is None:
            return labels
        if ask.is_unread:
            self.unread.add(())
        if ask.body is not None:
            self.sizes.observe(labels, len(ask.body))
            self.input_tokens.observe(labels, ask.prompt_tokens)
        return labels

    def ended(self, labels: Labels, duration_s: float) -> None:
        """A request that was sent on its way has ended."""
        self.running.add(labels[:1], -1)
        self.durations.observe(labels, duration_s)

    def answered(self, labels: Labels, usage: Usage | None) -> None:
        """A model server has answered well, and told its tokens or not."""
        if usage is None:
            self.unknown_usage.add(labels)
            return
        if usage.input_tokens is not None:
            self.usage.observe(("input", *labels), usage.input_tokens)
        if usage.output_tokens is not None:
            self.usage.observe(("output", *labels), usage.output_tokens)

    def first_byte(self, labels: Labels, seconds: float) -> None:
        """A model server has begun to answer."""
        self.first_tokens.observe(labels, seconds)

    def text(self, pools: Pools, prefix_blocks: int = 0) -> str:
        """The exposition; gauges of pools are taken now."""
        self.prefix_size.set((), prefix_blocks)
        self._measure(pools)
        lines: list[str] = []
        for metric in vars(self).values():
            lines.append(f"# HELP {metric.name} {metric.text}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines.extend(metric.lines())
        return "\n".join(lines) + "\n"

    def _measure(self, pools: Pools) -> None:
        means: dict[Gauge, Callable[[Measures], float | None]] = {
            self.queue: lambda measures: measures.waiting,
            self.kv_cache: lambda measures: measures.kv_cache,
            self.running_at_servers: lambda measures: measures.running,
        }
        for gauge in (*means, self.queues, self.ready_pods):
            gauge.values.clear()
        for view in pools.all():
            name = (view.name,)
            self.ready_pods.set(name, view.pods)
            measures = [e.measures for e in view.endpoints if e.measures is not None]
            for gauge, read in means.items():
                values = [value for item in measures if (value := read(item)) is not None]
                if values:
                    gauge.set(name, sum(values) / len(values))
            for endpoint in view.endpoints[:MAX_LABEL_SETS]:
                waiting = endpoint.measures.waiting if endpoint.measures is not None else None
                if waiting is not None:
                    self.queues.set((view.name, endpoint.name.partition("/")[2]), waiting)


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value[:256].replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
