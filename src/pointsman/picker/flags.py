"""The command line of the picker, in every form that Go programs take.

`-name value`, `-name=value`, `--name value`, `--name=value`; a boolean may stand alone. Three
generations of names are one set of options: those of the guide's picker (`-poolName`), those with
dashes (`--pool-name`), and our own. What the reference picker takes and this one has no use for is
accepted and ignored; what nobody takes is an error that names the nearest.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


class FlagError(Exception):
    """The command line is wrong; the text says what to write instead."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    pool_name: str = ""
    """Whose endpoints are picked for gateways that name no pool."""
    pool_namespace: str = "default"
    grpc_port: int = 9002
    grpc_health_port: int = 9003
    metrics_port: int = 9090
    secure_serving: bool = True
    """TLS on the gRPC port, with a self-signed certificate unless one is given."""
    cert_path: Path | None = None
    """Folder of `tls.crt` and `tls.key`."""
    refresh_metrics_interval_s: float = 1.0
    verbosity: int = 2
    """2 is normal, 3 verbose, 4 and above debug."""
    bind: str = "0.0.0.0"  # a pod's ports are reached from outside of it
    listen: tuple[str, ...] = ()
    """Own addresses, `unix:PATH` or `host:port`, without TLS, for all pools."""
    feed: Path | None = None
    """The Unix socket where objects come from."""
    admin_socket: Path | None = None
    exit_with_parent: bool = False
    """Drain and exit when stdin ends."""
    config_file: Path | None = None
    """An EndpointPickerConfig; read again when it changes."""
    config_text: str = ""
    """The same, in the command line."""
    trust_objective_header: bool = True
    """Of gateways that are not ours: whether a request's own objective counts."""
    ignores_subset: bool = False
    """Do not let the gateway narrow the choice."""
    trust_debug_header: bool = False
    """Of gateways that are not ours: whether a request may ask how it was decided."""
    ignored: tuple[str, ...] = field(default=())
    """Flags that were given and change nothing."""


def _boolean(text: str) -> bool:
    """Go's ParseBool."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """Go's ParseDuration, in seconds.

    >>> duration_s("50ms"), duration_s("1m30s"), duration_s("0")
    (0.05, 90.0, 0.0)
    """
    if text == "0":
        return 0.0
    total, rest = 0.0, text
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        after = rest[digits:]
        letters = len(after) - len(after.lstrip("nuµmsh"))
        unit = _UNITS_S.get(after[:letters])
        if not digits or unit is None:
            raise ValueError(f"{text!r} is not a duration such as 50ms or 1m30s")
        total += float(rest[:digits]) * unit
        rest = after[letters:]
    if not text:
        raise ValueError("a duration is missing")
    return total


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError(f"{text} is not a port")
    return number


def _unix_path(text: str) -> Path:
    return Path(text.removeprefix("unix:"))


def _address(text: str) -> str:
    if not text.startswith("unix:") and not text.rpartition(":")[2].isdigit():
        raise ValueError(f"{text!r} is neither unix:PATH nor host:port")
    return text


def _folder(text: str) -> Path | None:
    return Path(text) if text else None


@dataclass(frozen=True, slots=True)
class _Flag:
    target: str
    read: Callable[[str], Any]
    help: str

    @property
    def is_boolean(self) -> bool:
        return self.read is _boolean


_FLAGS: tuple[tuple[tuple[str, ...], _Flag], ...] = (
    (("pool-name", "poolName"), _Flag("pool_name", str, "the pool for gateways that name none")),
    (("pool-namespace", "poolNamespace"), _Flag("pool_namespace", str, "its namespace")),
    (("grpc-port", "grpcPort"), _Flag("grpc_port", _port, "ext_proc and health")),
    (("grpc-health-port", "grpcHealthPort"), _Flag("grpc_health_port", _port, "health alone")),
    (("metrics-port", "metricsPort"), _Flag("metrics_port", _port, "Prometheus metrics")),
    (
        ("secure-serving", "secureServing"),
        _Flag("secure_serving", _boolean, "TLS on the gRPC port"),
    ),
    (("cert-path", "certPath"), _Flag("cert_path", _folder, "folder of tls.crt and tls.key")),
    (
        ("refresh-metrics-interval", "refreshMetricsInterval"),
        _Flag("refresh_metrics_interval_s", duration_s, "pause between readings of metrics"),
    ),
    (("v",), _Flag("verbosity", int, "2 normal, 3 verbose, 4 debug")),
    (("config-file",), _Flag("config_file", Path, "an EndpointPickerConfig")),
    (("config-text",), _Flag("config_text", str, "the same, in the flag")),
    (("bind",), _Flag("bind", str, "address of the ports above")),
    (("listen",), _Flag("listen", _address, "unix:PATH or host:port for all pools, no TLS")),
    (("feed",), _Flag("feed", _unix_path, "unix:PATH of the process that has the objects")),
    (("admin-socket",), _Flag("admin_socket", _unix_path, "PATH of the admin socket")),
    (
        ("trust-objective-header",),
        _Flag("trust_objective_header", _boolean, "believe objectives from foreign gateways"),
    ),
    (
        ("disable-endpoint-subset-filter",),
        _Flag("ignores_subset", _boolean, "do not let gateways narrow the choice"),
    ),
    (
        ("trust-debug-header",),
        _Flag("trust_debug_header", _boolean, "tell decisions to clients of foreign gateways"),
    ),
    (
        ("exit-with-parent",),
        _Flag("exit_with_parent", _boolean, "drain and exit when stdin ends"),
    ),
)
_BY_NAME: Mapping[str, _Flag] = {name: flag for names, flag in _FLAGS for name in names}

_IGNORED_BOOLEANS = frozenset(
    {
        "allow-experimental-plugins",
        "emit-endpoint-scores",
        "enable-cert-reload",
        "enable-grpc-stream-metrics",
        "enable-pprof",
        "ha-enable-leader-election",
        "health-checking",
        "metrics-endpoint-auth",
        "tracing",
        "zap-devel",
    }
)
_IGNORED = frozenset(
    {
        "destinationEndpointHintKey",
        "destinationEndpointHintMetadataNamespace",
        "DestinationEndpointHintMetadataNamespace",
        "refreshPrometheusMetricsInterval",
        "refresh-prometheus-metrics-interval",
        "totalQueuedRequestsMetric",
        "kvCacheUsagePercentageMetric",
        "loraInfoMetric",
        "drain-timeout",
        "metrics-cert-dir",
        "metrics-client-ca-file",
        "metrics-staleness-threshold",
        "pool-group",
        "grpc-max-recv-msg-size",
        "grpc-max-send-msg-size",
        "tls-cipher-suites",
        "tls-min-version",
        "zap-encoder",
        "zap-log-level",
        "zap-stacktrace-level",
        "zap-time-encoding",
    }
)
"""Of the reference picker, without a meaning here."""

_SERVERS_BY_POOL = "the servers are those of an InferencePool; name it with --pool-name"
_REFUSED: Mapping[str, str] = {
    "endpoint-selector": _SERVERS_BY_POOL,
    "endpoint-target-ports": _SERVERS_BY_POOL,
}
"""Of the reference picker, and not served: to ignore one would pick among other servers."""


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line.

    Raises:
        FlagError: a flag is unknown or its value is wrong.
    """
    values: dict[str, Any] = {}
    ignored: list[str] = []
    rest = list(arguments)
    while rest:
        name, value, flag = _next(rest)
        if flag is None:
            ignored.append(name)
            continue
        try:
            read = flag.read(value)
        except ValueError as error:
            raise FlagError(f"--{name}: {error}") from error
        if flag.target == "listen":
            values["listen"] = (*values.get("listen", ()), read)
        else:
            values[flag.target] = read
    return replace(Options(), **values, ignored=tuple(ignored))


def _next(rest: list[str]) -> tuple[str, str, _Flag | None]:
    """Take one flag and its value from the front."""
    word = rest.pop(0)
    if not word.startswith("-") or word in ("-", "--"):
        raise FlagError(f"{word!r} is no flag; the picker takes nothing but flags")
    name, has_value, value = word.lstrip("-").partition("=")
    if name in _REFUSED:
        raise FlagError(f"--{name} is not served: {_REFUSED[name]}")
    flag = _BY_NAME.get(name)
    if flag is None and name not in _IGNORED and name not in _IGNORED_BOOLEANS:
        raise FlagError(_unknown(name))
    takes_none = flag.is_boolean if flag is not None else name in _IGNORED_BOOLEANS
    if not has_value:
        if takes_none:
            value = "true"
        elif rest:
            value = rest.pop(0)
        else:
            raise FlagError(f"--{name} needs a value")
    return name, value, flag


def _unknown(name: str) -> str:
    known = [*_BY_NAME, *_IGNORED, *_IGNORED_BOOLEANS]
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    hint = f"; did you mean --{by_lower[near[0]]}?" if near else ""
    return f"unknown flag --{name}{hint}"


def usage() -> str:
    """One line for each flag."""
    lines = []
    for names, flag in _FLAGS:
        shown = ", ".join(f"-{name}" if len(name) == 1 else f"--{name}" for name in names)
        lines.append(f"  {shown:<52} {flag.help}")
    return "\n".join(lines)
