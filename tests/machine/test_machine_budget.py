"""The byte budget holds after every batch, and eviction is part of what is all or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_strategies import (
    atomics,
    configured,
    image,
    keys,
    logs,
    onces,
    policies,
    simple,
    values,
)

from raftcache.machine import Machine
from raftcache.machine.cache import PURGES_PER_BATCH
from raftcache.machine.policies import POLICIES
from raftcache.ops import Atomic, Batch, Configure, Delete, Expire, Get, Incr, Set, Status

every = pytest.mark.parametrize("policy", sorted(POLICIES))


@every
@settings(deadline=None, max_examples=40)
@given(
    log=logs(st.one_of(simple, atomics, onces), max_ops=10, max_batches=25),
    budget=st.integers(1, 5000),
)
def test_the_budget_holds_and_counts_what_is_there(
    policy: str, log: list[Batch], budget: int
) -> None:
    machine = configured(policy, budget)
    for batch in log:
        machine.apply(batch)
        cache = machine.cache
        assert machine.stats.bytes <= budget
        assert machine.stats.bytes == sum(cache.cost(*item) for item in cache.entries.items())
        assert machine.stats.entries == len(cache.entries)


@every
def test_a_value_that_could_never_fit_is_refused_and_evicts_nothing(policy: str) -> None:
    machine = configured(policy, 3000)
    machine.apply(Batch(0, (), (Set(b"a", b"1"), Set(b"n", b"1", ttl_ms=10))))
    before = image(machine)
    results = machine.apply(
        Batch(0, (), (Set(b"b", bytes(3000)), Set(b"a", bytes(3000)), Set(b"n", bytes(2900), 5)))
    )
    assert [result.status for result in results] == [Status.TOO_LARGE] * 3
    assert image(machine) == before


@every
def test_an_entry_of_the_whole_budget_is_kept_alone(policy: str) -> None:
    machine = configured(policy)
    machine.apply(Batch(0, (), (Set(b"k", bytes(5000)),)))
    whole = machine.stats.bytes
    machine = configured(policy, whole)
    machine.apply(Batch(0, (), (Set(b"a", b"1"), Set(b"b", b"1"), Set(b"k", bytes(5000)))))
    assert list(machine.cache.entries) == [b"k"]


@every
@given(first=st.integers(0, 9), log=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 1200))))
def test_the_key_just_written_is_never_the_victim(
    policy: str, first: int, log: list[tuple[int, int]]
) -> None:
    machine = configured(policy, 3000)
    for number, size in [(first, 0), *log]:
        key = b"%d" % number
        machine.apply(Batch(0, (), (Set(key, bytes(size)),)))
        assert machine.read(key).value == bytes(size)


@settings(deadline=None, max_examples=120)
@given(
    policy=policies,
    budget=st.integers(500, 4000),
    log=logs(simple),
    op=st.lists(simple, max_size=6).map(tuple).map(Atomic),
)
def test_an_atomic_batch_happens_wholly_or_not_at_all(
    policy: str, budget: int, log: list[Batch], op: Atomic
) -> None:
    machine = configured(policy, budget)
    for batch in log:
        machine.apply(batch)
    before = image(machine)
    [result] = machine.apply(Batch(0, (), (op,)))
    assert len(result.parts) == len(op.ops)
    if result.status is Status.OK:
        roomy = Machine.restore(before)
        roomy.apply(Batch(0, (), (Configure(0, policy, 10_000, 1000), op)))
        for key in {part.key for part in op.ops if type(part) in (Set, Incr)}:
            assert machine.read(key) == roomy.read(key), "evicted by its own batch"
    else:
        assert image(machine) == before
        failed = [part for part in result.parts if part.status is not Status.ABORTED]
        assert [part.status for part in failed] == [result.status]


@given(st.lists(st.one_of(simple), max_size=8))
def test_an_atomic_batch_that_succeeds_answers_as_its_operations_would_alone(
    ops: list[Any],
) -> None:
    together, alone = Machine(), Machine()
    [result] = together.apply(Batch(5, (), (Atomic(tuple(ops)),)))
    if result.status is Status.OK:
        assert list(result.parts) == alone.apply(Batch(5, (), tuple(ops)))
        for key in (b"", b"a", b"b", b"c"):
            assert together.read(key) == alone.read(key)


def test_an_atomic_batch_tells_which_operation_failed_and_how() -> None:
    machine = Machine()
    [result] = machine.apply(
        Batch(0, (), (Atomic((Set(b"n", b"x"), Delete(b"none"), Incr(b"n"), Get(b"n"))),))
    )
    assert result.status is Status.NOT_AN_INTEGER
    assert [part.status for part in result.parts] == [
        Status.ABORTED,
        Status.ABORTED,
        Status.NOT_AN_INTEGER,
        Status.ABORTED,
    ]
    assert machine.read(b"n").status is Status.NOT_FOUND


def test_an_atomic_batch_bears_reads_removals_and_expiries_of_missing_keys() -> None:
    ops = (Get(b"x"), Delete(b"x"), Expire(b"x", 5), Set(b"y", b"1"))
    [result] = Machine().apply(Batch(0, (), (Atomic(ops),)))
    assert result.status is Status.OK
    assert [part.status for part in result.parts] == [Status.NOT_FOUND] * 3 + [Status.CREATED]


@every
def test_an_atomic_batch_too_large_as_a_whole_is_refused(policy: str) -> None:
    machine = configured(policy, 3000)
    machine.apply(Batch(0, (), (Set(b"old", b"1"),)))
    before = image(machine)
    ops = tuple(Set(b"%d" % n, bytes(700)) for n in range(4))
    [result] = machine.apply(Batch(0, (), (Atomic(ops),)))
    assert result.status is Status.TOO_LARGE
    assert image(machine) == before


@every
def test_an_atomic_batch_may_grow_one_entry_and_shrink_another(policy: str) -> None:
    machine = configured(policy, 3000)
    machine.apply(Batch(0, (), (Set(b"a", b""), Set(b"b", bytes(1500)))))
    [result] = machine.apply(Batch(0, (), (Atomic((Set(b"a", bytes(1500)), Set(b"b", b""))),)))
    assert result.status is Status.OK
    assert set(machine.cache.entries) == {b"a", b"b"}


@every
def test_a_smaller_budget_is_reached_over_several_batches(policy: str) -> None:
    machine = configured(policy)
    count = 3 * PURGES_PER_BATCH
    machine.apply(Batch(0, (), tuple(Set(b"%d" % n, b"v") for n in range(count))))
    budget = machine.stats.bytes // count * 10
    used = machine.stats.bytes
    machine.apply(Batch(0, (), (Configure(budget, policy, 10_000, 1000), Set(b"new", b"v"))))
    assert machine.stats.entries >= count - PURGES_PER_BATCH
    while machine.stats.bytes > budget:
        assert machine.next_deadline_ms() == 0
        machine.apply(Batch(0, (), ()))
        assert machine.stats.bytes < used
        used = machine.stats.bytes
    assert machine.next_deadline_ms() is None
    assert machine.stats.entries >= 9


@given(policies, st.lists(st.tuples(keys, values), max_size=30))
def test_evictions_are_counted(policy: str, writes: list[tuple[bytes, bytes]]) -> None:
    machine = configured(policy, 2500)
    created = 0
    for key, value in writes:
        [result] = machine.apply(Batch(0, (), (Set(key, value),)))
        created += result.status is Status.CREATED
    assert machine.stats.evictions == created - machine.stats.entries
