"""What a configured plugin is, and the parameters of every type that has some.

Names, parameters and defaults are those of the reference picker. Parameters are checked strictly.
Calling a set of parameters makes the plugin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from pointsman.picker.endpoints.measures import Extraction
from pointsman.picker.endpoints.table import Loaded
from pointsman.picker.flow.saturation import Detector
from pointsman.picker.scheduling import filters, labels, scorers
from pointsman.picker.scheduling.cost import CostModel
from pointsman.picker.scheduling.filters import Filter
from pointsman.picker.scheduling.memory import NoHitLru
from pointsman.picker.scheduling.profile import Listener, Picking
from pointsman.picker.scheduling.scorers import Scorer
from pointsman.resources.selectors import LabelSelector

Admitter = Callable[[Sequence[Loaded]], float]
"""The chance with which a request of a priority below 0 is turned away, from 0 to 1."""


class Attribute(NamedTuple):
    """Something that is found in a request's headers and shown beside them."""

    header: str
    """The name by which `Wanted.headers` has it."""
    read: Callable[[Mapping[str, str]], str]
    """From the headers; empty for nothing."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """What one configured plugin does; a plugin may be several things."""

    filter: Filter | None = None
    scorer: Scorer | None = None
    picking: Picking | None = None
    max_endpoints: int = 1
    """Of a picker."""
    detector: Detector | None = None
    profile_header: str | None = None
    """Of a profile handler: the request header that names the profile."""
    default_profile: str | None = None
    listener: Listener | None = None
    reads_headers: bool = False
    admitter: Admitter | None = None
    attribute: Attribute | None = None
    token_header: str = ""
    """The header of answers that names the server that was picked, as a token."""
    extraction: Extraction | None = None
    reads_media: bool = False
    """Whether `Wanted.media` is needed."""
    media_items: int = 0
    """How many images, sounds and films a server is taken to hold; 0 for nothing said."""
    is_built_in: bool = False
    """What it stands for always happens here; naming it changes nothing."""


class Settings(BaseModel):
    """Values in camelCase; unknown ones are errors."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True
    )


class Parameters(Settings, ABC):
    """The settings of one plugin."""

    @abstractmethod
    def __call__(self) -> Plugin:
        """Make the plugin."""


class QueueScorer(Parameters):
    """Fewest requests waiting."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(scorer=scorers.queue)


class RunningRequestsScorer(Parameters):
    """Fewest requests in the server's batch."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(scorer=scorers.running_requests)


class KvCacheScorer(Parameters):
    """Most room in the KV cache."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(scorer=scorers.kv_cache_utilization)


class LoraAffinityScorer(Parameters):
    """Servers that run the adapter."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(scorer=scorers.lora_affinity)


class LoadAwareScorer(Parameters):
    """Fewest requests waiting, against a fixed threshold."""

    threshold: int = Field(128, ge=1)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(scorer=partial(scorers.load_aware, threshold=self.threshold))


class ActiveRequestScorer(Parameters):
    """Fewest requests in flight."""

    idle_threshold: int = Field(0, ge=0)
    max_busy_score: float = Field(1.0, ge=0, le=1)
    in_flight_load_producer_name: str = ""
    request_timeout: str = ""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        scorer = partial(
            scorers.active_request,
            idle_threshold=self.idle_threshold,
            max_busy_score=self.max_busy_score,
        )
        return Plugin(scorer=scorer)


class TokenLoadScorer(Parameters):
    """Fewest tokens that our requests in flight make a server read."""

    queue_threshold_tokens: int = Field(4 * 1024 * 1024, ge=1)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        scorer = partial(scorers.token_load, threshold_tokens=self.queue_threshold_tokens)
        return Plugin(scorer=scorer)


class PrefixCacheScorer(Parameters):
    """Most of the prompt already held."""

    prefix_match_info_producer_name: str = ""
    match_length_weight: float = Field(0.0, ge=0, le=1)
    match_length_scale_tokens: int = Field(8192, ge=1)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        scorer = partial(
            scorers.prefix_cache,
            length_weight=self.match_length_weight,
            length_scale_tokens=self.match_length_scale_tokens,
        )
        return Plugin(scorer=scorer)


class NoHitLruScorer(Parameters):
    """Spreads prompts that nobody holds."""

    lru_size: int = Field(1024, ge=1, le=100_000)
    prefix_match_info_producer_name: str = ""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        memory = NoHitLru(self.lru_size)
        return Plugin(scorer=memory.score, listener=memory)


class ContextLengthAware(Parameters):
    """Servers whose label names a range that holds the prompt's length."""

    label: str = labels.CONTEXT_LABEL
    enable_filtering: bool = False

    def __call__(self) -> Plugin:
        """Make the plugin."""
        keep = partial(labels.in_context_length, label=self.label)
        return Plugin(
            scorer=partial(labels.context_length, label=self.label),
            filter=keep if self.enable_filtering else None,
        )


class HeaderLabelAffinityScorer(Parameters):
    """Servers whose label equals a request header."""

    header_name: str = Field(min_length=1)
    label_key: str = Field(min_length=1)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        scorer = partial(
            labels.header_label_affinity, header=self.header_name.lower(), label=self.label_key
        )
        return Plugin(scorer=scorer, reads_headers=True)


class LabelSelectorFilter(LabelSelector):
    """Servers whose labels match."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        selector = LabelSelector.model_validate(self.to_dict())
        return Plugin(filter=partial(labels.by_selector, selector=selector))


class HeaderBasedTestingFilter(Parameters):
    """Servers that a request header names, for tests of gateways."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(filter=labels.named_by_test, reads_headers=True)


class ByLabel(Parameters):
    """Servers whose label has one of some values."""

    label: str = Field(min_length=1)
    valid_values: frozenset[str] = Field(min_length=1)
    allows_no_label: bool = False

    def __call__(self) -> Plugin:
        """Make the plugin."""
        keep = partial(
            labels.by_label,
            label=self.label,
            values=self.valid_values,
            allows_none=self.allows_no_label,
        )
        return Plugin(filter=keep)


class DecodeFilter(Parameters):
    """Servers that decode, or that name no role."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        keep = partial(
            labels.by_label, label=labels.ROLE_LABEL, values=labels.DECODES, allows_none=True
        )
        return Plugin(filter=keep)


class PrefillFilter(Parameters):
    """Servers whose role is to prefill."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        keep = partial(labels.by_label, label=labels.ROLE_LABEL, values=labels.PREFILLS)
        return Plugin(filter=keep)


class EncodeFilter(Parameters):
    """Servers whose role is to encode."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        keep = partial(labels.by_label, label=labels.ROLE_LABEL, values=labels.ENCODES)
        return Plugin(filter=keep)


class MarginalCostScorer(Parameters):
    """The least that a request costs itself and others, in seconds. Our own."""

    step_seconds: float = Field(0.012, ge=0)
    seconds_per_request: float = Field(20e-6, ge=0)
    seconds_per_token: float = Field(42e-9, ge=0)
    externality: float = Field(1.0, ge=0, le=10)
    hit_rate: float = Field(0.5, ge=0, le=1)
    slack_seconds: float = Field(3.0, ge=0)

    def __call__(self) -> Plugin:
        """Make the plugin."""
        model = CostModel(
            self.step_seconds,
            self.seconds_per_request,
            self.seconds_per_token,
            self.externality,
            self.hit_rate,
            self.slack_seconds,
        )
        return Plugin(scorer=model.score)


class ServedModelFilter(Parameters):
    """Servers that list the model. Our own."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(filter=filters.serves_model)


class LoraAffinityFilter(Parameters):
    """Servers that run the adapter, until they are full. Our own."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(filter=filters.lora_sticky_until_saturated)


class PrefixStickyFilter(Parameters):
    """Servers that hold the prompt, within their share of the load. Our own."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(filter=filters.prefix_sticky_until_loaded)


class PrefixHomeFilter(Parameters):
    """Where several pickers share the servers: the same two at all of them. Our own."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(filter=filters.homes_of_new_prompts)


class PrefixCacheAffinityFilter(Parameters):
    """Servers that hold most of the prompt, unless they are slow."""

    affinity_threshold: float = Field(0.8, ge=0, le=1)
    exploration_probability: float = Field(0.0, ge=0, le=1)
    max_ttft_penalty_ms: float = Field(18_000, ge=0, alias="maxTTFTPenaltyMs")
    ttft_source: str = "prefillThroughput"
    peak_prefill_throughput: float = Field(15_928, gt=0)
    prefix_match_info_producer_name: str = ""
    latency_prediction_info_producer_name: str = ""
    in_flight_load_producer_name: str = ""

    @field_validator("ttft_source")
    @classmethod
    def _is_served(cls, value: str) -> str:
        if value == "latencyPredictor":
            raise ValueError("latencyPredictor is not part of this version yet")
        if value != "prefillThroughput":
            raise ValueError("must be prefillThroughput")
        return value

    def __call__(self) -> Plugin:
        """Make the plugin."""
        keep = partial(
            filters.prefix_cache_affinity,
            threshold=self.affinity_threshold,
            exploration=self.exploration_probability,
            max_penalty_ms=self.max_ttft_penalty_ms,
            prefill_tokens_per_s=self.peak_prefill_throughput,
        )
        return Plugin(filter=keep)


class PickerParameters(Parameters):
    """How many endpoints a picker names."""

    max_num_of_endpoints: int = Field(1, ge=1, le=16)


class MaxScorePicker(PickerParameters):
    """The highest total."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(picking=Picking.MAX_SCORE, max_endpoints=self.max_num_of_endpoints)


class RandomPicker(PickerParameters):
    """Any."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(picking=Picking.RANDOM, max_endpoints=self.max_num_of_endpoints)


class WeightedRandomPicker(PickerParameters):
    """Any, with chances as the totals."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(picking=Picking.WEIGHTED_RANDOM, max_endpoints=self.max_num_of_endpoints)


class SingleProfileHandler(Parameters):
    """The one profile."""

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(is_built_in=True)


class HeaderProfileHandler(Parameters):
    """The profile that a request header names."""

    header_name: str = "EPP-Profile"
    default_profile: str = "decode"

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(
            profile_header=self.header_name.lower(),
            default_profile=self.default_profile,
            reads_headers=True,
        )
