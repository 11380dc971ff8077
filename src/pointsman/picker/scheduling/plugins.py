"""Every plugin type that a configuration may name.

A plugin of one's own is a function `(parameters) -> Plugin` that an installed package publishes
under the entry point group `pointsman.picker.plugins`; its name there is its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pointsman.picker.scheduling import (
    admission,
    attributes,
    detectors,
    extractors,
    media,
    sessions,
)
from pointsman.picker.scheduling import parameters as types
from pointsman.picker.scheduling.parameters import LabelSelectorFilter, Parameters, Plugin

ENTRY_POINTS = "pointsman.picker.plugins"

Factory = Callable[[Mapping[str, Any]], Plugin]


def _factory(kind: type[Parameters] | type[LabelSelectorFilter]) -> Factory:
    return lambda values: kind.model_validate(values)()


def _built_in(_values: Mapping[str, Any]) -> Plugin:
    return Plugin(is_built_in=True)


PARAMETERS: dict[str, type[Parameters] | type[LabelSelectorFilter]] = {
    "active-request-scorer": types.ActiveRequestScorer,
    "agent-identity": sessions.AgentIdentity,
    "by-label": types.ByLabel,
    "by-label-selector": types.LabelSelectorFilter,
    "concurrency-detector": detectors.ConcurrencyDetector,
    "context-length-aware": types.ContextLengthAware,
    "core-metrics-extractor": extractors.CoreMetricsExtractor,
    "decode-filter": types.DecodeFilter,
    "encode-filter": types.EncodeFilter,
    "endpoint-attribute-filter": attributes.EndpointAttributeFilter,
    "endpoint-attribute-scorer": attributes.EndpointAttributeScorer,
    "header-based-testing-filter": types.HeaderBasedTestingFilter,
    "header-label-affinity-scorer": types.HeaderLabelAffinityScorer,
    "header-profile-handler": types.HeaderProfileHandler,
    "kv-cache-utilization-scorer": types.KvCacheScorer,
    "label-selector-filter": types.LabelSelectorFilter,
    "load-aware-scorer": types.LoadAwareScorer,
    "lora-affinity-filter": types.LoraAffinityFilter,
    "lora-affinity-scorer": types.LoraAffinityScorer,
    "marginal-cost-scorer": types.MarginalCostScorer,
    "max-score-picker": types.MaxScorePicker,
    "mm-embeddings-cache-producer": media.MediaProducer,
    "mm-embeddings-cache-scorer": media.MediaScorer,
    "no-hit-lru-scorer": types.NoHitLruScorer,
    "prefill-filter": types.PrefillFilter,
    "prefix-cache-affinity-filter": types.PrefixCacheAffinityFilter,
    "prefix-cache-scorer": types.PrefixCacheScorer,
    "prefix-home-filter": types.PrefixHomeFilter,
    "prefix-sticky-filter": types.PrefixStickyFilter,
    "probabilistic-admitter": admission.ProbabilisticAdmitter,
    "queue-scorer": types.QueueScorer,
    "random-picker": types.RandomPicker,
    "running-requests-size-scorer": types.RunningRequestsScorer,
    "served-model-filter": types.ServedModelFilter,
    "session-affinity-filter": sessions.SessionAffinityFilter,
    "session-affinity-scorer": sessions.SessionAffinityScorer,
    "session-id-producer": sessions.SessionIdProducer,
    "single-profile-handler": types.SingleProfileHandler,
    "token-load-scorer": types.TokenLoadScorer,
    "utilization-detector": detectors.UtilizationDetector,
    "utilization-filter": detectors.UtilizationFilter,
    "weighted-random-picker": types.WeightedRandomPicker,
}
"""The types with parameters that count."""

BUILT_IN = frozenset(
    {
        "anthropic-parser",
        "approx-prefix-cache-producer",
        "inflight-load-producer",
        "metrics-data-source",
        "models-data-extractor",
        "models-data-source",
        "openai-parser",
        "passthrough-parser",
        "sglanghttp-parser",
        "token-producer",
        "tokenizer",
        "vllmhttp-parser",
    }
)
"""Types of the reference that name what the picker always does; their parameters are ignored."""

_APART = "it is for servers that prefill and decode apart"
_CLUSTERS = "it is for several clusters"
_EVENTS = "it needs the servers' KV cache events"
_GRPC = "it reads the bodies of gRPC calls"
_PREDICTION = "it needs predictions of latency"
_QUEUES = "it needs queues"
_READS_ANSWERS = "it reads answers, which the picker does not see"
_SOURCES = "servers are found as Pods, and their load in their own metrics"
_TRANSFER = "it is for servers that send each other their caches"

LATER: Mapping[str, str] = {
    "always-disagg-multimodal-decider": _APART,
    "always-disagg-pd-decider": _APART,
    "burst-prefix-cache-producer": _QUEUES,
    "data-parallel-profile-handler": "name the ports of the ranks as the pool's targetPorts",
    "dcgm-data-source": _SOURCES,
    "dcgm-extractor": _SOURCES,
    "destination-endpoint-served-verifier": _READS_ANSWERS,
    "disagg-headers-handler": _APART,
    "disagg-profile-handler": _APART,
    "disaggregatedset-rollout-screener": _APART,
    "edf-ordering-policy": _QUEUES,
    "endpoint-notification-source": _SOURCES,
    "fcfs-ordering-policy": _QUEUES,
    "file-discovery": _SOURCES,
    "global-strict-fairness-policy": _QUEUES,
    "k8s-notification-source": _SOURCES,
    "latency-scorer": _PREDICTION,
    "latency-slo-admitter": _PREDICTION,
    "multicluster-approx-prefix-cache-producer": _CLUSTERS,
    "multicluster-file-discovery": _CLUSTERS,
    "multicluster-kv-cache-utilization-scorer": _CLUSTERS,
    "multicluster-metrics-data-source": _CLUSTERS,
    "multicluster-metrics-extractor": _CLUSTERS,
    "multicluster-prefix-cache-scorer": _CLUSTERS,
    "multicluster-queue-scorer": _CLUSTERS,
    "multicluster-session-affinity-filter": _CLUSTERS,
    "p2p-source-producer": _TRANSFER,
    "pd-profile-handler": _APART,
    "precise-prefix-cache-producer": _EVENTS,
    "precise-prefix-cache-scorer": _EVENTS,
    "predicted-latency-producer": _PREDICTION,
    "prefill-header-handler": _APART,
    "prefix-based-pd-decider": _APART,
    "priority-holdback-policy": _QUEUES,
    "priority-then-time-eviction-order-policy": _QUEUES,
    "program-aware-fairness": _QUEUES,
    "request-attribute-reporter": _READS_ANSWERS,
    "round-robin-fairness-policy": _QUEUES,
    "sheddable-eviction-filter": _QUEUES,
    "slo-deadline-ordering-policy": _QUEUES,
    "slo-headroom-tier-filter": _PREDICTION,
    "soft-reflective-ceiling-policy": _QUEUES,
    "static-usage-limit-policy": _QUEUES,
    "topology-affinity-filter": _APART,
    "topology-affinity-scorer": _APART,
    "topology-extractor": _APART,
    "vertexai-parser": _GRPC,
    "vllmgrpc-parser": _GRPC,
}
"""Types of the reference that are not there yet, and why: naming one is an error that says so."""

_MATCHES = frozenset({"prefixMatchInfoProducerName"})
_SESSIONS = frozenset({"evictionSweepSeconds"})

WITHOUT_EFFECT: Mapping[str, frozenset[str]] = {
    "active-request-scorer": frozenset({"inFlightLoadProducerName", "requestTimeout"}),
    "core-metrics-extractor": frozenset(
        {"cacheBlockSizeLabelName", "cacheNumBlocksLabelName", "defaultEngine", "engineLabelKey"}
    ),
    "mm-embeddings-cache-scorer": frozenset({"producerName"}),
    "no-hit-lru-scorer": _MATCHES,
    "prefix-cache-affinity-filter": _MATCHES
    | {"inFlightLoadProducerName", "latencyPredictionInfoProducerName"},
    "prefix-cache-scorer": _MATCHES,
    "session-affinity-filter": _SESSIONS,
    "session-affinity-scorer": _SESSIONS,
    "session-id-producer": frozenset({"lruSize", "ttl"}),
    "utilization-detector": frozenset({"metricsStalenessThreshold"}),
}
"""Parameters that are read and change nothing, by type, wherever in the parameters they stand."""


def factories() -> dict[str, Factory]:
    """Every type that can be configured, without those of entry points."""
    built_in: dict[str, Factory] = dict.fromkeys(BUILT_IN, _built_in)
    return built_in | {name: _factory(each) for name, each in PARAMETERS.items()}
