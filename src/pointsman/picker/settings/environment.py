"""What the picker takes from its environment, as the reference picker does.

| variable | meaning |
| --- | --- |
| `NAMESPACE`, `POD_NAMESPACE` | our own namespace, and that of the pool where no flag names one |
| `POD_NAME` | who we are among replicas; the pool's name where `--endpoint-selector` makes it |
| `USE_STREAMING` | the mode of gateways too old to say theirs |
| `KV_CACHE_THRESHOLD`, `QUEUE_THRESHOLD_CRITICAL` | when a server counts as full |
| `QUEUING_THRESHOLD_LORA`, `LORA_AFFINITY_THRESHOLD` | nothing here |
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Mapping
from functools import partial

from pointsman.picker.extproc.machine import Mode
from pointsman.picker.flow import saturation
from pointsman.picker.flow.saturation import Detector
from pointsman.sources.kubernetes.access import namespace_in

Environment = Mapping[str, str]

WITHOUT_EFFECT = ("QUEUING_THRESHOLD_LORA", "LORA_AFFINITY_THRESHOLD")
_OF_A_DEPLOYMENT = re.compile(r"(.+)-[a-z0-9]{1,10}-[a-z0-9]{5}")


def own_namespace(environment: Environment) -> str:
    """Where we run; `default` outside of a cluster."""
    named = environment.get("NAMESPACE") or environment.get("POD_NAMESPACE")
    return named or namespace_in() or "default"


def identity(environment: Environment) -> str:
    """What tells us from other replicas."""
    return environment.get("POD_NAME") or socket.gethostname()


def name_of_workload(environment: Environment) -> str:
    """The Deployment that our pod is of, as far as the pod's name tells.

    >>> name_of_workload({"POD_NAME": "llama-picker-6d5f9c7b8-x2x9k"})
    'llama-picker'
    """
    pod = environment.get("POD_NAME", "")
    found = _OF_A_DEPLOYMENT.fullmatch(pod)
    return found[1] if found is not None else pod or "endpoints"


def mode_without_config(environment: Environment) -> Mode:
    """The request mode of gateways too old to say theirs; newer ones do, and that counts.

    The guide's picker took it from `USE_STREAMING`, and so do we for those old ones.
    """
    said = environment.get("USE_STREAMING")
    if said is None or said in ("1", "t", "T", "TRUE", "true", "True"):
        return Mode.FULL_DUPLEX_STREAMED
    return Mode.BUFFERED


def detector(environment: Environment) -> Detector:
    """When a pool is saturated, where no configuration says so.

    Raises:
        ValueError: a threshold is no number above 0.
    """
    queue = _threshold(environment, "QUEUE_THRESHOLD_CRITICAL", saturation.QUEUE_THRESHOLD)
    kv_cache = _threshold(environment, "KV_CACHE_THRESHOLD", saturation.KV_CACHE_THRESHOLD)
    return partial(saturation.saturation, queue_threshold=queue, kv_cache_threshold=kv_cache)


def _threshold(environment: Environment, name: str, default: float) -> float:
    text = environment.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"the environment variable {name}={text!r} is no number above 0")
    return value
