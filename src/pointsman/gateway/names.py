"""Every name that Pointsman gives to a generated Envoy resource.

Users' EnvoyPatchPolicies name these, so they are a contract: the names of Envoy Gateway v1.3.

    what                          name
    ----------------------------  ------------------------------------------------------------
    listener, route config        default/inference-gateway/llm-gw
    virtual host                  default/inference-gateway/llm-gw/*_example_com
    route                         httproute/default/llm-route/rule/0/match/0/*
    cluster of a rule             httproute/default/llm-route/rule/0
    cluster of one of its refs    httproute/default/llm-route/rule/0/backend/1
    cluster of one of its mirrors httproute/default/llm-route/rule/0-mirror-1
    ext_proc cluster of a policy  envoyextensionpolicy/default/ext-proc-policy/extproc/0
    ext_proc filter of a policy   envoy.filters.http.ext_proc/envoyextensionpolicy/...
    certificate (SDS)             default/example-cert

What follows `rule/`, `backend/` and `-mirror-` is a position where some patch names it so, and
otherwise something that lasts (see `routes.labels`).

Ours alone, because Envoy Gateway has no such thing:

    listener of a ListenerSet     listenerset/default/more/http
    listener at an own address    default/inference-gateway/llm-gw/127.0.0.2
    cluster of a pool             inferencepool/default/qwen-pool
    cluster of a v1alpha2 pool    xinferencepool/default/qwen-pool
    cluster of a pool's picker    inferencepool/default/qwen-pool/picker
    cluster of the own picker     pointsman/picker
    ext_proc filter of pools      envoy.filters.http.ext_proc/pointsman
    token usage, in JSON          envoy.filters.http.json_to_metadata/pointsman
    token usage, in streams       envoy.filters.http.sse_to_metadata/pointsman
    picker made for a pool        qwen-pool-picker
    fleet of a Gateway's Envoys   default/inference-gateway
    fleet of one machine's Envoy  pointsman

>>> listener("default", "inference-gateway", "llm-gw")
'default/inference-gateway/llm-gw'
>>> virtual_host("default/gw/http", "*.example.com")
'default/gw/http/*_example_com'
>>> rule("HTTPRoute", "default", "llm-route", "0")
'httproute/default/llm-route/rule/0'
>>> route("httproute/default/llm-route/rule/0", 0, "*")
'httproute/default/llm-route/rule/0/match/0/*'
>>> ext_proc_cluster("default", "ext-proc-policy", 0)
'envoyextensionpolicy/default/ext-proc-policy/extproc/0'
>>> ext_proc_filter("envoyextensionpolicy/default/ext-proc-policy/extproc/0")
'envoy.filters.http.ext_proc/envoyextensionpolicy/default/ext-proc-policy/extproc/0'
"""

from __future__ import annotations

from pointsman.resources.base import Ref
from pointsman.resources.inference_extension import EXPERIMENTAL_GROUP

EXT_PROC = "envoy.filters.http.ext_proc"
ROUTER = "envoy.filters.http.router"
CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
HTTP_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
TLS = "envoy.transport_sockets.tls"

DEFAULT_FILTER_CHAIN = "default_filter_chain"
OWN_PICKER_CLUSTER = "pointsman/picker"
POOL_FILTER = f"{EXT_PROC}/pointsman"
JSON_USAGE_FILTER = "envoy.filters.http.json_to_metadata/pointsman"
SSE_USAGE_FILTER = "envoy.filters.http.sse_to_metadata/pointsman"
INVALID_BACKEND_CLUSTER = "invalid-backend-cluster"
METADATA_NAMESPACE = "envoy-gateway"
SHARED_FLEET = "pointsman"


def fleet(gateway: Ref) -> str:
    """The Envoys of one Gateway, as they name themselves (`node.cluster`)."""
    return f"{gateway.namespace}/{gateway.name}"


def listener(namespace: str, gateway: str, section: str) -> str:
    """Listener, its filter chain and its route configuration, by the first listener of a port."""
    return f"{namespace}/{gateway}/{section}"


def set_listener(namespace: str, listener_set: str, section: str) -> str:
    """The same of a listener that a ListenerSet adds."""
    return f"listenerset/{namespace}/{listener_set}/{section}"


def listener_at(listener_name: str, address: str) -> str:
    """The listener at one of the addresses that a Gateway asks for."""
    return f"{listener_name}/{address}"


def virtual_host(listener_name: str, hostname: str) -> str:
    """Virtual host of a hostname on a listener; `*` when the listener takes any."""
    return f"{listener_name}/{_flat(hostname)}"


def rule(kind: str, namespace: str, name: str, label: str) -> str:
    """A route's rule, and the cluster that its backends share."""
    return f"{kind.lower()}/{namespace}/{name}/rule/{label}"


def rule_backend(rule_name: str, label: str) -> str:
    """One backend of a rule: a locality of the rule's cluster, or a cluster of its own."""
    return f"{rule_name}/backend/{label}"


def mirror(rule_name: str, label: str) -> str:
    """What gets copies of a rule's requests."""
    return f"{rule_name}-mirror-{label}"


def route(rule_name: str, match_index: int, hostname: str) -> str:
    """One match of a rule on one virtual host."""
    return f"{rule_name}/match/{match_index}/{_flat(hostname)}"


def ext_proc_cluster(namespace: str, policy: str, index: int) -> str:
    """The servers of an EnvoyExtensionPolicy's external processor."""
    return f"envoyextensionpolicy/{namespace}/{policy}/extproc/{index}".lower()


def ext_proc_filter(cluster: str) -> str:
    """The HTTP filter that asks the external processor behind `cluster`."""
    return f"{EXT_PROC}/{cluster}"


def secret(ref: Ref) -> str:
    """A certificate."""
    return f"{ref.namespace}/{ref.name}"


def pool(ref: Ref) -> str:
    """The model servers of an InferencePool; the two generations are told apart."""
    kind = "xinferencepool" if ref.group == EXPERIMENTAL_GROUP else "inferencepool"
    return f"{kind}/{ref.namespace}/{ref.name}"


def pool_picker(ref: Ref) -> str:
    """The picker that an InferencePool names, where that is not our own."""
    return f"{pool(ref)}/picker"


def provided_picker(pool: str) -> str:
    """The Service, Deployment and so on of a picker that is made for a pool without one."""
    return f"{pool}-picker"


def _flat(hostname: str) -> str:
    return hostname.replace(".", "_")
