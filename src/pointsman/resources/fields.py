"""The field types that many objects share, and how a rule over several fields is reported.

Bounds and patterns are those of the published CRDs. Numbers and bools are strict, as the API
server is: `"8080"` is not a port.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Annotated

from pydantic import Field
from pydantic_core import PydanticCustomError

OBJECT_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
TIMESTAMP = (
    r"^$|^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})$"
)
NAMESPACE_OR_NONE = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
DNS_WILDCARD = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
GROUP = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
KIND = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"
HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"
LABEL_KEY = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$"
)
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
DURATION = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
GO_DURATION = r"^(0|(([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|µs|ns))+)$"
QUANTITY = r"^[1-9]+[0-9]*([EPTGMK]i|[EPTGMk])?$"
CONTROLLER_NAME = (
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    r"\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"
)

PATTERN_TEXTS = {
    OBJECT_NAME: "a name of lower-case letters, digits, '-' and '.'",
    TIMESTAMP: "a time like '2026-01-31T12:00:00Z'",
    NAMESPACE_OR_NONE: "a name of lower-case letters, digits and '-'",
    DNS_LABEL: "a name of lower-case letters, digits and '-'",
    DNS_NAME: "a DNS name of lower-case letters, digits, '-' and '.'",
    DNS_WILDCARD: "a DNS name in lower case, with '*.' only at its start",
    GROUP: "an API group like 'gateway.networking.k8s.io', or '' for the core group",
    KIND: "a kind like 'Service'",
    HEADER_NAME: "the name of an HTTP header or parameter, without spaces or ':'",
    LABEL_KEY: "a label key like 'app' or 'example.com/app'",
    LABEL_VALUE: "letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    DURATION: "a duration like '10s', '1h30m' or '500ms'",
    GO_DURATION: "a duration like '10s', '1.5h' or '500ms'",
    QUANTITY: "bytes, or a quantity like '32Ki' or '10Mi'",
    CONTROLLER_NAME: "a controller name like 'example.com/gateway-controller'",
}
"""What each pattern asks for, in words."""

Flag = Annotated[bool, Field(strict=True)]
Integer = Annotated[int, Field(strict=True)]
Int32 = Annotated[int, Field(strict=True, ge=-(2**31), le=2**31 - 1)]
Count32 = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
UInt32 = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Weight = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
IntOrString = Annotated[int, Field(strict=True)] | Annotated[str, Field(strict=True)]

Group = Annotated[str, Field(max_length=253, pattern=GROUP)]
KindName = Annotated[str, Field(min_length=1, max_length=63, pattern=KIND)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253)]
NamespaceName = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
NamespaceOrNone = Annotated[str, Field(max_length=63, pattern=NAMESPACE_OR_NONE)]
SectionName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]
Hostname = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_WILDCARD)]
PreciseHostname = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_NAME)]
HeaderName = Annotated[str, Field(min_length=1, max_length=256, pattern=HEADER_NAME)]
HeaderValue = Annotated[str, Field(min_length=1, max_length=4096)]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]
Timestamp = Annotated[str, Field(pattern=TIMESTAMP)]
Duration = Annotated[str, Field(pattern=DURATION)]
GoDuration = Annotated[str, Field(max_length=64, pattern=GO_DURATION)]
Quantity = (
    Annotated[int, Field(strict=True, ge=0)]
    | Annotated[str, Field(strict=True, max_length=32, pattern=QUANTITY)]
)
"""Bytes (see `quantities`)."""
ControllerName = Annotated[str, Field(min_length=1, max_length=253, pattern=CONTROLLER_NAME)]

Where = tuple[str | int, ...]
"""A way into a value, in the names that users write: `("listeners", 1, "tls")`."""
Broken = tuple[Where, str]
"""A rule that does not hold: where, and what would be right."""


def rules_error(broken: Iterable[Broken]) -> PydanticCustomError:
    """The error that carries broken rules to whoever reads validation errors (`parse`)."""
    problems = list(broken)
    text = "; ".join(message for _, message in problems)
    return PydanticCustomError("rules", "{text}", {"text": text, "problems": problems})


def repeated(keys: Iterable[Hashable]) -> Iterator[int]:
    """The positions whose key stood there before.

    >>> list(repeated(["a", "b", "a", "a"]))
    [2, 3]
    """
    seen: set[Hashable] = set()
    for position, key in enumerate(keys):
        if key in seen:
            yield position
        seen.add(key)


def unique(at: str, keys: Sequence[Hashable], what: str) -> Iterator[Broken]:
    """Each repeated key of the list at `at`, as a broken rule."""
    for position in repeated(keys):
        yield (at, position), f"{what} must be unique, {keys[position]!r} stands there twice"


def set_for_type(actual: str, fields: Iterable[tuple[str, str, object]]) -> Iterator[Broken]:
    """`type` says which of the (type, field, value) is set: that one must be, no other may be."""
    for kind, field, value in fields:
        if actual == kind and value is None:
            yield (field,), f"is required when type is {kind}"
        if actual != kind and value is not None:
            yield (field,), f"must not be set when type is {actual}"
