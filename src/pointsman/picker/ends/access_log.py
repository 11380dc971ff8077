"""Envoy's access log stream: what is learnt of requests whose answers the picker does not see.

Entries come in batches and may be lost, so nothing is released by them. They are matched by the
number that the picker left in the request's dynamic metadata: a request id would be the client's
word, and the upstream host is another one after a fallback.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from envoy.service.accesslog.v3 import als_pb2
from google.protobuf.message import DecodeError

from pointsman.inference.headers import PICK_KEY, PICK_NAMESPACE, TTFT_TAG
from pointsman.picker.endpoints.table import Endpoint
from pointsman.picker.ends.usage import Usage, usage_of
from pointsman.wire.grpc import Call, Method, Responder, Status

log = logging.getLogger(__name__)

STREAM_ACCESS_LOGS = b"/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"

Labels = tuple[str, ...]
"""What the request counts as."""

OK_STATUSES = range(200, 300)

MAX_AWAITED = 20_000
"""Picks whose entry has not come yet; the oldest are given up."""

_parse = als_pb2.StreamAccessLogsMessage.FromString


@dataclass(frozen=True, slots=True)
class Awaited:
    """A pick whose entry is to come."""

    endpoint: Endpoint
    uncached_tokens: int
    labels: Labels


class AccessLog:
    """The receiving service, and the picks that it waits for."""

    def __init__(
        self,
        on_answer: Callable[[Labels, Usage | None], None] = lambda labels, usage: None,
        on_first_byte: Callable[[Labels, float], None] = lambda labels, seconds: None,
    ) -> None:
        """Both are told of good answers what they count as.

        `on_answer` also the tokens that it cost, `on_first_byte` after how many seconds it began.
        """
        self._on_answer = on_answer
        self._on_first_byte = on_first_byte
        self._awaited: OrderedDict[str, Awaited] = OrderedDict()
        self._number = 0
        self.entries = 0
        self.matched = 0

    def methods(self) -> dict[bytes, Method]:
        """The service's methods by path."""
        return {STREAM_ACCESS_LOGS: lambda responder: _Stream(self, responder)}

    def expect(self, endpoint: Endpoint, uncached_tokens: int, labels: Labels = ()) -> str:
        """Wait for a pick's entry; returns the number that must come back with it."""
        self._number += 1
        number = f"{self._number:x}"
        self._awaited[number] = Awaited(endpoint, uncached_tokens, labels)
        if len(self._awaited) > MAX_AWAITED:
            self._awaited.popitem(last=False)
        return number

    def take(self, entry: Any) -> None:
        """Learn from one entry (envoy.data.accesslog.v3.HTTPAccessLogEntry)."""
        self.entries += 1
        common = entry.common_properties
        metadata = common.metadata.filter_metadata
        if PICK_NAMESPACE not in metadata:
            return
        fields = metadata[PICK_NAMESPACE].fields
        number = fields[PICK_KEY].string_value if PICK_KEY in fields else ""
        awaited = self._awaited.pop(number, None)
        if awaited is None:
            return
        self.matched += 1
        ttft_s = _ttft_s(common)
        if entry.response.response_code.value in OK_STATUSES:
            self._on_answer(awaited.labels, usage_of(metadata))
            if ttft_s is not None:
                self._on_first_byte(awaited.labels, ttft_s)
        if entry.response.response_code.value != 200:
            return
        if _host(common.upstream_remote_address) != awaited.endpoint.address:
            return
        if ttft_s is not None:
            awaited.endpoint.prefill.learn(awaited.uncached_tokens, ttft_s)


class _Stream(Call):
    def __init__(self, log_: AccessLog, responder: Responder) -> None:
        self._log = log_
        self._responder = responder

    def received(self, message: bytes) -> None:
        try:
            batch = _parse(message)
        except DecodeError as error:
            self._responder.finish(Status.INVALID_ARGUMENT, str(error))
            return
        for entry in batch.http_logs.log_entry:
            self._log.take(entry)

    def half_closed(self) -> None:
        self._responder.finish()

    def gone(self) -> None:
        """Nothing is held."""


def _host(address: Any) -> str:
    at = address.socket_address
    host = f"[{at.address}]" if ":" in at.address else at.address
    return f"{host}:{at.port_value}"


def _ttft_s(common: Any) -> float | None:
    """Seconds to the first byte of the answer's body, or of its headers where that is not told."""
    tag = common.custom_tags.get(TTFT_TAG, "")
    if tag.isascii() and tag.isdigit() and len(tag) < 16:
        return int(tag) / 1e6
    if common.HasField("time_to_first_upstream_rx_byte"):
        return float(common.time_to_first_upstream_rx_byte.ToNanoseconds()) / 1e9
    return None
