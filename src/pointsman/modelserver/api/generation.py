"""From a prompt to a running session: plans the answers and submits their sequences."""

from __future__ import annotations

import secrets
import time
import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from pointsman.modelserver.api.errors import RequestError, unknown_model
from pointsman.modelserver.api.fields import Body, Sampling
from pointsman.modelserver.driver import Session
from pointsman.modelserver.engine import Sequence
from pointsman.modelserver.engine.sequences import ID_TYPE
from pointsman.modelserver.prose import Answer, cut_at_stop, natural_length, seed_of
from pointsman.modelserver.served import Served
from pointsman.modelserver.tokens import LONGEST_TOKEN

if TYPE_CHECKING:
    from pointsman.modelserver.replica import Replica


_CHOICES_LIMIT = 1024
"""Most answers of one request, over all its prompts."""

_PLANNED_TOKENS_LIMIT = 1_000_000
"""Most tokens that the answers of one request may come to: they are planned at once."""


@dataclass(slots=True)
class Choice:
    """One answer: what will be said, and the sequence that says it."""

    index: int
    answer: Answer
    sequence: Sequence

    @property
    def finish_reason(self) -> str:
        """How it ended: as planned, or `abort`."""
        return self.sequence.finish_reason

    @property
    def stop_reason(self) -> str | None:
        """The stop string that ended it, if one did."""
        return self.answer.stop_reason

    def text(self) -> str:
        """What has come out so far."""
        return "".join(self.answer.pieces[: self.sequence.generated])


@dataclass(slots=True)
class Usage:
    """Token counts of a request. The prompt counts once, however many choices it has."""

    prompt: int
    cached: int
    completion: int

    def openai(self) -> dict[str, object]:
        """The `usage` object of completions and chat."""
        return {
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


class Generation:
    """Everything about one request that every protocol needs: id, model, choices, session."""

    def __init__(
        self,
        replica: Replica,
        request_id: str,
        served: Served,
        choices: list[Choice],
        *,
        streams: bool,
    ) -> None:
        self.id = request_id
        self.created_s = int(time.time())
        self.model = served.name
        self.choices = choices
        self.session = Session(
            replica.driver, [choice.sequence for choice in choices], streams=streams
        )
        self._replica = replica

    async def __aenter__(self) -> Generation:
        sequences = self.session.sequences
        self._replica.submit(self.session)
        for sequence in sequences:
            self._replica.metrics.submitted(sequence, len(sequences))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._replica.driver.close(self.session)

    async def finished(self) -> None:
        """Waits until every choice has ended."""
        session = self.session
        while session.open:
            await session.changed()

    def usage(self) -> Usage:
        """Token counts so far."""
        prompts: dict[int, int] = {}
        cached = completion = 0
        for choice in self.choices:
            sequence = choice.sequence
            if id(sequence.prompt) not in prompts:
                prompts[id(sequence.prompt)] = len(sequence.prompt)
                cached += sequence.cached_tokens
            completion += sequence.generated
        return Usage(sum(prompts.values()), cached, completion)


def encode(replica: Replica, text: str) -> array[int]:
    """The token ids of a prompt.

    A text that cannot fit, whatever its tokens are, is refused before it is looked at.

    Raises:
        RequestError: 400 if it is far too long.
    """
    longest = replica.models.max_model_len
    if len(text) > longest * LONGEST_TOKEN:
        raise RequestError(
            400,
            f"This model's maximum context length is {longest} tokens. However, your prompt has"
            f" {len(text)} characters, which cannot be fewer.",
            param="input_text",
        )
    return replica.tokenizer.encode(text)


def usage_after(choice: Choice, tokens: int) -> dict[str, object]:
    """The `usage` of one choice after so many tokens, for chunks that carry it."""
    sequence = choice.sequence
    return Usage(len(sequence.prompt), sequence.cached_tokens, tokens).openai()


def find_model(replica: Replica, body: Body) -> Served:
    """The model that a body names.

    Raises:
        RequestError: 404 if there is no such model.
    """
    name = body.get("model")
    served = replica.models.find(name) if name is None or isinstance(name, str) else None
    if served is None:
        raise unknown_model(name, replica.models.names)
    return served


def request_id(request: web.BaseRequest, prefix: str) -> str:
    """`prefix-` and the client's X-Request-Id, or a random number."""
    given = request.headers.get("X-Request-Id")
    return f"{prefix}-{given[:256]}" if given else f"{prefix}-{secrets.token_hex(16)}"


def plan(
    replica: Replica,
    served: Served,
    name: str,
    prompts: list[array[int]],
    sampling: Sampling,
    script: str | None = None,
) -> list[Choice]:
    """The choices of a request: for each prompt, `sampling.choices` of them.

    `script` is what to say, word for word (tool calls, echo mode), instead of prose.

    Raises:
        RequestError: 400 if a prompt is empty or too long.
    """
    if len(prompts) * sampling.choices > _CHOICES_LIMIT:
        raise RequestError(400, f"At most {_CHOICES_LIMIT} answers in all.", param="n")
    base = sampling.seed_base(replica.next_request())
    planned = 0
    choices: list[Choice] = []
    for prompt in prompts:
        limit = _token_limit(replica, len(prompt), sampling)
        checksum = zlib.crc32(prompt.tobytes())
        for index in range(sampling.choices):
            seed = seed_of(replica.options.seed, served.name, checksum, base, index)
            answer = _answer(replica, served, sampling, seed, limit, script)
            planned += len(answer.ids)
            if planned > _PLANNED_TOKENS_LIMIT:
                raise RequestError(
                    400, f"At most {_PLANNED_TOKENS_LIMIT} output tokens in one request.", param="n"
                )
            number = len(choices)
            choices.append(
                Choice(number, answer, sequence_for(served, name, prompt, sampling, answer, number))
            )
    return choices


def sequence_for(
    served: Served,
    name: str,
    prompt: array[int],
    sampling: Sampling,
    answer: Answer,
    number: int,
) -> Sequence:
    """The engine's side of a choice."""
    adapter = served.adapter
    return Sequence(
        id=f"{name}-{number}",
        prompt=prompt,
        answer=answer.ids,
        adapter=None if adapter is None else adapter.name,
        adapter_path="" if adapter is None else adapter.path,
        priority=sampling.priority,
        finish_reason=answer.finish_reason,
        salt=sampling.salt,
        allowed_tokens=sampling.max_tokens or 0,
    )


def _token_limit(replica: Replica, prompt_tokens: int, sampling: Sampling) -> int:
    """Most tokens that the answer may have."""
    longest = replica.models.max_model_len
    wanted = sampling.max_tokens
    if prompt_tokens == 0:
        raise RequestError(400, "The prompt must not be empty.", param="prompt")
    if prompt_tokens + max(wanted or 1, 1) > longest:
        asked = f"{wanted} output tokens and " if wanted is not None else ""
        raise RequestError(
            400,
            f"This model's maximum context length is {longest} tokens. However, you requested"
            f" {asked}your prompt contains {prompt_tokens} input tokens. Please reduce the length"
            " of the input prompt or the number of requested output tokens.",
            param="input_tokens",
        )
    return longest - prompt_tokens if wanted is None else wanted


def _answer(
    replica: Replica,
    served: Served,
    sampling: Sampling,
    seed: int,
    limit: int,
    script: str | None,
) -> Answer:
    is_cut = sampling.ignores_eos
    if script is not None:
        is_cut = False
        ids, pieces = replica.prose.spell(script or " ")
    else:
        wanted = limit
        if not is_cut:
            natural = natural_length(seed, replica.conduct.answer_median_tokens)
            wanted = max(natural, sampling.min_tokens)
            is_cut = wanted > limit
        ids, pieces = replica.prose.write(seed, min(wanted, limit), ends_sentence=not is_cut)
        if replica.conduct.names_itself:
            own_ids, own_pieces = replica.prose.spell(f"This is {served.name}.\n")
            ids, pieces = own_ids + ids, own_pieces + pieces
    reason = "stop"
    if is_cut or len(ids) > limit:
        ids, pieces, reason = ids[:limit], pieces[:limit], "length"
    answer = Answer(ids, pieces, reason)
    if sampling.stops:
        _apply_stops(answer, sampling)
    return answer


def _apply_stops(answer: Answer, sampling: Sampling) -> None:
    found = cut_at_stop(answer.pieces, sampling.stops, keeps_stop=sampling.keeps_stop)
    if found is not None:
        tokens, answer.stop_reason = found
        answer.ids = answer.ids[:tokens]
        answer.finish_reason = "stop"


def as_ids(ids: list[int]) -> array[int]:
    """A prompt given as token ids."""
    return array(ID_TYPE, ids)
