"""Operations and logs for the state machine, sensible and wild."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from raftcache.machine import Machine
from raftcache.machine.policies import POLICIES
from raftcache.ops import (
    Atomic,
    Batch,
    Condition,
    Configure,
    Delete,
    Expire,
    Get,
    Incr,
    Match,
    Once,
    Set,
)

Strategy = st.SearchStrategy[Any]

keys = st.sampled_from([b"", b"a", b"b", b"c", b"\x00\xff", b"key:%010d" % 7, b"d" * 40])
values = st.one_of(
    st.sampled_from([b"", b"0", b"-1", b"007", b"9223372036854775807"]),
    st.integers(0, 700).map(lambda size: b"v" * size),
)
policies = st.sampled_from(sorted(POLICIES))
conditions = st.one_of(
    st.none(),
    st.builds(Condition, st.sampled_from(Match), st.lists(st.integers(0, 12)).map(tuple)),
)
ttls = st.one_of(st.just(0), st.integers(1, 50))

gets = st.builds(Get, keys)
sets = st.one_of(
    st.builds(Set, keys, values),
    st.builds(Set, keys, values, ttls, st.integers(0, 3), conditions),
    st.builds(Set, keys, values, keep_ttl=st.just(True)),
)
deletes = st.builds(Delete, keys, conditions)
incrs = st.builds(Incr, keys, st.integers(-3, 2**62), conditions)
expires = st.builds(Expire, keys, ttls, conditions)
simple = st.one_of(gets, sets, deletes, incrs, expires)
writes = st.one_of(sets, deletes, incrs, expires)
atomics = st.builds(Atomic, st.lists(simple, max_size=5).map(tuple))
onces = st.builds(
    Once,
    st.sampled_from([b"s1", b"s2", b"s3", b"s4"]),
    st.integers(0, 4),
    st.one_of(writes, atomics),
)
configures = st.builds(
    Configure,
    st.one_of(st.just(0), st.integers(300, 6000)),
    policies,
    st.integers(0, 60),
    st.integers(0, 4),
)
operations = st.one_of(simple, simple, simple, atomics, onces, configures)
"""All kinds, with small budgets and short times, so that evictions and expiries are many."""


def logs(ops: Strategy = operations, max_ops: int = 6, max_batches: int = 12) -> Strategy:
    """Lists of batches; the clock readings go back and forth."""
    batches = st.builds(
        Batch,
        st.integers(0, 200),
        st.lists(keys, max_size=3).map(tuple),
        st.lists(ops, max_size=max_ops).map(tuple),
    )
    return st.lists(batches, max_size=max_batches)


# What MessagePack can carry, and no more sense than that.
wild_integers = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([-(2**63), -1, 0, 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]),
)
wild_values = st.one_of(
    st.binary(max_size=60),
    st.text("-+ 0123456789", max_size=30).map(str.encode),
    st.just(b"9" * 5000),
)
wild_conditions = st.one_of(
    st.none(), st.builds(Condition, st.sampled_from(Match), st.lists(wild_integers).map(tuple))
)
wild_writes = st.one_of(
    st.builds(Set, keys, wild_values, wild_integers, wild_integers, wild_conditions, st.booleans()),
    st.builds(Set, keys, wild_values),
    st.builds(Delete, keys, wild_conditions),
    st.builds(Incr, keys, wild_integers, wild_conditions),
    st.builds(Expire, keys, wild_integers, wild_conditions),
)
wild_simple = st.one_of(st.builds(Get, keys), wild_writes)
wild_atomics = st.builds(Atomic, st.lists(wild_simple, max_size=4).map(tuple))
wild_operations = st.one_of(
    wild_simple,
    wild_atomics,
    st.builds(Once, st.binary(max_size=3), wild_integers, st.one_of(wild_writes, wild_atomics)),
    st.builds(
        Configure,
        wild_integers,
        st.one_of(policies, st.text(max_size=5)),
        wild_integers,
        wild_integers,
    ),
)


def wild_logs() -> Strategy:
    """Lists of batches of anything the types allow."""
    batches = st.builds(
        Batch,
        wild_integers,
        st.lists(keys, max_size=3).map(tuple),
        st.lists(wild_operations, max_size=6).map(tuple),
    )
    return st.lists(batches, max_size=6)


def configured(policy: str = "lru", budget: int = 0, sessions: int = 1000) -> Machine:
    """A machine with these settings, at time 0."""
    machine = Machine()
    machine.apply(Batch(0, (), (Configure(budget, policy, 10_000, sessions),)))
    return machine


def image(machine: Machine) -> bytes:
    """Its whole state."""
    return b"".join(machine.snapshot())
