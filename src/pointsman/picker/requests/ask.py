"""What one request asks for, read from its headers and body in one pass.

Which bodies are read: JSON ones, as far as the content type or (without one) the first byte says
so. A body that is compressed, or multipart (audio, image edits), or cut off, passes unread: it is
balanced, and its model is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pointsman.inference.errors import ApiError
from pointsman.inference.paths import NAMES_A_MODEL, Api, api_of
from pointsman.inference.tokens import IMAGE_TOKENS, tokens_in
from pointsman.picker.requests.spans import NotJsonError, read

MAX_MODEL_CHARACTERS = 1_024
"""Four times what an InferenceModel may be called; names are kept in records and metrics."""
MAX_ID_CHARACTERS = 256
MAX_PARTS = 100_000
"""Parts of a prompt that are looked at; what comes after them is not counted."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as far as the picker cares."""

    api: Api
    request_id: str = ""
    model: str | None = None
    span: tuple[int, int] | None = None
    """Where the model's name stands in the body, quotes included."""
    body: bytes | None = None
    is_stream: bool = False
    prompt_tokens: int = 0
    """Estimated; exact where the prompt came as token ids."""
    max_tokens: int | None = None
    is_unread: bool = False
    """There is a body that was not read."""
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The decoded body."""


class BadRequestError(Exception):
    """The request cannot be understood; `error` is what the client gets."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def read_ask(headers: Mapping[str, str], body: bytes | None, *, is_complete: bool = True) -> Ask:
    """Read a request.

    Raises:
        BadRequestError: a body that must name a model is not JSON or names none.
    """
    api = api_of(headers.get(":path", ""))
    request_id = headers.get("x-request-id", "")[:MAX_ID_CHARACTERS]
    if not body:
        if body is not None and api in NAMES_A_MODEL and headers.get(":method") == "POST":
            raise BadRequestError(_no_json("the body is empty"))
        return Ask(api, request_id)
    if not is_complete or not _is_json(headers, body, api):
        return Ask(api, request_id, body=body, prompt_tokens=tokens_in(len(body)), is_unread=True)
    try:
        content = read(body)
    except NotJsonError as error:
        if api in NAMES_A_MODEL:
            raise BadRequestError(_no_json(str(error))) from error
        return Ask(api, request_id, body=body, prompt_tokens=tokens_in(len(body)), is_unread=True)
    if content.model is None and api in NAMES_A_MODEL:
        what = "is not a string" if "model" in content.fields else "is missing"
        raise BadRequestError(
            ApiError(
                400, f"The field 'model' {what} in the request body.", "missing_model", "model"
            )
        )
    if content.model is not None and len(content.model) > MAX_MODEL_CHARACTERS:
        limit = f"longer than {MAX_MODEL_CHARACTERS} characters"
        raise BadRequestError(
            ApiError(400, f"The model's name is {limit}.", "invalid_model", "model")
        )
    return Ask(
        api=api,
        request_id=request_id,
        model=content.model,
        span=content.span,
        body=body,
        is_stream=content.fields.get("stream") is True,
        prompt_tokens=prompt_tokens(content.fields),
        max_tokens=_max_tokens(content.fields),
        fields=content.fields,
    )


def prompt_tokens(fields: Mapping[str, Any]) -> int:
    """The tokens of a prompt in any of the APIs' shapes: text by bytes, token ids by count."""
    counter = _Counter()
    for name in (
        "system",
        "instructions",
        "messages",
        "prompt",
        "input",
        "text",
        "query",
        "documents",
        "token_ids",
        "input_ids",
        "text_1",
        "text_2",
        "queries",
        "data_1",
        "data_2",
    ):
        if name in fields:
            counter.add(fields[name])
    return counter.tokens + tokens_in(counter.text_bytes)


_TEXT_FIELDS = ("content", "text", "input", "output", "arguments")


class _Counter:
    """Adds up what a prompt is made of, without recursion."""

    def __init__(self) -> None:
        self.text_bytes = 0
        self.tokens = 0
        self._left = MAX_PARTS

    def add(self, value: Any) -> None:
        pending = [value]
        while pending and self._left > 0:
            self._left -= 1
            part = pending.pop()
            if isinstance(part, str):
                self.text_bytes += len(part) if part.isascii() else len(part.encode())
            elif isinstance(part, list):
                if part and isinstance(part[0], int):
                    self.tokens += len(part)
                else:
                    pending.extend(part)
            elif isinstance(part, dict):
                self._add_part(part, pending)

    def _add_part(self, part: dict[str, Any], pending: list[Any]) -> None:
        kind = part.get("type")
        if kind in ("image_url", "image", "input_image"):
            self.tokens += IMAGE_TOKENS
            return
        pending.extend(part[name] for name in _TEXT_FIELDS if name in part)


def _max_tokens(fields: Mapping[str, Any]) -> int | None:
    places: list[Mapping[str, Any]] = [fields]
    sampling = fields.get("sampling_params")
    if isinstance(sampling, dict):
        places.append(sampling)
    for place in places:
        for name in ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens"):
            value = place.get(name)
            if type(value) is int and value >= 0:
                return value
    return None


def _is_json(headers: Mapping[str, str], body: bytes, api: Api) -> bool:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return False
    content_type = headers.get("content-type", "").lower()
    if "json" in content_type:
        return True
    if content_type.startswith(("multipart/", "audio/", "image/")):
        return False
    if content_type.startswith("application/octet-stream"):
        return body.lstrip()[:1] == b"{"
    # curl -d without a header says application/x-www-form-urlencoded; model servers read it as
    # JSON all the same where the path expects JSON.
    return api in NAMES_A_MODEL or body.lstrip()[:1] == b"{"


def _no_json(reason: str) -> ApiError:
    return ApiError(400, f"The request body could not be read: {reason}.", "invalid_json")
