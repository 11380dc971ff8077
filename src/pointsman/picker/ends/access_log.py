"""Envoy's access log stream: what is learnt of requests whose answers the picker does not see.

Entries come in batches and may be lost, so nothing is released by them. They are matched by the
number that the picker left in the request's dynamic metadata: a request id would be the client's
word, and the upstream host is another one after a fallback.

Of several replicas a gateway tells one, whoever picked. Each number names its process, so that none
is taken for another one's; what the answer to another replica's pick has cost is counted all the
same, by the names that stand in the metadata, and nothing is learnt of its server.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from envoy.service.accesslog.v3 import als_pb2
from google.protobuf.message import DecodeError

from pointsman.inference.headers import (
    MODEL_KEY,
    PICK_KEY,
    PICK_NAMESPACE,
    TARGET_KEY,
    TTFT_TAG,
)
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
        self._own = f"{secrets.token_hex(4)}-"
        """How the numbers of this process begin."""
        self._number = 0
        self.entries = 0
        self.matched = 0

    def methods(self) -> dict[bytes, Method]:
        """The service's methods by path."""
        return {STREAM_ACCESS_LOGS: lambda responder: _Stream(self, responder)}

    def expect(self, endpoint: Endpoint, uncached_tokens: int, labels: Labels = ()) -> str:
        """Wait for a pick's entry; returns the number that must come back with it."""
        self._number += 1
        number = f"{self._own}{self._number:x}"
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
        number = _text(fields, PICK_KEY)
        awaited = self._awaited.pop(number, None)
        if awaited is not None:
            self.matched += 1
            labels = awaited.labels
        elif number and not number.startswith(self._own):
            model = _text(fields, MODEL_KEY)
            labels = (model, _text(fields, TARGET_KEY) or model)
        else:
            return
        ttft_s = _ttft_s(common)
        if entry.response.response_code.value in OK_STATUSES:
            self._on_answer(labels, usage_of(metadata))
            if ttft_s is not None:
                self._on_first_byte(labels, ttft_s)
        if awaited is None or ttft_s is None or entry.response.response_code.value != 200:
            return
        if _host(common.upstream_remote_address) == awaited.endpoint.address:
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


def _text(fields: Any, key: str) -> str:
    return str(fields[key].string_value) if key in fields else ""


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
