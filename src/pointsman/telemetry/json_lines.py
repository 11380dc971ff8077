"""A log of one JSON object a line, for what collects the logs of a cluster."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import orjson


class JsonLines(logging.Formatter):
    """`ts`, `level`, `logger` and `msg` as Zap names them, and `stacktrace` of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "level": record.levelname.lower(),
            "ts": at.replace("+00:00", "Z"),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        # A client's word may be no UTF-8; a log line is written all the same.
        clean = {key: value.encode("utf-8", "replace").decode() for key, value in line.items()}
        return orjson.dumps(clean).decode()
