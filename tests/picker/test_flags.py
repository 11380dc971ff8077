"""The command line, in every form that Go programs take, and the environment."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from pointsman.inference.metrics import ENGINES, Metric
from pointsman.picker.extproc.machine import Mode
from pointsman.picker.settings import environment
from pointsman.picker.settings.flag_values import duration_s
from pointsman.picker.settings.flags import FlagError, check, parse
from pointsman.picker.settings.options import Options


@pytest.mark.parametrize(
    "arguments",
    [
        ["-poolName", "x", "-v", "4"],
        ["-poolName=x", "-v=4"],
        ["--poolName", "x", "--v", "4"],
        ["--pool-name=x", "-v=4"],
    ],
)
def test_all_forms_are_one(arguments: list[str]) -> None:
    assert parse(arguments) == Options(pool_name="x", verbosity=4)


def test_the_guides_flags() -> None:
    options = parse(
        [
            "-poolName",
            "vllm",
            "-v",
            "4",
            "-grpcPort",
            "9002",
            "-grpcHealthPort",
            "9003",
            "-zap-encoder",
            "json",
            "-secureServing=false",
            "-refreshMetricsInterval",
            "50ms",
            "-refreshPrometheusMetricsInterval",
            "5s",
            "-certPath",
            "/certs",
            "-destinationEndpointHintKey",
            "x-gateway-destination-endpoint",
            "-DestinationEndpointHintMetadataNamespace=envoy.lb",
            "--tracing=false",
        ]
    )
    assert not options.secure_serving
    assert options.logs_json
    assert options.refresh_metrics_interval_s == pytest.approx(0.05)
    assert options.cert_path == Path("/certs")
    assert options.ignored == (
        "refresh-prometheus-metrics-interval",
        "destinationEndpointHintKey",
        "DestinationEndpointHintMetadataNamespace",
        "tracing",
    )


def test_the_guide_names_metrics_of_servers_by_flags() -> None:
    options = parse(
        [
            "-poolName=x",
            "-totalQueuedRequestsMetric",
            "queue{kind=all}",
            "-kvCacheUsagePercentageMetric=vllm:gpu_cache_usage_perc",
            "-loraInfoMetric=",
        ]
    )
    engine = options.engine_metrics
    assert engine is not None
    assert engine.waiting == (Metric("queue", "kind", "all"),)
    assert engine.kv_cache == (Metric("vllm:gpu_cache_usage_perc"),)
    assert engine.lora is None
    assert engine.running == ENGINES[0].running


def test_a_boolean_stands_alone_and_listen_repeats() -> None:
    options = parse(
        ["--secureServing", "--listen", "unix:/a", "--listen=:80", "--exit-with-parent"]
    )
    assert options.secure_serving
    assert options.exit_with_parent
    assert options.listen == ("unix:/a", ":80")


def test_what_the_reference_takes_in_a_cluster() -> None:
    options = parse(
        [
            "--endpoint-selector=app in (a,b),tier!=test",
            "--endpoint-target-ports=8000,8001",
            "--drain-timeout=45s",
            "--grpc-max-recv-msg-size=1000000",
            "--grpc-max-send-msg-size=2000000",
            "--tls-min-version=VersionTLS13",
            "--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256",
            "--enable-cert-reload=false",
            "--metrics-staleness-threshold=2s",
            "--metrics-endpoint-auth=false",
            "--metrics-cert-dir=/metrics",
            "--ha-enable-leader-election",
            "--health-checking",
        ],
        "mine",
    )
    check(options)
    assert options.endpoint_selector is not None
    assert options.endpoint_selector.matches({"app": "b"})
    assert not options.endpoint_selector.matches({"app": "b", "tier": "test"})
    assert (options.endpoint_ports, options.pool_namespace) == ((8000, 8001), "mine")
    assert options.drain_timeout_s == 45
    assert (options.max_received_bytes, options.max_sent_bytes) == (1_000_000, 2_000_000)
    assert options.tls_min_version is ssl.TLSVersion.TLSv1_3
    assert options.tls_ciphers == ("ECDHE-RSA-AES128-GCM-SHA256",)
    assert not options.reloads_certificates
    assert options.metrics_staleness_s == 2
    assert options.metrics_cert_path == Path("/metrics")
    assert not options.guards_metrics
    assert options.leader_election
    assert options.ignored == ("health-checking",)


def test_metrics_are_guarded_in_a_cluster_unless_it_is_said_otherwise() -> None:
    assert parse(["--pool-name=x"]).guards_metrics
    assert not parse(["--pool-name=x", "--feed=/f"]).guards_metrics


def test_what_needs_an_api_server_changes_nothing_on_one_machine() -> None:
    flags = ["--pool-name=x", "--metrics-endpoint-auth", "--ha-enable-leader-election", "--tracing"]
    assert parse(flags).idle == ("tracing",)
    options = parse([*flags, "--feed=/f"])
    check(options)
    assert options.idle == ("tracing", "metrics-endpoint-auth", "ha-enable-leader-election")
    assert not options.guards_metrics
    assert not options.elects_leader


def test_an_explicit_verbosity_outranks_zaps_level() -> None:
    assert parse(["--zap-log-level=debug"]).verbosity == 4
    assert parse(["--zap-log-level=error", "-v=3"]).verbosity == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--poolNam", "x"], "unknown flag --poolNam; did you mean --poolName?"),
        (["--pool-nmae", "x"], "unknown flag --pool-nmae; did you mean --pool-name?"),
        (["--xyzzy"], "unknown flag --xyzzy"),
        (["-poolName"], "--poolName needs a value"),
        (["pool"], "'pool' is no flag"),
        (["-grpcPort", "99999"], "--grpcPort: 99999 is not a port"),
        (["-grpcPort", "x"], "--grpcPort: 'x' is not a whole number"),
        (["-secureServing=maybe"], "neither true nor false"),
        (["-refreshMetricsInterval", "5"], "is not a duration"),
        (["--listen", "nowhere"], "neither unix:PATH nor host:port"),
        (["--endpoint-selector", "app in x"], "unable to parse the selector 'app in x'"),
        (["--endpoint-target-ports", "1,1"], "is not 1 to 8 different ports"),
        (["--endpoint-target-ports=1,2,3,4,5,6,7,8,9"], "is not 1 to 8 different ports"),
        (["--pool-group=example.com"], "is neither inference.networking.k8s.io nor"),
        (["--tls-min-version=VersionTLS10"], "only VersionTLS12 or VersionTLS13"),
        (["--tls-cipher-suites=RC4"], "'RC4' is not a cipher suite"),
        (["--lora-info-metric=x"], "--lora-info-metric is no more: name the metric in the"),
        (["-destinationEndpointHintKey=target-pod"], "only 'x-gateway-destination-endpoint'"),
        (["-loraInfoMetric={"], "--loraInfoMetric: '{' is neither name nor"),
        (["--grpc-max-recv-msg-size=0"], "0 is not above 0"),
        (["--zap-log-level=loud"], "'loud' is not debug, info, error"),
    ],
)
def test_errors_say_what_to_write(arguments: list[str], message: str) -> None:
    with pytest.raises(FlagError) as error:
        parse(arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--config-file=a --config-text=b --pool-name=x", "two words for one thing"),
        ("--endpoint-selector=a=b", "are given together"),
        ("--endpoint-target-ports=80 --pool-name=x", "are given together"),
        ("--pool-name=x --endpoint-selector=a --endpoint-target-ports=80", "exclude each other"),
        ("", "--pool-name NAME is needed, or --endpoint-selector LABELS"),
        ("--feed=/f", "--pool-name NAME or --listen ADDRESS is needed"),
        ("--pool-name=x --metrics-client-ca-file=/ca", "needs --metrics-cert-dir"),
    ],
)
def test_flags_that_do_not_go_together(arguments: str, message: str) -> None:
    with pytest.raises(FlagError, match=message):
        check(parse(arguments.split()))


@pytest.mark.parametrize(
    ("text", "seconds"), [("50ms", 0.05), ("1m30s", 90), ("1.5h", 5400), ("2us", 2e-6)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


def test_use_streaming_counts_only_where_the_stream_is_silent() -> None:
    modes = [
        environment.mode_without_config({"USE_STREAMING": said})
        for said in ("true", "false", "what")
    ]
    assert modes == [Mode.FULL_DUPLEX_STREAMED, Mode.BUFFERED, Mode.BUFFERED]
    assert environment.mode_without_config({}) is Mode.FULL_DUPLEX_STREAMED


def test_the_environment_tells_who_and_where_we_are() -> None:
    told = {"NAMESPACE": "a", "POD_NAMESPACE": "b", "POD_NAME": "llama-epp-5f7d8c9b4-x2v8q"}
    assert environment.own_namespace(told) == "a"
    assert environment.own_namespace({"POD_NAMESPACE": "b"}) == "b"
    assert environment.own_namespace({}) == "default"
    assert environment.identity(told) == "llama-epp-5f7d8c9b4-x2v8q"
    assert environment.name_of_workload(told) == "llama-epp"
    assert environment.name_of_workload({}) == "endpoints"


@pytest.mark.parametrize("name", ["KV_CACHE_THRESHOLD", "QUEUE_THRESHOLD_CRITICAL"])
@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "inf"])
def test_a_threshold_that_is_none_is_an_error(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='{value}' is no number above 0"):
        environment.detector({name: value})


REFERENCE = """
allow-experimental-plugins cert-path config-file config-text disable-endpoint-subset-filter
drain-timeout emit-endpoint-scores enable-cert-reload enable-grpc-stream-metrics enable-pprof
endpoint-selector endpoint-target-ports grpc-health-port grpc-max-recv-msg-size
grpc-max-send-msg-size grpc-port ha-enable-leader-election health-checking metrics-cert-dir
metrics-client-ca-file metrics-endpoint-auth metrics-port metrics-staleness-threshold pool-group
pool-name pool-namespace refresh-metrics-interval refresh-prometheus-metrics-interval secure-serving
tls-cipher-suites tls-min-version tracing v
"""
GUIDE = """
grpcPort grpcHealthPort metricsPort destinationEndpointHintKey poolName poolNamespace
DestinationEndpointHintMetadataNamespace refreshMetricsInterval refreshPrometheusMetricsInterval v
secureServing certPath totalQueuedRequestsMetric kvCacheUsagePercentageMetric loraInfoMetric
zap-encoder zap-log-level zap-devel zap-time-encoding zap-stacktrace-level
"""
VALUES = {
    "drain-timeout": "1s",
    "destinationEndpointHintKey": "x-gateway-destination-endpoint",
    "DestinationEndpointHintMetadataNamespace": "envoy.lb",
    "metrics-staleness-threshold": "1s",
    "pool-group": "inference.networking.x-k8s.io",
    "tls-cipher-suites": "",
    "tls-min-version": "",
    "totalQueuedRequestsMetric": "a",
    "kvCacheUsagePercentageMetric": "a",
    "loraInfoMetric": "a",
    "zap-encoder": "console",
}


@pytest.mark.parametrize("name", [*REFERENCE.split(), *GUIDE.split()])
def test_every_flag_of_the_reference_is_taken(name: str) -> None:
    value = VALUES.get(name, "1s" if name.lower().endswith("interval") else "1")
    parse([f"--{name}={value}"])
