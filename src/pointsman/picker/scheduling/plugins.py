"""Every plugin type that a configuration may name.

A plugin of one's own is a function `(parameters) -> Plugin` that an installed package publishes
under the entry point group `pointsman.picker.plugins`; its name there is its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pointsman.picker.scheduling import detectors
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
    "by-label": types.ByLabel,
    "by-label-selector": types.LabelSelectorFilter,
    "concurrency-detector": detectors.ConcurrencyDetector,
    "context-length-aware": types.ContextLengthAware,
    "decode-filter": types.DecodeFilter,
    "encode-filter": types.EncodeFilter,
    "header-label-affinity-scorer": types.HeaderLabelAffinityScorer,
    "header-profile-handler": types.HeaderProfileHandler,
    "kv-cache-utilization-scorer": types.KvCacheScorer,
    "label-selector-filter": types.LabelSelectorFilter,
    "load-aware-scorer": types.LoadAwareScorer,
    "lora-affinity-filter": types.LoraAffinityFilter,
    "lora-affinity-scorer": types.LoraAffinityScorer,
    "marginal-cost-scorer": types.MarginalCostScorer,
    "max-score-picker": types.MaxScorePicker,
    "no-hit-lru-scorer": types.NoHitLruScorer,
    "prefill-filter": types.PrefillFilter,
    "prefix-cache-affinity-filter": types.PrefixCacheAffinityFilter,
    "prefix-cache-scorer": types.PrefixCacheScorer,
    "prefix-sticky-filter": types.PrefixStickyFilter,
    "queue-scorer": types.QueueScorer,
    "random-picker": types.RandomPicker,
    "running-requests-size-scorer": types.RunningRequestsScorer,
    "served-model-filter": types.ServedModelFilter,
    "session-affinity-filter": types.SessionAffinityFilter,
    "session-affinity-scorer": types.SessionAffinityScorer,
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
        "core-metrics-extractor",
        "inflight-load-producer",
        "metrics-data-source",
        "models-data-extractor",
        "models-data-source",
        "openai-parser",
        "passthrough-parser",
        "session-id-producer",
        "sglanghttp-parser",
        "token-producer",
        "tokenizer",
        "vllmhttp-parser",
    }
)
"""Types of the reference that name what the picker always does; their parameters are ignored."""

LATER = frozenset(
    {
        "always-disagg-multimodal-decider",
        "always-disagg-pd-decider",
        "burst-prefix-cache-producer",
        "data-parallel-profile-handler",
        "dcgm-data-source",
        "dcgm-extractor",
        "disagg-headers-handler",
        "disagg-profile-handler",
        "disaggregatedset-rollout-screener",
        "edf-ordering-policy",
        "endpoint-attribute-filter",
        "endpoint-attribute-scorer",
        "fcfs-ordering-policy",
        "file-discovery",
        "global-strict-fairness-policy",
        "latency-scorer",
        "latency-slo-admitter",
        "mm-embeddings-cache-producer",
        "mm-embeddings-cache-scorer",
        "p2p-source-producer",
        "pd-profile-handler",
        "precise-prefix-cache-producer",
        "precise-prefix-cache-scorer",
        "predicted-latency-producer",
        "prefix-based-pd-decider",
        "priority-holdback-policy",
        "probabilistic-admitter",
        "program-aware-fairness",
        "request-attribute-reporter",
        "round-robin-fairness-policy",
        "slo-deadline-ordering-policy",
        "slo-headroom-tier-filter",
        "soft-reflective-ceiling-policy",
        "static-usage-limit-policy",
        "topology-affinity-filter",
        "topology-affinity-scorer",
        "topology-extractor",
        "vertexai-parser",
        "vllmgrpc-parser",
    }
)
"""Types of the reference that are not there yet: naming one is an error that says so."""


def factories() -> dict[str, Factory]:
    """Every type that can be configured, without those of entry points."""
    built_in: dict[str, Factory] = dict.fromkeys(BUILT_IN, _built_in)
    return built_in | {name: _factory(each) for name, each in PARAMETERS.items()}
