"""Header and metadata names of the endpoint picker protocol, in one place.

Source: the Gateway API Inference Extension's proposal 004 (endpoint picker protocol) and the
names that llm-d-router uses beside them.
"""

from __future__ import annotations

DESTINATION_ENDPOINT = "x-gateway-destination-endpoint"
"""The picked endpoints, `ip:port[,ip:port...]` in order of fallback; header and metadata key."""

DESTINATION_ENDPOINT_SERVED = "x-gateway-destination-endpoint-served"
"""Metadata key under which the data plane says which endpoint answered."""

DESTINATION_ENDPOINT_SUBSET = "x-gateway-destination-endpoint-subset"
"""Metadata key under which the data plane narrows the candidates."""

DESTINATION_NAMESPACE = "envoy.lb"
"""Dynamic metadata namespace of the destination and of the served endpoint."""

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
"""Dynamic metadata namespace of the subset hint."""

OBJECTIVE = "x-gateway-inference-objective"
FAIRNESS_ID = "x-gateway-inference-fairness-id"
MODEL_NAME_REWRITE = "x-gateway-model-name-rewrite"

OBJECTIVE_NAMES = (OBJECTIVE, "x-llm-d-inference-objective")
FAIRNESS_ID_NAMES = (FAIRNESS_ID, "x-llm-d-inference-fairness-id")
MODEL_NAME_REWRITE_NAMES = (MODEL_NAME_REWRITE, "x-llm-d-model-name-rewrite")

STRIPPED_AT_THE_EDGE = (
    DESTINATION_ENDPOINT,
    DESTINATION_ENDPOINT_SERVED,
    DESTINATION_ENDPOINT_SUBSET,
    "x-gateway-destination-endpoint-fallback",
)
"""Request headers that only a picker may set. The edge removes them from what clients send: a
client that could name its own destination could reach any host (see docs/security.md)."""

POOL_METADATA = "x-pointsman-pool"
"""gRPC initial metadata by which our gateway tells our picker which pool is meant
(`namespace/name`). Foreign gateways do not send it; the picker then serves its `-poolName`."""

TRUST_METADATA = "x-pointsman-trust-objective"
"""gRPC initial metadata by which our gateway says whether the route believes the objective that a
request names (`true`). Without it the header is removed and means nothing: a client that could
choose its own priority would."""

TRUST_DEBUG_METADATA = "x-pointsman-trust-debug"
"""The same for the header `x-pointsman-debug`."""

DEBUG = "x-pointsman-debug"
"""Request header that asks for the decision (`true`); a decision shows who the model servers are
and how busy, so it counts only where the route believes it."""

DECISION = "x-pointsman-decision"
"""Response header with the decision that was asked for, as JSON."""

PICK_NAMESPACE = "pointsman"
"""Dynamic metadata namespace in which our picker leaves what the access log brings back to it."""

PICK_KEY = "pick"
"""Metadata key of a pick's number, in that namespace."""

DECISION_KEY = "decision"
"""Metadata key of the decision that a trusted debug header asks for, in that namespace."""

MODEL_KEY = "model"
"""Metadata key of the model that a picked request names, in that namespace."""

TARGET_KEY = "target"
"""Metadata key of the model that it is asked for in its place, where that is another one."""

POOL_KEY = "pool"
"""Key of the pool's name (`namespace/name`) in that namespace of a pool's cluster."""

USAGE_NAMESPACE = "pointsman.usage"
"""Dynamic metadata namespace of the token usage that Envoy reads from an answer."""

INPUT_TOKENS_KEY = "input_tokens"
OUTPUT_TOKENS_KEY = "output_tokens"
TOTAL_TOKENS_KEY = "total_tokens"

TTFT_TAG = "ttft"
"""Custom tag of the access log: microseconds from the request to the first byte of the answer."""
