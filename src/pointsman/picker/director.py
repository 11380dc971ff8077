"""Decides one request: what it asks, what its model means, whether it may pass, who answers.

`Director.decide` runs from the request to the reservation without an await, so no two requests see
the same free server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pointsman.inference.errors import ApiError
from pointsman.inference.headers import (
    DEBUG,
    DECISION,
    DESTINATION_ENDPOINT_SUBSET,
    FAIRNESS_ID_NAMES,
    MODEL_NAME_REWRITE_NAMES,
    OBJECTIVE_NAMES,
    STRIPPED_AT_THE_EDGE,
    SUBSET_NAMESPACE,
)
from pointsman.inference.paths import Api
from pointsman.picker.config import PickerConfig
from pointsman.picker.decisions import MAX_CANDIDATES, Decision, Ring
from pointsman.picker.endpoints.table import Endpoint, Loaded, Reservation, seen
from pointsman.picker.ends.access_log import AccessLog
from pointsman.picker.extproc.answers import Answer, Forward, Refuse, Respond
from pointsman.picker.extproc.machine import Decide
from pointsman.picker.pools import Pools, PoolView
from pointsman.picker.prefix.blocks import TOKENS_UP_TO, new_block, prompt_chain
from pointsman.picker.prefix.index import PrefixIndex
from pointsman.picker.requests.ask import (
    MAX_MODEL_CHARACTERS,
    Ask,
    BadRequestError,
    read_ask,
)
from pointsman.picker.requests.listing import listing
from pointsman.picker.requests.spans import splice
from pointsman.picker.scheduling.cost import expected_answer
from pointsman.picker.scheduling.media import media_of
from pointsman.picker.scheduling.profile import Profile, Random, choose
from pointsman.picker.scheduling.request import Wanted
from pointsman.picker.scheduling.sessions import token_of

CONTROL_HEADERS = frozenset(
    (
        *OBJECTIVE_NAMES,
        *FAIRNESS_ID_NAMES,
        *MODEL_NAME_REWRITE_NAMES,
        *STRIPPED_AT_THE_EDGE,
        DEBUG,
    )
)
"""What clients say to the picker and model servers need not hear. The destination is among them: it
is set anew."""

RETRY_AFTER_S = 1
"""What a shed client is told to wait: about the time in which a queue of a few requests moves."""


class Trust(NamedTuple):
    """Which of a request's own words count."""

    objective: bool = False
    """Its objective, and so its priority."""
    debug: bool = False
    """Its wish to be told the decision."""


NOBODY = Trust()


@dataclass(frozen=True, slots=True)
class Picked:
    """A decision's outcome."""

    answer: Answer
    ask: Ask | None = None
    target: str | None = None
    reservation: Reservation | None = None
    held_share: float | None = None
    """How much of the prompt the server that was picked is taken to hold, 0 to 1."""


class RefusedError(Exception):
    """The request gets an error."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class Director:
    """Holds what decisions need: the pools, the profile, randomness, the record."""

    def __init__(
        self,
        pools: Pools,
        rng: Random,
        *,
        config: PickerConfig | None = None,
        ring: Ring | None = None,
        prefixes: PrefixIndex | None = None,
        access_log: AccessLog | None = None,
        ignores_subset: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.pools = pools
        self.config = config if config is not None else PickerConfig()
        """May be replaced while running; the next request sees it."""
        self.ring = ring if ring is not None else Ring()
        self.prefixes = prefixes if prefixes is not None else PrefixIndex()
        self.access_log = access_log if access_log is not None else AccessLog()
        self._ignores_subset = ignores_subset
        self._rng = rng
        self._clock = clock
        self._wall_clock = wall_clock

    def decide(
        self,
        pool: str,
        request: Decide,
        *,
        is_logged: bool = False,
        trust: Trust = NOBODY,
    ) -> Picked:
        """Answer a request, and reserve what it will cost.

        With `is_logged` its gateway sends access log entries; the pick gets a number for them.
        `trust` says which of the request's own words count.
        """
        if not (trust.debug and request.headers.get(DEBUG) == "true"):
            return self._decide(pool, request, is_logged, trust)
        known = self.ring.last
        picked = self._decide(pool, request, is_logged, trust)
        decision = self.ring.last
        if decision is known or decision is None:
            return picked
        told = decision.told(self.config.profile(decision.wanted.headers))
        answer = picked.answer
        if isinstance(answer, Forward):
            return replace(picked, answer=replace(answer, decision=told))
        if isinstance(answer, Refuse):
            headers = (*answer.headers, (DECISION, told))
            return replace(picked, answer=replace(answer, headers=headers))
        return picked

    def _decide(self, pool: str, request: Decide, is_logged: bool, trust: Trust) -> Picked:
        started = time.perf_counter()
        view = self.pools.get(pool)
        try:
            ask = read_ask(request.headers, request.body, is_complete=request.is_complete)
        except BadRequestError as bad:
            self._record(started, pool, None, Wanted(), (), (), bad.error)
            return Picked(Refuse(bad.error))
        wanted = Wanted(ask.model, 0, ask.prompt_tokens, ask.max_tokens)
        candidates: tuple[Endpoint, ...] = ()
        hashes: list[int] = []
        try:
            view = _require(view, pool)
            if ask.api is Api.MODELS and request.headers.get(":method") == "GET":
                models = _listing(view)
                if models is not None:
                    return Picked(Respond(models), ask)
            wanted = self._wanted(view, ask, request.headers if trust.objective else {})
            candidates = _candidates(view, None if self._ignores_subset else request.metadata)
            self._let_pass(view, wanted, candidates)
            profile = self._profile(request.headers)
            hashes = prompt_chain(wanted.model, ask.fields)
            wanted = self._with_facts(wanted, hashes, request.headers, profile)
            if profile.reads_media:
                wanted = replace(wanted, media=media_of(ask.fields))
        except RefusedError as refused:
            self._record(started, pool, ask, wanted, candidates, (), refused.error)
            return Picked(Refuse(refused.error), ask, wanted.model)
        now = self._clock()
        for endpoint in candidates:
            if endpoint.tokens:
                endpoint.read_until(now)
        chosen = choose(profile, candidates, wanted, self._rng)
        if not chosen:
            error = ApiError(429, "Every endpoint was ruled out.", "rate_limited", None, 1)
            self._record(started, pool, ask, wanted, candidates, (), error)
            return Picked(Refuse(error), ask, wanted.model)
        self._record(started, pool, ask, wanted, candidates, chosen, None)
        reservation = self._reserve(chosen[0], wanted, hashes, now)
        for listener in profile.listeners:
            listener.picked(chosen[0].address, wanted)
        pick = ""
        if is_logged and reservation is not None:
            labels = (ask.model or "", wanted.model or "")
            pick = self.access_log.expect(reservation.endpoint, reservation.tokens, labels)
        forward = Forward(
            endpoints=tuple(endpoint.address for endpoint in chosen),
            pick=pick,
            model=ask.model or "",
            target=wanted.model or "" if wanted.model != ask.model else "",
            body=_rewritten(ask, wanted.model),
            removed_headers=_removed(request.headers),
            response_headers=_tokens(profile, chosen[0]) if profile.token_headers else (),
        )
        held = None
        if wanted.hashed_tokens:
            held = wanted.cached_tokens.get(chosen[0].address, 0) / wanted.hashed_tokens
        return Picked(forward, ask, wanted.model, reservation, held)

    def _with_facts(
        self, wanted: Wanted, hashes: Sequence[int], headers: Mapping[str, str], profile: Profile
    ) -> Wanted:
        """What is wanted, with all that the profile may look at."""
        shown = headers if profile.reads_headers else {}
        if shown and self.config.attributes:
            shown = {
                **headers,
                **{each.header: each.read(headers) for each in self.config.attributes},
            }
        if hashes:
            held = self.prefixes.match(hashes)
            # Written out: `replace` would cost as much as the rest.
            return Wanted(
                wanted.model,
                wanted.priority,
                wanted.prompt_tokens,
                wanted.max_tokens,
                held,
                TOKENS_UP_TO[len(hashes) - 1],
                self._rng.random(),
                shown,
                wanted.media,
                wanted.gives_way,
                wanted.objective,
                new_block(hashes, held),
            )
        return replace(wanted, headers=shown) if shown else wanted

    def _profile(self, headers: Mapping[str, str]) -> Profile:
        profile = self.config.profile(headers)
        if profile is None:
            name = headers.get(self.config.profile_header or "", "")
            message = f"There is no scheduling profile '{name[:256]}'."
            raise RefusedError(ApiError(400, message, "unknown_profile"))
        return profile

    def _let_pass(self, view: PoolView, wanted: Wanted, candidates: Sequence[Endpoint]) -> None:
        # Where nobody was said to be less important than others, a queue at the model server is
        # better than an error.
        if not wanted.gives_way:
            return
        if self.config.detector(view.endpoints) >= 1.0:
            what = "The model servers are saturated, and this request's priority is too low."
            raise RefusedError(ApiError(429, what, "rate_limited", None, RETRY_AFTER_S))
        if wanted.priority < 0 and any(
            self._rng.random() < admitter(candidates) for admitter in self.config.admitters
        ):
            what = "The model servers are busy, and this request's priority is low."
            raise RefusedError(ApiError(429, what, "rate_limited", None, RETRY_AFTER_S))

    def _reserve(
        self, chosen: Loaded, wanted: Wanted, hashes: Sequence[int], now: float
    ) -> Reservation | None:
        if not isinstance(chosen, Endpoint):
            return None
        if hashes:
            capacity = chosen.measures.kv_cache_tokens if chosen.measures is not None else None
            self.prefixes.add(chosen.address, hashes, capacity)
            chosen.cache_fullness = self.prefixes.fullness(chosen.address)
        chosen.read_until(now)
        context = wanted.prompt_tokens + expected_answer(wanted.max_tokens)
        return chosen.reserve(wanted.uncached_tokens(chosen.address), context)

    def _wanted(self, view: PoolView, ask: Ask, words: Mapping[str, str]) -> Wanted:
        """What is asked for; `words`: the headers, where the request's own word counts."""
        name = _first(words, MODEL_NAME_REWRITE_NAMES)[:MAX_MODEL_CHARACTERS] or ask.model
        objective = _first(words, OBJECTIVE_NAMES)
        target, priority, gives_way = name, 0, False
        if name is not None and view.models:
            served = view.models.meaning(name)
            if served is None:
                raise RefusedError(
                    ApiError(
                        404,
                        f"The model '{name[:256]}' is not served here.",
                        "model_not_found",
                        "model",
                    )
                )
            target = served.draw(self._rng)
            priority, gives_way = served.priority, served.gives_way
        said = view.models.objectives.get(objective)
        if said is None:
            objective = ""
        else:
            priority, gives_way = said, said < 0
        return Wanted(
            target,
            priority,
            ask.prompt_tokens,
            ask.max_tokens,
            gives_way=gives_way,
            objective=objective,
        )

    def _record(
        self,
        started: float,
        pool: str,
        ask: Ask | None,
        wanted: Wanted,
        candidates: Sequence[Loaded],
        chosen: Sequence[Loaded],
        error: ApiError | None,
    ) -> None:
        kept = candidates
        if len(candidates) > MAX_CANDIDATES:
            kept = [*chosen, *(e for e in candidates[:MAX_CANDIDATES] if e not in chosen)]
            cached = wanted.cached_tokens
            held = {e.address: cached[e.address] for e in kept if e.address in cached}
            wanted = replace(wanted, cached_tokens=held)
        self.ring.add(
            Decision(
                at=self._wall_clock(),
                pool=pool,
                request_id=ask.request_id if ask is not None else "",
                api=ask.api.value if ask is not None else "",
                model=ask.model if ask is not None else None,
                wanted=wanted,
                candidates=tuple(map(seen, kept)),
                candidates_total=len(candidates),
                endpoints=tuple(endpoint.address for endpoint in chosen),
                status=error.status if error is not None else 0,
                reason=error.code if error is not None else "",
                duration_us=(time.perf_counter() - started) * 1e6,
            )
        )


def _first(headers: Mapping[str, str], names: Sequence[str]) -> str:
    """The first of some headers that is there; "" for none."""
    return next((headers[name] for name in names if name in headers), "")


def _listing(view: PoolView) -> bytes | None:
    """The models of a pool, as an answer; None where none is known."""
    return listing(
        view.models.exact,
        (endpoint.models for endpoint in view.endpoints),
        is_closed=view.models.is_closed,
    )


def _require(view: PoolView | None, pool: str) -> PoolView:
    if view is None:
        raise RefusedError(
            ApiError(503, f"The pool '{pool}' is not known to this picker.", "no_such_pool")
        )
    return view


def _candidates(view: PoolView, metadata: Any) -> tuple[Endpoint, ...]:
    subset = subset_hint(metadata)
    endpoints = view.endpoints
    if subset is not None:
        endpoints = tuple(endpoint for endpoint in endpoints if endpoint.address in subset)
    if not endpoints:
        raise RefusedError(
            ApiError(503, f"There is no healthy endpoint in pool {view.key}.", "no_endpoint")
        )
    return endpoints


def subset_hint(metadata: Any) -> frozenset[str] | None:
    """The endpoints to which the data plane narrows the choice; None if it does not.

    A list of `ip:port`, or one text with commas; an empty list leaves nobody (proposal 004).
    """
    if metadata is None or SUBSET_NAMESPACE not in metadata.filter_metadata:
        return None
    fields = metadata.filter_metadata[SUBSET_NAMESPACE].fields
    if DESTINATION_ENDPOINT_SUBSET not in fields:
        return None
    value = fields[DESTINATION_ENDPOINT_SUBSET]
    texts = [item.string_value for item in value.list_value.values] or [value.string_value]
    return frozenset(name for text in texts for part in text.split(",") if (name := part.strip()))


def _rewritten(ask: Ask, target: str | None) -> bytes | None:
    if ask.body is None or ask.span is None or target is None or target == ask.model:
        return None
    return splice(ask.body, ask.span, target)


def _tokens(profile: Profile, chosen: Loaded) -> tuple[tuple[str, str], ...]:
    return tuple((name, token_of(chosen.name)) for name in profile.token_headers)


def _removed(headers: Mapping[str, str]) -> tuple[str, ...]:
    found = CONTROL_HEADERS.intersection(headers)
    # The destination is overwritten by the same mutation, and a removal could undo that.
    return tuple(sorted(name for name in found if name != STRIPPED_AT_THE_EDGE[0]))
