"""The endpoints, each with its load book.

An endpoint is an address; the pools that select its pod share it, and so share its load. A request
is reserved at the moment of its pick and released when it ends, however it ends; a release counts
once. An endpoint that has left the table keeps its book until its last request has ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from pointsman.picker.endpoints.company import NOBODY, Company
from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.ends.rates import DEFAULT_TOKENS_PER_S, PrefillRate


@dataclass(frozen=True, slots=True)
class Place:
    """Where an endpoint is and whose it is."""

    host: str
    port: int
    namespace: str
    pod: str
    rank: int = field(default=0, compare=False)
    """Which of its pool's target ports this is, from 0."""

    @property
    def address(self) -> str:
        """`host:port`, as it goes into headers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """What the reference calls it."""
        return f"{self.namespace}/{self.pod}-rank-{self.rank}"


class Loaded(Protocol):
    """What scheduling sees of an endpoint: itself or a snapshot of it."""

    @property
    def address(self) -> str:
        """`host:port`."""

    @property
    def measures(self) -> Measures | None:
        """The last reading that is still fresh."""

    @property
    def requests(self) -> int:
        """Our own requests in flight."""

    @property
    def others(self) -> float:
        """Requests of other pickers and clients there, as far as is known; 0 where we are alone."""

    @property
    def company(self) -> Company:
        """What was there at the last readings, ours and all."""

    @property
    def tokens(self) -> int:
        """Estimated prompt tokens of our own requests in flight."""

    @property
    def context_tokens(self) -> int:
        """Prompts and expected answers of our own requests in flight."""

    @property
    def prefill_tokens_per_s(self) -> float:
        """How fast the server reads prompts, as far as it is learnt."""

    @property
    def cache_fullness(self) -> float:
        """How full our picture of its prefix cache is, 0 to 1."""

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """What the server's own `/v1/models` lists, by id; empty where it never said."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Of the pod."""

    @property
    def name(self) -> str:
        """`namespace/pod-rank-number`."""


class Endpoint:
    """A model server under one address, and what we know of its load.

    Tokens are a queue: a server reads prompts in the order in which they came. `_reserved` counts
    all tokens that were ever put in, `_read` those that are out again, as far as is known: at the
    learnt rate, and at least up to the end of each request of which the first byte has been seen
    or which has ended. What is between the two is still to be read.
    """

    __slots__ = (
        "_is_shared",
        "_read",
        "_reserved",
        "_told_at",
        "address",
        "cache_fullness",
        "company",
        "context_tokens",
        "is_listed",
        "labels",
        "last_seen",
        "measures",
        "models",
        "name",
        "others",
        "place",
        "prefill",
        "requests",
        "tokens",
    )

    def __init__(self, place: Place, labels: Mapping[str, str] | None = None) -> None:
        self.place = place
        self.address = place.address
        self.name = place.name
        self.labels = labels or {}
        self.measures: Measures | None = None
        self.models: Mapping[str, Mapping[str, Any]] = {}
        """What the server's own `/v1/models` lists, by id."""
        self.prefill = PrefillRate()
        self.requests = 0
        self.others = 0.0
        self.company = NOBODY
        self.tokens = 0
        """Still to be read, as of the last `read_until`."""
        self.context_tokens = 0
        self.cache_fullness = 0.0
        self.is_listed = True
        """False once no pool selects it any more."""
        self.last_seen: Seen | None = None
        """The last snapshot of it."""
        self._is_shared = False
        self._reserved = 0
        self._read = 0.0
        self._told_at = 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """How fast it reads prompts, as far as it is learnt."""
        return self.prefill.tokens_per_s

    def learn(self, measures: Measures | None) -> None:
        """Take in what the server says of itself; None: what it said is too old."""
        self.measures = measures
        if measures is not None:
            self.company = self.company.after(measures)
        self._is_shared = self.company.share < 1.0
        self.others = self.company.others(self.requests, measures)

    def count(self, requests: int) -> None:
        """Count requests of ours in, or out."""
        self.requests += requests
        if self._is_shared:
            self.others = self.company.others(self.requests, self.measures)

    def reserve(self, tokens: int, context_tokens: int = 0) -> Reservation:
        """Count a request in: tokens that must be read, and all that it will hold."""
        self.count(1)
        self.context_tokens += context_tokens
        self._reserved += tokens
        self.tokens += tokens
        return Reservation(self, tokens, context_tokens, self._reserved)

    def read_until(self, now: float) -> None:
        """Let the server have read prompts up to now (monotonic seconds)."""
        if self.tokens:
            passed = max(0.0, now - self._told_at)
            self._have_read(self._read + passed * self.prefill.tokens_per_s)
        self._told_at = now

    def read_up_to(self, place: int) -> None:
        """The prompt that ends at this place of the queue has been read, and all before it."""
        self._have_read(max(self._read, place))

    def _have_read(self, place: float) -> None:
        self._read = min(place, self._reserved)
        self.tokens = math.ceil(self._reserved - self._read)
        if not self.tokens:
            self._read = self._reserved


class Reservation:
    """A request that an endpoint carries."""

    __slots__ = ("_context_tokens", "_end", "endpoint", "is_open", "tokens")

    def __init__(self, endpoint: Endpoint, tokens: int, context_tokens: int, end: int) -> None:
        self.endpoint = endpoint
        self.tokens = tokens
        self.is_open = True
        self._context_tokens = context_tokens
        self._end = end

    def release_tokens(self) -> None:
        """The prompt has been read (the first byte of the answer came); the request goes on."""
        self.endpoint.read_up_to(self._end)

    def move(self, endpoint: Endpoint) -> Reservation:
        """Another endpoint carries the request: it has fallen back on that one."""
        moved = endpoint.reserve(self.tokens, self._context_tokens)
        self.release()
        return moved

    def release(self) -> None:
        """Count the request out; only the first call counts."""
        if self.is_open:
            self.is_open = False
            self.endpoint.count(-1)
            self.endpoint.context_tokens -= self._context_tokens
            self.release_tokens()


class Seen(NamedTuple):
    """An endpoint as it was at one moment; a tuple, since every decision makes many."""

    address: str
    measures: Measures | None
    requests: int
    tokens: int
    labels: Mapping[str, str] = MappingProxyType({})
    models: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    context_tokens: int = 0
    prefill_tokens_per_s: float = DEFAULT_TOKENS_PER_S
    cache_fullness: float = 0.0
    name: str = ""
    others: float = 0.0
    company: Company = NOBODY


def seen(endpoint: Loaded) -> Seen:
    """A snapshot; an endpoint of which nothing has changed gives the one it gave before."""
    last = endpoint.last_seen if isinstance(endpoint, Endpoint) else None
    if (
        last is not None
        and last.requests == endpoint.requests
        and last.others == endpoint.others
        and last.tokens == endpoint.tokens
        and last.measures is endpoint.measures
        and last.context_tokens == endpoint.context_tokens
        and last.cache_fullness == endpoint.cache_fullness
        and last.labels is endpoint.labels
        and last.models is endpoint.models
        and last.prefill_tokens_per_s == endpoint.prefill_tokens_per_s
        and last.company is endpoint.company
    ):
        return last
    found = Seen(
        endpoint.address,
        endpoint.measures,
        endpoint.requests,
        endpoint.tokens,
        endpoint.labels,
        endpoint.models,
        endpoint.context_tokens,
        endpoint.prefill_tokens_per_s,
        endpoint.cache_fullness,
        endpoint.name,
        endpoint.others,
        endpoint.company,
    )
    if isinstance(endpoint, Endpoint):
        endpoint.last_seen = found
    return found


class Table:
    """All endpoints of all pools, by address."""

    def __init__(self) -> None:
        self._by_address: dict[str, Endpoint] = {}
        self._departed: dict[str, Endpoint] = {}
        """Those that left with requests under way; never more than there are such requests."""

    def replace(
        self, places: Iterable[tuple[Place, Mapping[str, str]]]
    ) -> tuple[list[Endpoint], list[Endpoint]]:
        """Make the table hold exactly these; tells who came and who went.

        An address that changed hands (another pod) is a new endpoint with an empty book: the
        server behind it is another one. A pod that left and comes back while requests of ours go
        on there (it was only not ready for a moment) has its book still.
        """
        wanted = {place.address: (place, labels) for place, labels in places}
        came: list[Endpoint] = []
        went: list[Endpoint] = []
        for address, endpoint in tuple(self._by_address.items()):
            new = wanted.get(address)
            if new is None or new[0] != endpoint.place:
                endpoint.is_listed = False
                went.append(self._by_address.pop(address))
        self._departed.update((endpoint.address, endpoint) for endpoint in went)
        self._departed = {
            address: endpoint for address, endpoint in self._departed.items() if endpoint.requests
        }
        for address, (place, labels) in wanted.items():
            known = self._by_address.get(address)
            if known is not None:
                known.labels = labels
                continue
            endpoint = self._returning(place, labels) or Endpoint(place, labels)
            self._by_address[address] = endpoint
            came.append(endpoint)
        return came, went

    def _returning(self, place: Place, labels: Mapping[str, str]) -> Endpoint | None:
        found = self._departed.get(place.address)
        if found is None or found.place != place:
            return None
        del self._departed[place.address]
        found.labels = labels
        found.is_listed = True
        return found

    def get(self, address: str) -> Endpoint | None:
        """The endpoint of an address."""
        return self._by_address.get(address)

    def __iter__(self) -> Iterator[Endpoint]:
        """All endpoints."""
        return iter(self._by_address.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_address)
