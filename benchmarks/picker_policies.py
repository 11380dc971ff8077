"""Policies against each other on simulated model servers, by the picker's own code.

Run: `python benchmarks/picker_policies.py [--seconds 120] [--rates 12,14,16]`. Eight servers with
continuous batching and a prefix cache answer a shared-prefix workload (150 groups of 5 prompts:
6,000 tokens of system prompt, 1,200 of question, 1,000 of answer; Poisson arrivals). One step of a
server takes 12 ms + 20 us a request + 42 ns a token of context + prompt tokens / 15,928 a second;
its KV cache holds 290,000 tokens. Metrics are a second old, as in life. The servers are a toy: the
ranking of the policies is the result, not the numbers.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from pointsman.picker.config import read_config
from pointsman.picker.endpoints.measures import Measures
from pointsman.picker.endpoints.table import Endpoint, Place, Reservation
from pointsman.picker.prefix.blocks import BLOCK_ENDS, TOKENS_UP_TO, new_block
from pointsman.picker.prefix.index import PrefixIndex
from pointsman.picker.scheduling.profile import DEFAULT, Profile, choose
from pointsman.picker.scheduling.request import Wanted

SERVERS = 8
GROUPS, SYSTEM, QUESTION, ANSWER = 150, 6_000, 1_200, 1_000
KV_TOKENS, PREFILL_PER_S, CHUNK, MAX_BATCH = 290_000, 15_928, 8_192, 256
SCRAPE_S = 1.0
LOOK_S = 0.1
SEEDS = (1, 2, 3)
HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
REFERENCE = (
    HEAD
    + """
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}]
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
"""
)
NEWER = HEAD + "plugins: [{type: prefix-cache-affinity-filter}, {type: token-load-scorer}]"
COST = HEAD + "plugins: [{type: marginal-cost-scorer}]"
LEAST = HEAD + "plugins: [{type: active-request-scorer}]"


@dataclass
class Request:
    """One request, and when what happened to it."""

    group: int
    arrived: float
    to_read: int = 0
    first: float = 0.0
    done: float = 0.0
    reservation: Reservation | None = None


class Server:
    """A model server that batches continuously."""

    def __init__(self, place: Place, replicas: int) -> None:
        self.endpoints = [Endpoint(place) for _ in range(replicas)]
        """What each replica of the picker knows of it."""
        self.waiting: deque[Request] = deque()
        self.reading: deque[Request] = deque()
        self.writing: list[tuple[int, int, Request]] = []
        self.steps = 0
        self.context = 0
        self.private = 0
        self.users: dict[int, int] = {}
        self.cache: OrderedDict[int, None] = OrderedDict()
        self.is_running = False

    def used(self) -> int:
        """Tokens of the KV cache that requests in the batch hold."""
        return self.private + len(self.users) * SYSTEM

    def admit(self) -> None:
        """Take requests into the batch while the KV cache has room."""
        need = QUESTION + ANSWER
        while self.waiting and len(self.reading) + len(self.writing) < MAX_BATCH:
            request = self.waiting[0]
            more = need + (0 if request.group in self.users else SYSTEM)
            if self.used() + more > KV_TOKENS:
                return
            self.waiting.popleft()
            request.to_read = QUESTION + (0 if request.group in self.cache else SYSTEM)
            self.cache[request.group] = None
            self.cache.move_to_end(request.group)
            self.users[request.group] = self.users.get(request.group, 0) + 1
            self.private += need
            while len(self.cache) * SYSTEM + self.private > KV_TOKENS:
                idle = next((group for group in self.cache if group not in self.users), None)
                if idle is None:
                    break
                del self.cache[idle]
            self.reading.append(request)

    def step(self, now: float) -> float:
        """Do one step; returns when it is over."""
        self.admit()
        chunk, read = CHUNK, []
        while self.reading and chunk > 0:
            part = min(chunk, self.reading[0].to_read)
            self.reading[0].to_read -= part
            chunk -= part
            if not self.reading[0].to_read:
                read.append(self.reading.popleft())
        writers = len(self.writing)
        duration = 0.012 + 20e-6 * writers + 42e-9 * self.context + (CHUNK - chunk) / PREFILL_PER_S
        end = now + duration
        self.steps += 1
        self.context += writers
        while self.writing and self.writing[0][0] <= self.steps:
            self.finish(heapq.heappop(self.writing)[2], end)
        for request in read:
            request.first = end
            self.context += SYSTEM + QUESTION
            heapq.heappush(self.writing, (self.steps + ANSWER, id(request), request))
            if request.reservation is not None:
                prefill = request.reservation.endpoint.prefill
                prefill.learn(request.reservation.tokens, end - request.arrived)
        return end

    def finish(self, request: Request, now: float) -> None:
        """A request has its answer."""
        request.done = now
        self.context -= SYSTEM + QUESTION + ANSWER
        self.private -= QUESTION + ANSWER
        self.users[request.group] -= 1
        if not self.users[request.group]:
            del self.users[request.group]
        if request.reservation is not None:
            request.reservation.release()

    @property
    def load(self) -> int:
        """All its requests."""
        return len(self.waiting) + len(self.reading) + len(self.writing)

    def tell(self, endpoint: Endpoint, now: float, *, of_others: bool) -> None:
        """Let a replica read its metrics; `of_others`: and conclude what is not its own."""
        measures = Measures(
            at=now,
            waiting=len(self.waiting),
            running=len(self.reading) + len(self.writing),
            kv_cache=min(1.0, self.used() / KV_TOKENS),
            kv_cache_tokens=KV_TOKENS,
            own_requests=endpoint.requests,
        )
        if of_others:
            endpoint.learn(measures)
        else:
            endpoint.measures = measures


def chain(group: int, number: int) -> list[int]:
    """The blocks of a prompt."""
    shared = [hash((group, at)) for at, end in enumerate(BLOCK_ENDS) if end <= SYSTEM * 4]
    total = sum(1 for end in BLOCK_ENDS if end <= (SYSTEM + QUESTION) * 4)
    return shared + [hash((group, number, at)) for at in range(len(shared), total)]


class World:
    """Servers, and the replicas of a picker that take requests in turns."""

    def __init__(
        self,
        profile: Profile,
        rate: float,
        seconds: float,
        seed: int,
        replicas: int = 1,
        *,
        of_others: bool = True,
    ) -> None:
        places = [Place(f"10.0.0.{number}", 80, "d", f"p{number}") for number in range(SERVERS)]
        self.servers = {place.address: Server(place, replicas) for place in places}
        self.requests: list[Request] = []
        self.spread: list[float] = []
        """The load of the fullest server over the mean, ten times a second."""
        self._profile = profile
        self._of_others = of_others
        self._rate = rate
        self._seconds = seconds
        self._rng = random.Random(seed)
        self._turns = itertools.cycle(range(replicas))
        self._indexes = [PrefixIndex() for _ in range(replicas)]
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        for number, server in enumerate(self.servers.values()):
            for replica, endpoint in enumerate(server.endpoints):
                begin = (number + replica / replicas) / SERVERS * SCRAPE_S
                self._at(begin, partial(self._scrape, server, endpoint))
        self._at(0.0, self._arrive)
        self._at(seconds / 2, self._look)

    def run(self) -> list[Request]:
        """Simulate; returns the requests of the second half."""
        while self._events:
            when, _, action = heapq.heappop(self._events)
            action(when)
        return [request for request in self.requests if request.arrived > self._seconds / 2]

    def _at(self, when: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), action))

    def _arrive(self, now: float) -> None:
        request = Request(self._rng.randrange(GROUPS), now)
        self.requests.append(request)
        server = self._place(request, next(self._turns), now)
        server.waiting.append(request)
        if not server.is_running:
            server.is_running = True
            self._work(server, now)
        if now < self._seconds:
            self._at(now + self._rng.expovariate(self._rate), self._arrive)

    def _place(self, request: Request, replica: int, now: float) -> Server:
        hashes = chain(request.group, self._rng.randrange(5))
        endpoints = [server.endpoints[replica] for server in self.servers.values()]
        index = self._indexes[replica]
        for endpoint in endpoints:
            endpoint.read_until(now)
        held = index.match(hashes)
        wanted = Wanted(
            "m",
            prompt_tokens=SYSTEM + QUESTION,
            max_tokens=ANSWER,
            cached_tokens=held,
            hashed_tokens=TOKENS_UP_TO[len(hashes) - 1],
            draw=self._rng.random(),
            new_block=new_block(hashes, held),
        )
        server = self.servers[choose(self._profile, endpoints, wanted, self._rng)[0].address]
        endpoint = server.endpoints[replica]
        index.add(endpoint.address, hashes, KV_TOKENS)
        endpoint.cache_fullness = index.fullness(endpoint.address)
        context = SYSTEM + QUESTION + ANSWER
        uncached = wanted.uncached_tokens(endpoint.address)
        request.reservation = endpoint.reserve(uncached, context)
        return server

    def _work(self, server: Server, now: float) -> None:
        if not server.load:
            server.is_running = False
            return
        self._at(server.step(now), partial(self._work, server))

    def _scrape(self, server: Server, endpoint: Endpoint, now: float) -> None:
        server.tell(endpoint, now, of_others=self._of_others)
        if now < self._seconds:
            self._at(now + SCRAPE_S, partial(self._scrape, server, endpoint))

    def _look(self, now: float) -> None:
        loads = [server.load for server in self.servers.values()]
        if any(loads):
            self.spread.append(max(loads) / (sum(loads) / len(loads)))
        if now < self._seconds:
            self._at(now + LOOK_S, self._look)


def main() -> None:
    """Print a table for each rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--rates", default="12,14,16")
    options = parser.parse_args()
    policies = {
        "least requests": read_config(LEAST).profiles["default"],
        "reference 2/2/3": read_config(REFERENCE).profiles["default"],
        "reference, newer": read_config(NEWER).profiles["default"],
        "marginal cost": read_config(COST).profiles["default"],
        "default": replace(DEFAULT, max_endpoints=1),
    }
    for rate in map(float, options.rates.split(",")):
        print(f"{rate:g} requests/s           TTFT p50      p90      p99   TPOT p50   end p50  (s)")
        for name, profile in policies.items():
            worlds = [World(profile, rate, options.seconds, seed) for seed in SEEDS]
            found = [request for world in worlds for request in world.run()]
            ttft = sorted(request.first - request.arrived for request in found)
            tpot = sorted((request.done - request.first) / ANSWER for request in found)
            whole = sorted(request.done - request.arrived for request in found)
            count = len(found)
            quantiles = " ".join(f"{ttft[count * part // 100]:>8.2f}" for part in (50, 90, 99))
            middle = count // 2
            print(f"  {name:<20} {quantiles} {tpot[middle]:>10.4f} {whole[middle]:>9.1f}")


if __name__ == "__main__":
    main()
