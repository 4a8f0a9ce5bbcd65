"""Time is in the log: what is dead stays dead, whoever leads and whatever its clock says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from machine_strategies import configured, image, keys, logs, policies, simple, written

from raftcache.machine import Machine
from raftcache.machine.cache import PURGES_PER_BATCH
from raftcache.ops import MAX_TTL_MS, Batch, Delete, Expire, Get, Incr, Set, Status

ALL = (b"", b"a", b"b", b"c", b"\x00\xff", b"key:0000000007", b"d" * 40)


def tick(machine: Machine, now_ms: int) -> None:
    assert machine.apply(Batch(now_ms, (), ())) == []


def test_an_entry_is_there_until_its_deadline_and_not_at_it() -> None:
    machine = Machine()
    machine.apply(Batch(1000, (), (Set(b"k", b"v", ttl_ms=10),)))
    tick(machine, 1009)
    assert machine.read(b"k").ttl_ms == 1
    tick(machine, 1010)
    assert machine.read(b"k").status is Status.NOT_FOUND


@given(st.lists(st.integers(-(2**63), 2**64 - 1)))
def test_machine_time_never_goes_back(readings: list[int]) -> None:
    machine, highest = Machine(), 0
    for reading in readings:
        tick(machine, reading)
        assert machine.time_ms >= highest
        highest = machine.time_ms


@settings(deadline=None)
@given(policies, logs(simple, max_batches=20))
def test_what_expired_is_never_seen_again_unless_written(policy: str, log: list[Batch]) -> None:
    machine, dead = configured(policy), set[bytes]()
    for batch in log:  # clock readings jump back and forth, as leaders change
        results = machine.apply(batch)
        for op, result in zip(batch.ops, results, strict=True):
            if result.status <= Status.CREATED:
                dead.difference_update(written(op))
        for key in ALL:
            if machine.read(key).status is Status.NOT_FOUND:
                dead.add(key)
            assert key not in dead or machine.read(key).status is Status.NOT_FOUND


def test_a_dead_entry_is_absent_for_every_operation_before_it_is_purged() -> None:
    machine = Machine()
    count = PURGES_PER_BATCH
    early = tuple(Set(b"0%06d" % n, b"1", ttl_ms=5) for n in range(count))
    late = tuple(Set(b"%d" % n, b"1", ttl_ms=6) for n in range(4))
    machine.apply(Batch(0, (), early + late))
    results = machine.apply(
        Batch(6, (b"0",), (Get(b"0"), Delete(b"0"), Expire(b"1", 9), Incr(b"2", 7), Set(b"3", b"")))
    )
    assert machine.stats.entries == 4  # two of them dead
    assert [result.status for result in results] == [
        *[Status.NOT_FOUND] * 3,
        *[Status.CREATED] * 2,
    ]
    assert results[3].number == 7
    assert results[3].ttl_ms == -1


def test_a_mass_expiry_is_spread_over_ticks_that_the_machine_asks_for() -> None:
    machine = Machine()
    count = 2 * PURGES_PER_BATCH + 1
    machine.apply(Batch(0, (), tuple(Set(b"%d" % n, b"v", ttl_ms=50) for n in range(count))))
    left = []
    while machine.stats.entries:
        assert machine.next_deadline_ms() == 50
        tick(machine, 60)
        left.append(machine.stats.entries)
    assert left == [PURGES_PER_BATCH + 1, 1, 0]
    assert machine.next_deadline_ms() is None
    assert machine.stats.expirations == count
    assert machine.stats.bytes == 0


@settings(deadline=None)
@given(policies, logs(simple, max_batches=25), st.integers(0, 3000))
def test_the_next_deadline_is_that_of_the_entry_that_expires_first(
    policy: str, log: list[Batch], budget: int
) -> None:
    machine = configured(policy, budget)
    for batch in log:
        machine.apply(batch)
        deadlines = [entry[2] for entry in machine.cache.entries.values() if entry[2]]
        assert machine.next_deadline_ms() == min(deadlines, default=None)


def test_the_longest_ttl_at_the_latest_time_is_kept_exactly() -> None:
    machine = Machine()
    machine.apply(Batch(2**64 - 1, (), (Set(b"k", b"v", ttl_ms=MAX_TTL_MS),)))
    restored = Machine.restore(image(machine))
    assert restored.read(b"k").ttl_ms == machine.read(b"k").ttl_ms == MAX_TTL_MS


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(keys, st.sampled_from([0, 3, 1000, 2000, 10**6])), max_size=60))
def test_deadlines_that_move_leave_no_growing_garbage(writes: list[tuple[bytes, int]]) -> None:
    machine, now = configured(budget=2000), 0
    for _ in range(80):
        for key, ttl_ms in writes:
            now += 1
            machine.apply(Batch(now, (), (Set(key, b"v", ttl_ms=ttl_ms), Delete(b"a"))))
    assert len(machine.cache.deadlines) <= 2000


def test_a_key_with_shorter_and_longer_deadlines_in_turn_holds_few_items() -> None:
    machine = Machine()
    for now in range(20_000):
        ttl_ms = 10**6 if now % 2 else 10**5
        machine.apply(Batch(now, (), (Set(b"k", b"v", ttl_ms=ttl_ms),)))
    assert len(machine.cache.deadlines) < 1000
    assert machine.next_deadline_ms() == 19_999 + 10**6
