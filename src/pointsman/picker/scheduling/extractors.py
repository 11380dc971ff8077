"""Which metrics of servers are read, beside those that the picker knows."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from pointsman.inference.metrics import EngineMetrics, Metric
from pointsman.picker.endpoints.measures import Extraction
from pointsman.picker.scheduling.parameters import Parameters, Plugin, Settings

_SPEC = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{\s*([a-zA-Z_]\w*)\s*=\s*"?([^",}]*)"?\s*\})?')


def metric_of(spec: str) -> Metric:
    """`name` or `name{label=value}`.

    >>> metric_of("queue{tier=gold}")
    Metric(name='queue', label='tier', value='gold')
    """
    found = _SPEC.fullmatch(spec.strip())
    if found is None:
        raise ValueError(f"{spec!r} is neither name nor name{{label=value}}")
    return Metric(found[1], found[2] or "", found[3] or "")


def _checked(spec: str) -> str:
    if spec:
        metric_of(spec)
    return spec


Spec = Annotated[str, AfterValidator(_checked)]


class CustomMetric(Settings):
    """A series that becomes an attribute of its server."""

    attribute_key: str = Field(min_length=1)
    metric_spec: Spec = Field(min_length=1)
    optional: bool = False


class EngineConfig(Settings):
    """The metric names of one kind of server."""

    name: str = Field(min_length=1)
    queued_requests_spec: Spec = ""
    running_requests_spec: Spec = ""
    kv_usage_spec: Spec = ""
    lora_spec: Spec = ""
    cache_info_spec: Spec = ""
    cache_block_size_spec: Spec = ""
    cache_num_blocks_spec: Spec = ""
    cache_block_size_label_name: str = ""
    cache_num_blocks_label_name: str = ""
    custom_metrics: tuple[CustomMetric, ...] = ()

    def metrics(self) -> EngineMetrics:
        """As they are looked for."""
        tokens, blocks = self.cache_block_size_spec, self.cache_num_blocks_spec
        return EngineMetrics(
            engine=self.name,
            waiting=_one(self.queued_requests_spec),
            running=_one(self.running_requests_spec),
            kv_cache=_one(self.kv_usage_spec),
            lora=metric_of(self.lora_spec).name if self.lora_spec else None,
            cache_config=metric_of(self.cache_info_spec).name if self.cache_info_spec else None,
            block_tokens=metric_of(tokens) if tokens else None,
            blocks=metric_of(blocks) if blocks else None,
        )


def _one(spec: str) -> tuple[Metric, ...]:
    return (metric_of(spec),) if spec else ()


class CoreMetricsExtractor(Parameters):
    """Reads the metrics of servers, and gives names to those that are one's own.

    The kind of a server shows by the names that are found, so a pod needs no label; those that are
    configured here are looked for first.
    """

    engine_label_key: str = ""
    default_engine: str = ""
    engine_configs: tuple[EngineConfig, ...] = ()

    def __call__(self) -> Plugin:
        """Make the plugin."""
        return Plugin(
            extraction=Extraction(
                tuple(engine.metrics() for engine in self.engine_configs),
                {
                    each.attribute_key: metric_of(each.metric_spec)
                    for engine in self.engine_configs
                    for each in engine.custom_metrics
                },
            )
        )
