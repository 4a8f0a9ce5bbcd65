"""Each policy evicts what its reference does: cachetools, or the paper written down naively."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cache_trace import load_trace, machine_hits, reference_hits
from cachetools import FIFOCache, LFUCache, LRUCache
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from machine_strategies import configured, image

from raftcache.machine import Machine
from raftcache.machine.costs import entry_cost
from raftcache.machine.policies import POLICIES
from raftcache.ops import Batch, Configure, Delete, Get, Incr, Set

KEYS = [b"key:%012d" % n for n in range(40)]
keys = st.sampled_from(KEYS)
sizes = st.sampled_from([0, 10, 100, 101, 900, 3000])


def held(machine: Machine) -> set[bytes]:
    return {key for key in KEYS if machine.cache.entries.get(key) is not None}


class LruMachine(RuleBasedStateMachine):
    """``lru`` beside ``cachetools.LRUCache``, which gets each entry's cost as its size."""

    policy = "lru"
    reference: Callable[..., Any] = LRUCache

    @initialize(budget=st.integers(400, 12_000))
    def start(self, budget: int) -> None:
        self.machine = configured(self.policy, budget)
        self.model = type(self).reference(budget, lambda cost: cost)

    def apply(self, *ops: Any, touched: tuple[bytes, ...] = ()) -> None:
        self.machine.apply(Batch(0, touched, ops))

    def cost(self, key: bytes, size: int) -> int:
        return entry_cost(key, (bytes(size), 1, 0), POLICIES[self.policy].overhead)

    @rule(key=keys, size=sizes)
    def write(self, key: bytes, size: int) -> None:
        self.apply(Set(key, bytes(size)))
        if self.cost(key, size) <= self.model.maxsize:
            self.model[key] = self.cost(key, size)

    @rule(key=keys, size=sizes)
    def write_with_expiry(self, key: bytes, size: int) -> None:
        self.apply(Set(key, bytes(size), ttl_ms=10**6))
        cost = entry_cost(key, (bytes(size), 1, 10**6), POLICIES[self.policy].overhead)
        if cost <= self.model.maxsize:
            self.model[key] = cost

    @rule(key=keys)
    def count(self, key: bytes) -> None:
        self.apply(Delete(key), Incr(key))
        self.model.pop(key, None)
        if self.cost(key, 1) <= self.model.maxsize:
            self.model[key] = self.cost(key, 1)

    @rule(key=keys)
    def read_in_the_log(self, key: bytes) -> None:
        self.apply(Get(key))
        self.model.get(key)

    @rule(touched=st.lists(keys, max_size=5))
    def read_outside_the_log(self, touched: list[bytes]) -> None:
        self.apply(touched=tuple(touched))
        for key in touched:
            self.model.get(key)

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        self.apply(Delete(key))
        self.model.pop(key, None)

    @rule()
    def restart(self) -> None:
        self.machine = Machine.restore(image(self.machine))

    @invariant()
    def the_same_keys_are_held_for_the_same_bytes(self) -> None:
        assert held(self.machine) == set(self.model)
        assert self.machine.stats.bytes == self.model.currsize


class FifoMachine(LruMachine):
    """``fifo`` beside ``cachetools.FIFOCache``."""

    policy = "fifo"
    reference = FIFOCache


TestLruIsCachetoolsLru = LruMachine.TestCase
TestLruIsCachetoolsLru.settings = settings(deadline=None, max_examples=60)
TestFifoIsCachetoolsFifo = FifoMachine.TestCase
TestFifoIsCachetoolsFifo.settings = settings(deadline=None, max_examples=30)


class SieveModel:
    """Algorithm 1 of the SIEVE paper, over a list: the newest first, as the paper's head."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.queue: list[bytes] = []
        self.visited: dict[bytes, bool] = {}
        self.costs: dict[bytes, int] = {}
        self.hand: bytes | None = None

    def read(self, key: bytes) -> None:
        if key in self.costs:
            self.visited[key] = True

    def write(self, key: bytes, cost: int) -> None:
        if key in self.costs:
            self.visited[key] = True
            return
        while sum(self.costs.values()) + cost > self.capacity:
            self.evict()
        self.queue.insert(0, key)
        self.visited[key], self.costs[key] = False, cost

    def evict(self) -> None:
        at = len(self.queue) - 1 if self.hand is None else self.queue.index(self.hand)
        while self.visited[self.queue[at]]:
            self.visited[self.queue[at]] = False
            at = at - 1 if at else len(self.queue) - 1
        self.hand = self.queue[at]
        self.delete(self.queue[at])

    def delete(self, key: bytes) -> None:
        if key in self.costs:
            if key == self.hand:
                at = self.queue.index(key)
                self.hand = self.queue[at - 1] if at else None
            self.queue.remove(key)
            del self.visited[key], self.costs[key]


class S3FifoModel:
    """Algorithm 1 of the S3-FIFO paper, over lists with the oldest first and sizes in bytes. The
    ghost queue remembers as many keys as there are entries."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.small: list[bytes] = []
        self.main: list[bytes] = []
        self.ghost: list[bytes] = []
        self.freq: dict[bytes, int] = {}
        self.costs: dict[bytes, int] = {}

    def read(self, key: bytes) -> None:
        if key in self.costs:
            self.freq[key] = min(self.freq[key] + 1, 3)

    def write(self, key: bytes, cost: int) -> None:
        if key in self.costs:
            self.read(key)
            return
        while sum(self.costs.values()) + cost > self.capacity:
            if sum(self.costs[k] for k in self.small) >= self.capacity // 10 or not self.main:
                self.evict_small()
            else:
                self.evict_main()
        if key in self.ghost:
            self.ghost.remove(key)
            self.main.append(key)
        else:
            self.small.append(key)
        self.freq[key], self.costs[key] = 0, cost

    def evict_small(self) -> None:
        while self.small:
            key = self.small.pop(0)
            if self.freq[key] <= 1:
                while len(self.ghost) >= len(self.costs):
                    self.ghost.pop(0)
                self.ghost.append(key)
                del self.freq[key], self.costs[key]
                return
            self.main.append(key)
            self.freq[key] = 0
        self.evict_main()

    def evict_main(self) -> None:
        while True:
            key = self.main.pop(0)
            if self.freq[key] == 0:
                del self.freq[key], self.costs[key]
                return
            self.freq[key] -= 1
            self.main.append(key)

    def delete(self, key: bytes) -> None:
        if key in self.costs:
            (self.small if key in self.small else self.main).remove(key)
            del self.freq[key], self.costs[key]


class LfuModel:
    """``cachetools.LFUCache``."""

    def __init__(self, capacity: int) -> None:
        self.cache = LFUCache(capacity, lambda cost: cost)

    @property
    def costs(self) -> set[bytes]:
        return set(self.cache)

    def read(self, key: bytes) -> None:
        self.cache.get(key)

    def write(self, key: bytes, cost: int) -> None:
        self.cache[key] = cost

    def delete(self, key: bytes) -> None:
        self.cache.pop(key, None)


accesses = st.lists(st.tuples(st.sampled_from("rrrwwwwdx"), st.integers(0, 39)), max_size=300)


@pytest.mark.parametrize(
    ("policy", "model"), [("lfu", LfuModel), ("sieve", SieveModel), ("s3fifo", S3FifoModel)]
)
@settings(deadline=None, max_examples=60)
@given(budget=st.integers(1500, 9000), log=accesses)
def test_the_policy_evicts_what_its_reference_evicts(
    policy: str, model: Callable[[int], Any], budget: int, log: list[tuple[str, int]]
) -> None:
    machine, reference = configured(policy, budget), model(budget)
    for what, number in log:
        key, value = KEYS[number], bytes(number * 13)  # a key's size never changes
        if what == "r":
            machine.apply(Batch(0, (key,), ()))
            reference.read(key)
        elif what == "w":
            machine.apply(Batch(0, (), (Set(key, value),)))
            reference.write(key, entry_cost(key, (value, 1, 0), POLICIES[policy].overhead))
        elif what == "d":
            machine.apply(Batch(0, (), (Delete(key),)))
            reference.delete(key)
        else:
            machine = Machine.restore(image(machine))
        assert held(machine) == set(reference.costs)


@pytest.mark.parametrize("fraction", [0.01, 0.1])
@pytest.mark.parametrize(
    ("policy", "reference"), [("lru", LRUCache), ("lfu", LFUCache), ("fifo", FIFOCache)]
)
def test_hits_on_a_real_trace_equal_the_references_to_the_last(
    policy: str, reference: Callable[..., Any], fraction: float
) -> None:
    trace = load_trace()._replace(requests=load_trace().requests[:30_000])
    costs = trace.costs(policy)
    budget = int(sum(costs) * fraction)
    expected = reference_hits(trace, reference(budget, lambda cost: cost), costs)
    assert machine_hits(trace, policy, budget) == expected


def test_lru_hits_on_the_whole_trace_equal_the_references_to_the_last() -> None:
    trace = load_trace()
    costs = trace.costs("lru")
    budget = sum(costs) // 30
    expected = reference_hits(trace, LRUCache(budget, lambda cost: cost), costs)
    assert machine_hits(trace, "lru", budget) == expected


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(log=accesses, to=st.sampled_from(sorted(POLICIES)))
def test_a_change_of_policy_keeps_every_entry(
    policy: str, log: list[tuple[str, int]], to: str
) -> None:
    machine = configured(policy)
    for what, number in log:
        op = Delete(KEYS[number]) if what == "d" else Set(KEYS[number], b"%d" % number)
        machine.apply(Batch(0, (KEYS[number],), (op,)))
    before = dict(machine.cache.entries)
    machine.apply(Batch(0, (), (Configure(0, to, 10_000, 1000),)))
    assert dict(machine.cache.entries) == before
    assert image(Machine.restore(image(machine))) == image(machine)


def test_a_change_from_fifo_to_lru_goes_on_from_fifos_order() -> None:
    machine = configured("fifo")
    machine.apply(Batch(0, (), tuple(Set(key, b"v") for key in KEYS[:10])))
    machine.apply(Batch(0, (KEYS[0],), ()))
    machine.apply(Batch(0, (), (Configure(machine.stats.bytes, "lru", 10_000, 1000),)))
    machine.apply(Batch(0, (), (Set(KEYS[20], b"v"),)))
    assert held(machine) == {*KEYS[1:10], KEYS[20]}


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"fifo"}))
def test_a_policy_that_looks_at_reads_keeps_what_is_read(policy: str) -> None:
    machine = configured(policy)
    machine.apply(Batch(0, (), tuple(Set(key, b"v") for key in KEYS[:20])))
    machine.apply(Batch(0, (), (Configure(machine.stats.bytes, policy, 10_000, 1000),)))
    for key in KEYS[20:38]:
        machine.apply(Batch(0, (KEYS[0], KEYS[0]), (Set(key, b"v"),)))
    assert machine.uses_recency
    assert KEYS[0] in held(machine)


def test_fifo_does_not_ask_for_reads_and_ignores_them() -> None:
    machine = configured("fifo")
    assert not machine.uses_recency
    machine.apply(Batch(0, (), (Set(b"a", b"1"), Set(b"b", b"1"))))
    before = image(machine)
    machine.apply(Batch(0, (b"a",), (Get(b"a"),)))
    assert image(machine) == before
