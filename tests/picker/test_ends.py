"""What is learnt of requests, and the queue of tokens that servers have still to read."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2
from hypothesis import given
from hypothesis import strategies as st

from pointsman.picker.endpoints.table import Endpoint, Place, Reservation
from pointsman.picker.ends import access_log as access_log_module
from pointsman.picker.ends.access_log import STREAM_ACCESS_LOGS, AccessLog
from pointsman.picker.ends.rates import DEFAULT_TOKENS_PER_S, PrefillRate
from pointsman.picker.ends.usage import Usage, usage_of


def endpoint() -> Endpoint:
    return Endpoint(Place("10.0.0.1", 8000, "default", "p"))


def test_a_rate_is_believed_from_the_eighth_sample_on() -> None:
    rate = PrefillRate()
    for _ in range(7):
        rate.learn(1_000, 0.1)
    assert rate.tokens_per_s == DEFAULT_TOKENS_PER_S
    rate.learn(1_000, 0.1)
    assert rate.tokens_per_s == pytest.approx(10_000)


def test_requests_that_were_held_up_do_not_slow_a_server_down() -> None:
    rate = PrefillRate()
    for number in range(64):
        rate.learn(1_000, 0.1 if number % 4 == 0 else 5.0)
    assert rate.tokens_per_s == pytest.approx(10_000)


@pytest.mark.parametrize(("tokens", "seconds"), [(10, 0.1), (1_000, 0), (1_000, 1e-9), (300, 99)])
def test_what_says_nothing_is_left_out(tokens: int, seconds: float) -> None:
    rate = PrefillRate()
    for _ in range(20):
        rate.learn(tokens, seconds)
    assert not rate.is_learnt


def test_tokens_are_read_at_the_servers_rate() -> None:
    it = endpoint()
    it.prefill.tokens_per_s = 100.0
    it.read_until(10.0)
    it.reserve(1_000)
    it.read_until(13.0)
    assert it.tokens == 700
    it.read_until(100.0)
    assert it.tokens == 0
    it.read_until(200.0)
    it.reserve(50)
    assert it.tokens == 50


def test_a_first_byte_says_that_all_before_it_is_read() -> None:
    it = endpoint()
    first, second, third = it.reserve(100), it.reserve(200), it.reserve(300)
    second.release_tokens()
    assert it.tokens == 300
    first.release()
    assert (it.tokens, it.requests) == (300, 2)
    third.release()
    second.release()
    assert (it.tokens, it.requests) == (0, 0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "first", "end", "time"]), st.integers(0, 1_000)),
        max_size=40,
    )
)
def test_the_book_is_never_negative_and_ends_at_zero(steps: list[tuple[str, int]]) -> None:
    it, now = endpoint(), 0.0
    held: list[Reservation] = []
    for what, number in steps:
        if what == "reserve":
            held.append(it.reserve(number))
        elif what == "time":
            now += number / 1_000
            it.read_until(now)
        elif held:
            one = held[number % len(held)]
            if what == "first":
                one.release_tokens()
            else:
                one.release()
        assert it.tokens >= 0
        assert it.requests == sum(one.is_open for one in held)
    for one in held:
        one.release()
    assert it.requests == 0
    if held and not any(one.is_open for one in held):
        it.read_until(now + 10_000)
    assert it.tokens == 0


def entry(number: str, *, port: int = 8000, status: int = 200, ttft: str = "100000") -> Any:
    made = accesslog_pb2.HTTPAccessLogEntry()
    made.common_properties.metadata.filter_metadata["pointsman"]["pick"] = number
    address = made.common_properties.upstream_remote_address.socket_address
    address.address, address.port_value = "10.0.0.1", port
    made.common_properties.custom_tags["ttft"] = ttft
    made.response.response_code.value = status
    return made


class Nobody:
    """A responder that remembers how it ended."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def finish(self, *how: Any) -> None:
        self.ended.append(how)


def fed(log: AccessLog, *entries: Any) -> Nobody:
    responder = Nobody()
    call = log.methods()[STREAM_ACCESS_LOGS](responder)  # type: ignore[arg-type]
    batch = als_pb2.StreamAccessLogsMessage()
    batch.http_logs.log_entry.extend(entries)
    call.received(batch.SerializeToString())
    return responder


def test_entries_are_matched_by_the_picks_number() -> None:
    log, it = AccessLog(), endpoint()
    numbers = [log.expect(it, 1_000) for _ in range(8)]
    fed(log, *(entry(number) for number in numbers), entry("ffff"), entry(numbers[0]))
    assert (log.entries, log.matched) == (10, 8)
    assert it.prefill.tokens_per_s == pytest.approx(10_000)


def test_errors_and_fallbacks_teach_nothing() -> None:
    log, it = AccessLog(), endpoint()
    for _ in range(10):
        fed(log, entry(log.expect(it, 1_000), status=503))
        fed(log, entry(log.expect(it, 1_000), port=9))
        fed(log, entry(log.expect(it, 1_000), ttft="-"))
    assert log.matched == 30
    assert not it.prefill.is_learnt


def test_without_the_tag_the_first_upstream_byte_counts() -> None:
    log, it = AccessLog(), endpoint()
    for _ in range(8):
        made = entry(log.expect(it, 1_000), ttft="")
        made.common_properties.time_to_first_upstream_rx_byte.FromMilliseconds(50)
        fed(log, made)
    assert it.prefill.tokens_per_s == pytest.approx(20_000)


def test_picks_whose_entry_is_lost_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log_module, "MAX_AWAITED", 2)
    log, it = AccessLog(), endpoint()
    first, second, third = (log.expect(it, 1) for _ in range(3))
    fed(log, entry(first), entry(second), entry(third))
    assert log.matched == 2


def with_usage(made: Any, **tokens: float) -> Any:
    made.common_properties.metadata.filter_metadata["pointsman.usage"].update(tokens)
    return made


def test_the_tokens_of_good_answers_are_told_on() -> None:
    told: list[tuple[tuple[str, ...], Usage | None]] = []
    log, it = AccessLog(lambda labels, usage: told.append((labels, usage))), endpoint()

    def number() -> str:
        return log.expect(it, 1, ("asked", "target"))

    fed(
        log,
        with_usage(entry(number()), input_tokens=7, output_tokens=3, total_tokens=10),
        with_usage(entry(number()), input_tokens=7),
        entry(number()),
        with_usage(entry(number(), status=503), input_tokens=7),
    )
    usages = [Usage(7, 3), Usage(7, None), None]
    assert told == [(("asked", "target"), usage) for usage in usages]


def test_what_another_replica_has_picked_is_counted_and_teaches_nothing() -> None:
    told: list[tuple[tuple[str, ...], Usage | None]] = []
    begun: list[tuple[str, ...]] = []
    picks, hears = (
        AccessLog(
            lambda labels, usage: told.append((labels, usage)),
            lambda labels, seconds: begun.append(labels),
        )
        for _ in range(2)
    )
    it, here = endpoint(), endpoint()
    hears.expect(here, 1_000, ("mine", "mine"))
    for target in ("", "target"):
        made = with_usage(entry(picks.expect(it, 1_000)), input_tokens=7)
        names = {"model": "asked"} | ({"target": target} if target else {})
        made.common_properties.metadata.filter_metadata["pointsman"].update(names)
        fed(hears, made)
    assert told == [(("asked", target), Usage(7, None)) for target in ("asked", "target")]
    assert begun == [("asked", "asked"), ("asked", "target")]
    assert hears.matched == 0


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1, 1e12])
def test_a_number_that_is_no_count_of_tokens_is_not_known(number: float) -> None:
    made = with_usage(entry("1"), input_tokens=number)
    assert usage_of(made.common_properties.metadata.filter_metadata) is None


def test_bytes_that_are_no_batch_end_the_stream() -> None:
    responder = Nobody()
    call = AccessLog().methods()[STREAM_ACCESS_LOGS](responder)  # type: ignore[arg-type]
    call.received(b"\xff")
    assert responder.ended
