"""The command line, in every form that Go programs take."""

from __future__ import annotations

import pytest

from pointsman.picker.extproc.machine import Mode
from pointsman.picker.flags import FlagError, Options, duration_s, parse
from pointsman.picker.process import mode_without_config


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
            "-certPath",
            "/certs",
            "-destinationEndpointHintKey",
            "x-gateway-destination-endpoint",
            "--tracing=false",
        ]
    )
    assert not options.secure_serving
    assert options.refresh_metrics_interval_s == pytest.approx(0.05)
    assert str(options.cert_path) == "/certs"
    assert options.ignored == ("zap-encoder", "destinationEndpointHintKey", "tracing")


def test_a_boolean_stands_alone_and_listen_repeats() -> None:
    options = parse(
        ["--secureServing", "--listen", "unix:/a", "--listen=:80", "--exit-with-parent"]
    )
    assert options.secure_serving
    assert options.exit_with_parent
    assert options.listen == ("unix:/a", ":80")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--poolNam", "x"], "unknown flag --poolNam; did you mean --poolName?"),
        (["--pool-nmae", "x"], "unknown flag --pool-nmae; did you mean --pool-name?"),
        (["--xyzzy"], "unknown flag --xyzzy"),
        (["-poolName"], "--poolName needs a value"),
        (["pool"], "'pool' is no flag"),
        (["-grpcPort", "99999"], "--grpcPort: 99999 is not a port"),
        (["-secureServing=maybe"], "neither true nor false"),
        (["-refreshMetricsInterval", "5"], "is not a duration"),
        (["--listen", "nowhere"], "neither unix:PATH nor host:port"),
        (["--endpoint-selector", "app=x"], "--endpoint-selector is not served: the servers are"),
    ],
)
def test_errors_say_what_to_write(arguments: list[str], message: str) -> None:
    with pytest.raises(FlagError) as error:
        parse(arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("50ms", 0.05), ("1m30s", 90), ("1.5h", 5400), ("2us", 2e-6)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


def test_use_streaming_counts_only_where_the_stream_is_silent() -> None:
    assert mode_without_config(None) is Mode.FULL_DUPLEX_STREAMED
    assert mode_without_config("true") is Mode.FULL_DUPLEX_STREAMED
    assert mode_without_config("false") is Mode.BUFFERED
    assert mode_without_config("what") is Mode.BUFFERED


REFERENCE = """
allow-experimental-plugins cert-path config-file config-text disable-endpoint-subset-filter
drain-timeout emit-endpoint-scores enable-cert-reload enable-grpc-stream-metrics enable-pprof
grpc-health-port grpc-max-recv-msg-size grpc-max-send-msg-size grpc-port ha-enable-leader-election
health-checking metrics-cert-dir metrics-client-ca-file metrics-endpoint-auth metrics-port
metrics-staleness-threshold pool-group pool-name pool-namespace refresh-metrics-interval
refresh-prometheus-metrics-interval secure-serving tls-cipher-suites tls-min-version tracing v
"""


@pytest.mark.parametrize("name", REFERENCE.split())
def test_every_flag_of_the_reference_is_taken(name: str) -> None:
    value = "1s" if name.endswith("interval") else "1"
    parse([f"--{name}={value}"])
