"""A snapshot is the whole state: equal for equal states, exact when restored, or refused."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_strategies import configured, image, logs, operations, policies, simple

from raftcache.machine import Machine, SnapshotError
from raftcache.machine.policies import POLICIES
from raftcache.machine.snapshot import MAGIC, PIECE_BYTES
from raftcache.ops import Batch, Delete, Incr, Once, Set

every = pytest.mark.parametrize("policy", sorted(POLICIES))


def filled(policy: str, entries: int = 300) -> Machine:
    """With a past: evictions, expiries, sessions, flags, and uses that differ."""
    choice = random.Random(1)
    machine = configured(policy, entries * 500)
    for now in range(entries):
        key = b"key:%d" % choice.randrange(entries)
        machine.apply(
            Batch(
                now,
                (b"key:%d" % choice.randrange(entries), b"key:0"),
                (
                    Set(key, bytes(choice.randrange(1500)), choice.randrange(1000), now % 3),
                    Set(b"key:%d" % now, b"v"),
                    Once(b"%d" % (now % 7), now, Incr(b"n")),
                    Delete(b"key:%d" % choice.randrange(entries)),
                ),
            )
        )
    return machine


@settings(deadline=None)
@given(policies, st.integers(0, 4000), logs(), logs(max_batches=20))
def test_a_snapshot_and_the_rest_of_the_log_are_the_whole_log(
    policy: str, budget: int, first: list[Batch], rest: list[Batch]
) -> None:
    whole = configured(policy, budget)
    for batch in first:
        whole.apply(batch)
    restored = Machine.restore(image(whole))
    assert image(restored) == image(whole)
    for batch in rest:
        assert restored.apply(batch) == whole.apply(batch)
        assert image(restored) == image(whole)
        assert restored.next_deadline_ms() == whole.next_deadline_ms()


@settings(deadline=None)
@given(logs(operations), logs(operations))
def test_states_that_differ_have_different_snapshots(a: list[Batch], b: list[Batch]) -> None:
    first, second = Machine(), Machine()
    for batch in a:
        first.apply(batch)
    for batch in b:
        second.apply(batch)
    same = (
        list(first.cache.entries.items()) == list(second.cache.entries.items())
        and first.time_ms == second.time_ms
        and first.settings == second.settings
        and first.cache.version == second.cache.version
        and first.cache.policy.freeze() == second.cache.policy.freeze()
        and list(first.sessions.table.items()) == list(second.sessions.table.items())
    )
    assert (image(first) == image(second)) == same


@every
def test_order_and_counts_survive_a_restart(policy: str) -> None:
    machine = filled(policy)
    restored = Machine.restore(image(machine))
    assert restored.cache.policy.freeze() == machine.cache.policy.freeze()
    assert restored.settings == machine.settings
    assert (restored.stats.entries, restored.stats.bytes, restored.stats.session_bytes) == (
        machine.stats.entries,
        machine.stats.bytes,
        machine.stats.session_bytes,
    )


@every
def test_the_machine_may_change_while_its_snapshot_is_taken(policy: str) -> None:
    machine = filled(policy)
    expected = image(machine)
    pieces = machine.snapshot()
    taken = [*islice(pieces, 2)]
    for number in range(500):
        ops = (Set(b"other:%d" % number, b"x" * 300, ttl_ms=5), Delete(b"key:%d" % number))
        machine.apply(Batch(400 + number, (b"key:%d" % number,), ops))
        machine.apply(Batch(400, (), (Once(b"%d" % number, 1, Incr(b"n")),)))
        taken.extend(islice(pieces, 1))
    taken.extend(pieces)
    assert b"".join(taken) == expected != image(machine)


def test_pieces_are_small_whatever_the_values() -> None:
    machine = Machine()
    machine.apply(Batch(0, (), (Set(b"big", bytes(3_000_000)), Set(b"b" * 400_000, b""))))
    machine.apply(Batch(0, (), tuple(Set(b"%d" % n, bytes(5_000)) for n in range(1000))))
    pieces = list(machine.snapshot())
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert image(Machine.restore(b"".join(pieces))) == b"".join(pieces)


@every
def test_a_flipped_bit_anywhere_is_found(policy: str) -> None:
    data = image(filled(policy, 12))
    choice = random.Random(2)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << choice.randrange(8)
        with pytest.raises(SnapshotError):
            Machine.restore(bytes(damaged))


@every
def test_a_snapshot_cut_short_anywhere_is_refused(policy: str) -> None:
    data = image(filled(policy, 12))
    for length in range(len(data)):
        with pytest.raises(SnapshotError):
            Machine.restore(data[:length])


@given(st.binary(max_size=300), st.binary(max_size=30))
def test_what_is_no_snapshot_is_refused(data: bytes, tail: bytes) -> None:
    for candidate in (
        data,
        MAGIC + data,
        MAGIC + b"\x00\x01" + data,
        image(Machine()) + b"x" + tail,
    ):
        with pytest.raises(SnapshotError):
            Machine.restore(candidate)


def test_a_snapshot_of_a_later_format_is_refused_by_its_number() -> None:
    data = bytearray(image(Machine()))
    data[len(MAGIC) + 1] = 9
    with pytest.raises(SnapshotError, match="format 9"):
        Machine.restore(bytes(data))


def test_frames_in_another_order_are_refused() -> None:
    machine = Machine()
    machine.apply(Batch(0, (), tuple(Set(b"%d" % n, bytes(1000)) for n in range(300))))
    pieces = list(machine.snapshot())
    assert len(pieces) > 4
    pieces[2], pieces[3] = pieces[3], pieces[2]
    with pytest.raises(SnapshotError):
        Machine.restore(b"".join(pieces))


@given(logs(simple))
def test_hit_and_miss_counters_are_not_in_the_snapshot(log: list[Batch]) -> None:
    machine = Machine()
    for batch in log:
        machine.apply(batch)
    before = image(machine)
    machine.read(b"a")
    machine.read(b"none")
    assert machine.stats.hits + machine.stats.misses >= 2
    assert image(machine) == before
