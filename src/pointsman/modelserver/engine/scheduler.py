"""Which sequences get how many tokens of the next step.

The rules are those of vLLM's v1 scheduler:

1. A step has a token budget. Running sequences come first, in order of admission: one token each
   while decoding, as much of the prompt as the budget allows while prefilling (chunked prefill).
2. A running sequence that needs a block when none is free preempts the one admitted last (or, by
   priority, the least important): that one loses its blocks and will compute them again.
3. Then, unless someone was preempted, waiting sequences are admitted in order while budget, batch
   size and free blocks allow. What the prefix cache holds of a prompt is not computed again, but
   the last token always is, since its output is needed.
4. A sequence whose adapter would exceed the slots of the batch is passed over, not in the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pointsman.modelserver.engine.adapters import AdapterSlots
from pointsman.modelserver.engine.blocks import BlockPool, Stored
from pointsman.modelserver.engine.hashing import BlockHashes
from pointsman.modelserver.engine.profiles import Capacity
from pointsman.modelserver.engine.sequences import Sequence, State
from pointsman.modelserver.engine.waiting import WaitingQueue


@dataclass(slots=True)
class Batch:
    """The work of one step."""

    shares: dict[Sequence, int] = field(default_factory=dict)
    """Tokens to compute for each sequence."""
    prefill_tokens: int = 0
    """Tokens of prompts, and of answers computed again after a preemption."""
    context_tokens: int = 0
    """Tokens already in blocks that the step attends to."""
    preempted: list[Sequence] = field(default_factory=list)
    admitted: list[Sequence] = field(default_factory=list)
    adapter_loads: int = 0
    adapter_fetches: int = 0

    @property
    def tokens(self) -> int:
        """All tokens of the step."""
        return sum(self.shares.values())


@dataclass(slots=True)
class Counters:
    """What the scheduler has counted since the engine was made. Tokens unless said otherwise."""

    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    """Sequences preempted."""
    computed_prompt_tokens: int = 0
    prompt_tokens: int = 0
    """Prompt tokens of admitted sequences, cached ones included."""
    generated_tokens: int = 0


class Scheduler:
    """The queues, the blocks and the adapter slots of one engine."""

    def __init__(self, capacity: Capacity, *, records_events: bool = False) -> None:
        self.capacity = capacity
        self.pool = BlockPool(capacity.kv_blocks, records_events=records_events)
        self.hashes = BlockHashes(capacity.block_size, capacity.hash_algorithm, capacity.hash_seed)
        self.slots = AdapterSlots(capacity.max_loras, capacity.max_cpu_loras)
        self.waiting = WaitingQueue(by_priority=capacity.by_priority)
        self.running: list[Sequence] = []
        self.counters = Counters()

    def compose(self, now_s: float) -> Batch:
        """Decides the next step and takes the blocks it needs.

        The batch is never empty while something runs or waits: with nothing running every block is
        free, and no sequence is accepted that does not fit into all of them.
        """
        batch = Batch()
        budget = self._continue_running(batch)
        if not batch.preempted:
            self._admit_waiting(batch, budget, now_s)
        adapters = [seq.adapter for seq in batch.shares if seq.adapter is not None]
        if adapters:
            batch.adapter_loads, batch.adapter_fetches = self.slots.activate(adapters)
        return batch

    def remove(self, sequence: Sequence) -> None:
        """Frees everything that a sequence holds, at once."""
        if sequence.state is State.RUNNING:
            self.running.remove(sequence)
            self._free_blocks(sequence)
        elif sequence.state is State.WAITING:
            self.waiting.remove(sequence)

    def retire(self, finished: set[Sequence]) -> None:
        """Frees the blocks of sequences that are finished, and takes them off the running list."""
        for sequence in finished:
            self._free_blocks(sequence)
        self.running = [sequence for sequence in self.running if sequence not in finished]

    def _continue_running(self, batch: Batch) -> int:
        """Rule 1 and 2; returns what is left of the budget."""
        budget = self.capacity.max_num_batched_tokens
        for sequence in list(self.running):
            if budget <= 0:
                break
            if sequence.state is not State.RUNNING:
                continue  # preempted for one before it
            tokens = min(sequence.pending, budget)
            refund = self._make_room(sequence, tokens, batch)
            if refund is None:
                continue
            budget += refund
            self._schedule(sequence, tokens, batch)
            budget -= tokens
        return budget

    def _make_room(self, sequence: Sequence, tokens: int, batch: Batch) -> int | None:
        """Takes the blocks for `tokens` more; preempts others until they are there.

        Returns the tokens that came back to the budget from sequences of this very batch, or None
        if the sequence itself had to go.
        """
        refund = 0
        size = self.capacity.block_size
        needed = -(-(sequence.computed + tokens) // size) - len(sequence.blocks)
        while needed > self.pool.free:
            victim = self.running[-1]
            if self.capacity.by_priority:
                victim = max(self.running, key=self.waiting.rank)
            refund += self._preempt(victim, batch)
            if victim is sequence:
                return None
        if needed > 0:
            sequence.blocks += self.pool.allocate(needed)
        return refund

    def _preempt(self, victim: Sequence, batch: Batch) -> int:
        self.running.remove(victim)
        refund = batch.shares.pop(victim, 0)
        if refund:
            victim.computed -= refund
            batch.context_tokens -= victim.computed
            if refund > 1 or victim.computed < len(victim.prompt):
                batch.prefill_tokens -= refund
        self._free_blocks(victim)
        victim.computed = 0
        victim.state = State.WAITING
        victim.preemptions += 1
        self.counters.preemptions += 1
        self.waiting.add(victim)
        batch.preempted.append(victim)
        return refund

    def _admit_waiting(self, batch: Batch, budget: int, now_s: float) -> None:
        """Rules 3 and 4."""
        active = {seq.adapter for seq in self.running if seq.adapter is not None}
        admitted: set[int] = set()
        for sequence in self.waiting:
            if budget <= 0 or len(self.running) >= self.capacity.max_num_seqs:
                break
            adapter = sequence.adapter
            sequence.is_deferred = (
                adapter is not None
                and adapter not in active
                and len(active) >= self.capacity.max_loras
            )
            if sequence.is_deferred:
                continue
            tokens = self._admit(sequence, budget, now_s)
            if tokens is None:
                break
            if adapter is not None:
                active.add(adapter)
            admitted.add(sequence.order)
            batch.admitted.append(sequence)
            self._schedule(sequence, tokens, batch)
            budget -= tokens
        # Taken out after the walk: their token count is still that of waiting sequences.
        self.waiting.take(admitted)

    def _admit(self, sequence: Sequence, budget: int, now_s: float) -> int | None:
        """Takes the blocks for a first chunk; None if they are not free."""
        size = self.capacity.block_size
        known = sequence.tokens
        hits: list[int] = []
        if self.capacity.prefix_caching:
            hits = self.pool.match(
                self.hashes.of(sequence, (known - 1) // size)[: (known - 1) // size]
            )
        cached = len(hits) * size
        tokens = min(known - cached, budget)
        upto = known if self.capacity.reserves_whole_prompt else cached + tokens
        fitting = self.pool.free - self.pool.idle(hits)
        if -(-upto // size) - len(hits) > fitting:
            return None
        self.pool.hold(hits)
        needed = -(-(cached + tokens) // size) - len(hits)
        sequence.blocks = hits + self.pool.allocate(needed)
        sequence.computed = cached
        sequence.state = State.RUNNING
        self.running.append(sequence)
        self._count_admission(sequence, cached, now_s)
        return tokens

    def _count_admission(self, sequence: Sequence, cached: int, now_s: float) -> None:
        if sequence.first_scheduled_s is not None:
            return  # admitted again after a preemption: vLLM counts these apart
        sequence.first_scheduled_s = now_s
        sequence.cached_tokens = cached
        counters = self.counters
        counters.prompt_tokens += len(sequence.prompt)
        counters.computed_prompt_tokens += len(sequence.prompt) - cached
        if self.capacity.prefix_caching:
            counters.prefix_queries += len(sequence.prompt)
            counters.prefix_hits += cached

    def _schedule(self, sequence: Sequence, tokens: int, batch: Batch) -> None:
        """Books `tokens` of a sequence into the batch, and names the blocks that they fill."""
        before = sequence.computed
        batch.shares[sequence] = tokens
        batch.context_tokens += before
        if tokens > 1 or before < len(sequence.prompt):
            batch.prefill_tokens += tokens
        sequence.computed = before + tokens
        if self.capacity.prefix_caching:
            size = self.capacity.block_size
            first, last = before // size, sequence.computed // size
            if last > first:
                self._register(sequence, first, last)

    def _register(self, sequence: Sequence, first: int, last: int) -> None:
        names = self.hashes.of(sequence, last)
        new = self.pool.register(sequence.blocks[first:last], names[first:last])
        if new:
            size = self.capacity.block_size
            start = names.index(new[0], first)
            event = Stored(
                hashes=new,
                parent=names[start - 1] if start else None,
                tokens=list(sequence.slice(start * size, (start + len(new)) * size)),
                block_size=size,
                adapter=sequence.adapter,
            )
            self.pool.note_stored(event)

    def _free_blocks(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
