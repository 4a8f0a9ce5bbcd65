"""Exactly-once: a retried write happens once and is answered alike, while its session lasts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_strategies import atomics, configured, image, logs, simple, writes

from raftcache.machine import Machine
from raftcache.machine.sessions import BUDGET_SHARE, BYTES_PER_SESSION
from raftcache.ops import (
    Atomic,
    Batch,
    Condition,
    Configure,
    Delete,
    Get,
    Incr,
    Match,
    Once,
    Result,
    Set,
    Status,
)


def do(machine: Machine, op: Any, now_ms: int = 0) -> Result:
    return machine.apply(Batch(now_ms, (), (op,)))[0]


@settings(deadline=None)
@given(logs(simple), st.one_of(writes, atomics), logs(simple), st.integers(300, 5000))
def test_a_retry_gets_the_first_answer_and_changes_nothing(
    before: list[Batch], op: Any, between: list[Batch], budget: int
) -> None:
    machine = configured(budget=budget)
    for batch in before:
        machine.apply(batch)
    first = do(machine, Once(b"s", 7, op))
    for batch in between:
        machine.apply(batch)
    entries = list(machine.cache.entries.items())
    version = machine.cache.version
    assert do(machine, Once(b"s", 7, op)) == first
    assert list(machine.cache.entries.items()) == entries
    assert machine.cache.version == version


@given(logs(simple), st.one_of(writes, atomics))
def test_the_first_attempt_answers_as_without_a_session(log: list[Batch], op: Any) -> None:
    plain, once = Machine(), Machine()
    for batch in log:
        plain.apply(batch)
        once.apply(batch)
    assert do(plain, op) == do(once, Once(b"s", 0, op))


def test_a_failed_write_is_remembered_too() -> None:
    machine = Machine()
    op = Once(b"s", 1, Set(b"k", b"v", condition=Condition(Match.EXISTS)))
    assert do(machine, op).status is Status.PRECONDITION_FAILED
    do(machine, Set(b"k", b"other"))
    assert do(machine, op).status is Status.PRECONDITION_FAILED


def test_the_same_number_for_another_operation_is_refused() -> None:
    machine = Machine()
    do(machine, Once(b"s", 1, Incr(b"n")))
    assert do(machine, Once(b"s", 1, Incr(b"n", 2))).status is Status.SESSION_MISMATCH
    assert machine.read(b"n").value == b"1"


def test_a_lower_number_is_stale_and_a_higher_one_goes_on() -> None:
    machine = Machine()
    do(machine, Once(b"s", 5, Incr(b"n")))
    assert do(machine, Once(b"s", 4, Incr(b"n"))).status is Status.STALE_SEQUENCE
    assert do(machine, Once(b"s", 9, Incr(b"n"))).number == 2


def test_sessions_do_not_meet() -> None:
    machine = Machine()
    assert [do(machine, Once(name, 1, Incr(b"n"))).number for name in (b"s", b"t", b"")] == [
        1,
        2,
        3,
    ]


@pytest.mark.parametrize(
    "op",
    [
        Once(b"s", -1, Incr(b"n")),
        Once(b"s", 2**63, Incr(b"n")),
        Once(b"s", 1, Set(b"n", b"", ttl_ms=-1)),
        Once(b"s", 1, Get(b"n")),  # type: ignore[arg-type]
        Once(b"s", 1, Once(b"s", 1, Incr(b"n"))),  # type: ignore[arg-type]
        Once(b"s", 1, Configure(1, "lru", 1, 1)),  # type: ignore[arg-type]
    ],
)
def test_a_malformed_write_starts_no_session(op: Once) -> None:
    machine = Machine()
    before = image(machine)
    assert do(machine, op).status is Status.INVALID
    assert image(machine) == before


def test_a_session_expires_by_machine_time_after_its_last_use() -> None:
    machine = Machine()
    machine.apply(Batch(0, (), (Configure(0, "lru", 100, 10),)))
    op = Once(b"s", 1, Incr(b"n"))
    do(machine, op, now_ms=10)
    assert machine.next_deadline_ms() == 110
    assert do(machine, op, now_ms=109).number == 1
    assert machine.next_deadline_ms() == 209
    assert do(machine, op, now_ms=208).number == 1
    assert do(machine, op, now_ms=308).number == 2


def test_the_least_recently_used_session_goes_when_there_are_too_many() -> None:
    machine = configured(sessions=2)
    for name in (b"a", b"b", b"a", b"c"):
        do(machine, Once(name, 1, Incr(name)))
    assert do(machine, Once(b"a", 1, Incr(b"a"))).number == 1
    assert do(machine, Once(b"c", 1, Incr(b"c"))).number == 1
    assert do(machine, Once(b"b", 1, Incr(b"b"))).number == 2


@settings(deadline=None)
@given(st.lists(st.integers(0, 3000)), st.integers(0, 5))
def test_sessions_are_bounded_by_number_and_bytes(sizes: list[int], most: int) -> None:
    machine = configured(sessions=most)
    for number, size in enumerate(sizes):
        op = Once(b"%d" % number, 1, Atomic((Get(b"k"), Set(b"k", b""))))
        do(machine, Set(b"k", bytes(size)))
        first = do(machine, op)
        assert machine.stats.sessions <= most
        if machine.stats.sessions > 1:
            assert machine.stats.session_bytes <= most * BYTES_PER_SESSION
        if most:  # the last one is remembered, however large its answer
            assert do(machine, op) == first


def test_fewer_sessions_are_reached_at_once_and_the_bytes_are_given_back() -> None:
    machine = configured(sessions=50)
    for number in range(50):
        do(machine, Once(b"%d" % number, 1, Delete(b"k")))
    do(machine, Configure(0, "lru", 10_000, 3))
    assert machine.stats.sessions == 3
    do(machine, Configure(0, "lru", 10_000, 0))
    assert machine.stats.session_bytes == 0


def test_sessions_take_at_most_an_eighth_of_the_byte_budget() -> None:
    budget = 80_000
    machine = configured(budget=budget)
    for number in range(1000):
        do(machine, Once(b"%d" % number, 0, Incr(b"counter")))
    assert 0 < machine.stats.session_bytes <= budget // BUDGET_SHARE
    assert (
        do(machine, Once(b"999", 0, Incr(b"counter"))).number == 1000
    )  # the latest is still known
