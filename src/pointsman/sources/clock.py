"""The time as objects carry it: RFC 3339 in UTC, to the second, as the API server writes it."""

from __future__ import annotations

from datetime import UTC, datetime


def now_text() -> str:
    """The time now; such texts sort as their times do."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
