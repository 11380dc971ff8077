"""The picker's view of a cluster: what it watches, and which pool is its own.

It hears of its own namespace only: of its pool by name (in both generations, unless the command
line says which), of the pods, and of everything that speaks of models. Pods are not narrowed by the
pool's selector, since that may change; those of `--endpoint-selector` are, by the API server.
"""

from __future__ import annotations

from pointsman.picker.pools import Scope, Selection
from pointsman.picker.settings import environment
from pointsman.picker.settings.options import Options
from pointsman.resources.base import Resource
from pointsman.resources.core import Pod
from pointsman.resources.inference_extension import (
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
from pointsman.sources.kubernetes.source import Interest

POOLS: tuple[type[Resource], ...] = (InferencePool, InferencePoolV1Alpha2)
MODELS: tuple[type[Resource], ...] = (
    InferenceModel,
    InferenceObjective,
    ExperimentalInferenceObjective,
    InferenceModelRewrite,
    ExperimentalInferenceModelRewrite,
)
KINDS: tuple[type[Resource], ...] = (Pod, *POOLS, *MODELS)
"""What the picker needs to know of."""


def interests(options: Options) -> tuple[Interest, ...]:
    """What is asked of the API server."""
    namespace, selector = options.pool_namespace, options.endpoint_selector
    if selector is not None:
        pods, pools = Interest(Pod, namespace, labels=selector.text), []
    else:
        pods = Interest(Pod, namespace)
        by_name = f"metadata.name={options.pool_name}"
        pools = [
            Interest(kind, namespace, fields=by_name)
            for kind in POOLS
            if options.pool_group in ("", kind.KIND.group)
        ]
    return (pods, *pools, *(Interest(kind, namespace) for kind in MODELS))


def scope(options: Options, variables: environment.Environment) -> Scope:
    """Which pools count: in a cluster one, on one machine all that the feed tells of."""
    if options.endpoint_selector is not None:
        name = environment.name_of_workload(variables)
        matches, ports = options.endpoint_selector.matches, options.endpoint_ports
        return Scope(made=Selection(options.pool_namespace, name, matches, ports))
    is_one = options.is_in_cluster and bool(options.pool_name)
    only = f"{options.pool_namespace}/{options.pool_name}" if is_one else None
    return Scope(only, options.pool_group)
