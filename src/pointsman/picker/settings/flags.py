"""The command line of the picker, in every form that Go programs take.

`-name value`, `-name=value`, `--name value`, `--name=value`; a boolean may stand alone. Three
generations of names are one set of options: those of the guide's picker (`-poolName`), those with
dashes (`--pool-name`; each may be written `-poolName` too), and our own. What the reference picker
takes and this one has no use for is accepted and named in the log; what it took once and does not
any more is an error that says what came in its place; what nobody takes is an error that names the
nearest.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pointsman.inference.headers import DESTINATION_ENDPOINT, DESTINATION_NAMESPACE
from pointsman.inference.metrics import ENGINES, EngineMetrics
from pointsman.picker.scheduling.extractors import metric_of
from pointsman.picker.settings import flag_values as values
from pointsman.picker.settings.options import Options
from pointsman.resources.base import DEFAULT_NAMESPACE


class FlagError(Exception):
    """The command line is wrong; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class _Flag:
    target: str
    """The field of `Options`, or what `_gathered` makes one of."""
    names: tuple[str, ...]
    read: Callable[[str], Any]
    help: str

    @property
    def is_boolean(self) -> bool:
        return self.read is values.boolean


def _flags(*rows: tuple[str, str, Callable[[str], Any], str]) -> tuple[_Flag, ...]:
    return tuple(_Flag(row[0], tuple(row[1].split()), row[2], row[3]) for row in rows)


_FLAGS = _flags(
    ("pool_name", "pool-name poolName", str, "the pool for gateways that name none"),
    ("pool_namespace", "pool-namespace poolNamespace", str, "its namespace, and of the pods"),
    ("pool_group", "pool-group", values.group, "its API group"),
    ("endpoint_selector", "endpoint-selector", values.selector, "pods by labels, without a pool"),
    ("endpoint_ports", "endpoint-target-ports", values.target_ports, "their ports, at most 8"),
    ("kubeconfig", "kubeconfig", values.optional_path, "where the API server is, outside a pod"),
    ("context", "context", str, "of the kubeconfig"),
    ("grpc_port", "grpc-port grpcPort", values.port, "ext_proc and health"),
    ("grpc_health_port", "grpc-health-port grpcHealthPort", values.port, "health alone"),
    ("metrics_port", "metrics-port metricsPort", values.port, "Prometheus metrics"),
    (
        *("metrics_auth", "metrics-endpoint-auth", values.boolean),
        "the API server says who may read the metrics",
    ),
    (
        *("metrics_cert_path", "metrics-cert-dir", values.optional_path),
        "folder of tls.crt and tls.key for the metrics port",
    ),
    (
        *("metrics_client_ca", "metrics-client-ca-file", values.optional_path),
        "authorities of who may read the metrics",
    ),
    (
        *("secure_serving", "secure-serving secureServing", values.boolean),
        "TLS on the gRPC port",
    ),
    ("cert_path", "cert-path certPath", values.optional_path, "folder of tls.crt and tls.key"),
    (
        *("reloads_certificates", "enable-cert-reload", values.boolean),
        "take up certificates that change",
    ),
    ("tls_min_version", "tls-min-version", values.tls_version, "VersionTLS12 or VersionTLS13"),
    ("tls_ciphers", "tls-cipher-suites", values.cipher_suites, "of TLS 1.2, by commas"),
    (
        *("max_received_bytes", "grpc-max-recv-msg-size", values.positive),
        "bytes of a message from the gateway",
    ),
    (
        *("max_sent_bytes", "grpc-max-send-msg-size", values.positive),
        "bytes of a message to the gateway",
    ),
    (
        *("refresh", "refresh-metrics-interval refreshMetricsInterval", values.duration_s),
        "pause between readings of a server's metrics",
    ),
    (
        *("staleness", "metrics-staleness-threshold", values.duration_s),
        "age at which a reading counts as none",
    ),
    (
        *("leader_election", "ha-enable-leader-election", values.boolean),
        "of several replicas only one is ready",
    ),
    ("drain", "drain-timeout", values.duration_s, "time that open streams get at the end"),
    ("verbosity", "v", values.integer, "2 normal, 3 verbose, 4 debug"),
    ("zap_level", "zap-log-level", values.log_level, "debug, info or error"),
    ("logs_json", "zap-encoder", values.encoder, "json or console"),
    ("config_file", "config-file", values.optional_path, "an EndpointPickerConfig"),
    ("config_text", "config-text", str, "the same, in the flag"),
    ("waiting", "totalQueuedRequestsMetric", str, "a metric of servers: requests that wait"),
    ("kv_cache", "kvCacheUsagePercentageMetric", str, "a metric of servers: KV cache in use"),
    ("lora", "loraInfoMetric", str, "a metric of servers: adapters"),
    (
        *("ignores_subset", "disable-endpoint-subset-filter", values.boolean),
        "do not let gateways narrow the choice",
    ),
    ("bind", "bind", str, "address of the ports above"),
    ("listen", "listen", values.address, "unix:PATH or host:port for all pools, no TLS"),
    ("feed", "feed", values.unix_path, "unix:PATH of the process that has the objects"),
    ("admin_socket", "admin-socket", values.unix_path, "PATH of the admin socket"),
    (
        *("trust_objective_header", "trust-objective-header", values.boolean),
        "believe objectives from foreign gateways",
    ),
    (
        *("trust_debug_header", "trust-debug-header", values.boolean),
        "tell decisions to clients of foreign gateways",
    ),
    ("exit_with_parent", "exit-with-parent", values.boolean, "drain and exit when stdin ends"),
)
_BY_NAME: Mapping[str, _Flag] = {name: flag for flag in _FLAGS for name in flag.names}

_SECONDS = {
    "refresh": "refresh_metrics_interval_s",
    "staleness": "metrics_staleness_s",
    "drain": "drain_timeout_s",
}
"""Short targets of fields with a unit."""
_METRICS = {
    "waiting": "totalQueuedRequestsMetric",
    "kv_cache": "kvCacheUsagePercentageMetric",
    "lora": "loraInfoMetric",
}
"""What of vLLM's metrics may be named otherwise, by the flags of the guide's picker."""

_IGNORED: Mapping[str, Callable[[str], Any]] = {
    "allow-experimental-plugins": values.boolean,
    "destinationEndpointHintKey": values.only(DESTINATION_ENDPOINT),
    "destinationEndpointHintMetadataNamespace": values.only(DESTINATION_NAMESPACE),
    "DestinationEndpointHintMetadataNamespace": values.only(DESTINATION_NAMESPACE),
    "emit-endpoint-scores": values.boolean,
    "enable-grpc-stream-metrics": values.boolean,
    "enable-pprof": values.boolean,
    "health-checking": values.boolean,
    "refresh-prometheus-metrics-interval": values.duration_s,
    "tracing": values.boolean,
    "zap-devel": values.boolean,
    "zap-stacktrace-level": str,
    "zap-time-encoding": str,
}
"""Of the reference picker, without a meaning here."""

_ENGINES = "name the metric in the configuration, in the engineConfigs of core-metrics-extractor"
_REMOVED: Mapping[str, str] = {
    "total-queued-requests-metric": f"{_ENGINES}, as queuedRequestsSpec",
    "total-running-requests-metric": f"{_ENGINES}, as runningRequestsSpec",
    "kv-cache-usage-percentage-metric": f"{_ENGINES}, as kvUsageSpec",
    "lora-info-metric": f"{_ENGINES}, as loraSpec",
    "cache-info-metric": f"{_ENGINES}, as cacheInfoSpec",
}
"""What the reference picker took once, and what came in its place."""


def parse(arguments: Sequence[str], namespace: str = DEFAULT_NAMESPACE) -> Options:
    """Read a command line.

    Args:
        arguments: all words behind the command.
        namespace: of the pool, where no flag names one.

    Raises:
        FlagError: a flag is unknown or its value is wrong.
    """
    given: dict[str, Any] = {}
    ignored: list[str] = []
    rest = list(arguments)
    while rest:
        name, value = _next(rest)
        flag = _BY_NAME.get(name)
        try:
            read = flag.read(value) if flag is not None else _IGNORED[name](value)
        except ValueError as error:
            raise FlagError(f"--{name}: {error}") from error
        if flag is None:
            ignored.append(name)
        elif flag.target == "listen":
            given["listen"] = (*given.get("listen", ()), read)
        else:
            given[flag.target] = read
    if not given.get("pool_namespace"):
        given["pool_namespace"] = namespace
    return replace(Options(), **_gathered(given), ignored=tuple(ignored))


def check(options: Options) -> None:
    """Raises FlagError where flags that are right by themselves do not go together."""
    selects = options.endpoint_selector is not None
    if options.config_file is not None and options.config_text:
        raise FlagError("--config-file and --config-text are two words for one thing; give one")
    if selects != bool(options.endpoint_ports):
        raise FlagError("--endpoint-selector and --endpoint-target-ports are given together")
    if selects and options.pool_name:
        raise FlagError("--pool-name and --endpoint-selector exclude each other: both say whose")
    if not options.has_own_pool and options.is_in_cluster:
        raise FlagError(
            "--pool-name NAME is needed, or --endpoint-selector LABELS, to say among which pods; "
            "or --feed unix:PATH of a process that knows"
        )
    if not options.has_own_pool and not options.listen:
        raise FlagError("--pool-name NAME or --listen ADDRESS is needed")
    if options.metrics_client_ca is not None and options.metrics_cert_path is None:
        raise FlagError("--metrics-client-ca-file needs --metrics-cert-dir, since it needs TLS")


def _gathered(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Options` that several flags say, or that are named otherwise."""
    fields = {_SECONDS.get(target, target): value for target, value in given.items()}
    level = fields.pop("zap_level", None)
    if level is not None:
        fields.setdefault("verbosity", level)
    metrics = {name: fields.pop(name) for name in _METRICS if name in fields}
    if metrics:
        fields["engine_metrics"] = _engine(metrics)
    return fields


def _engine(specs: Mapping[str, str]) -> EngineMetrics:
    """The metrics of vLLM, some of them named otherwise; an empty name is of none."""
    named: dict[str, Any] = {"engine": "named by flags"}
    for target, spec in specs.items():
        try:
            found = metric_of(spec) if spec else None
        except ValueError as error:
            raise FlagError(f"--{_METRICS[target]}: {error}") from error
        if target == "lora":
            named[target] = found.name if found is not None else None
        else:
            named[target] = (found,) if found is not None else ()
    return replace(ENGINES[0], **named)


def _next(rest: list[str]) -> tuple[str, str]:
    """Take one flag and its value from the front; a name in dashes for one that is known so."""
    word = rest.pop(0)
    if not word.startswith("-") or word in ("-", "--"):
        raise FlagError(f"{word!r} is no flag; the picker takes nothing but flags")
    written, has_value, value = word.lstrip("-").partition("=")
    name = written if written in _BY_NAME or written in _IGNORED else _dashed(written)
    if name in _REMOVED:
        raise FlagError(f"--{written} is no more: {_REMOVED[name]}")
    flag = _BY_NAME.get(name)
    if flag is None and name not in _IGNORED:
        raise FlagError(_unknown(written))
    takes_none = flag.is_boolean if flag is not None else _IGNORED[name] is values.boolean
    if not has_value:
        if takes_none:
            value = "true"
        elif rest:
            value = rest.pop(0)
        else:
            raise FlagError(f"--{written} needs a value")
    return name, value


def _dashed(name: str) -> str:
    """`poolName` as `pool-name`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"-{found[1].lower()}", name)


def _unknown(name: str) -> str:
    by_lower = {each.lower(): each for each in (*_BY_NAME, *_IGNORED)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    hint = f"; did you mean --{by_lower[near[0]]}?" if near else ""
    return f"unknown flag --{name}{hint}"


def usage() -> str:
    """One line for each flag."""
    return "\n".join(_usage())


def _usage() -> Iterator[str]:
    for flag in _FLAGS:
        shown = ", ".join(f"-{name}" if len(name) == 1 else f"--{name}" for name in flag.names)
        yield f"  {shown:<52} {flag.help}"
