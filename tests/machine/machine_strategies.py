"""Operations and logs for the state machine, sensible and wild."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from raftcache.machine import Machine
from raftcache.machine.policies import POLICIES
from raftcache.ops import (
    Append,
    Atomic,
    Batch,
    Clear,
    Condition,
    Configure,
    Count,
    Delete,
    Expire,
    Get,
    Incr,
    IncrFloat,
    Match,
    Move,
    Once,
    Set,
    SetMany,
    SetRange,
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
    st.builds(Condition, st.sampled_from(Match), st.lists(st.integers(0, 12)).map(tuple), values),
)
ttls = st.one_of(st.just(0), st.integers(1, 50))

gets = st.builds(Get, keys)
sets = st.one_of(
    st.builds(Set, keys, values),
    st.builds(Set, keys, values, ttls, st.integers(0, 3), conditions),
    st.builds(Set, keys, values, keep_ttl=st.just(True)),
    st.builds(Set, keys, values, condition=conditions, get=st.just(True)),
)
deletes = st.builds(Delete, keys, conditions, st.booleans())
incrs = st.builds(Incr, keys, st.integers(-3, 2**62), conditions)
expires = st.builds(Expire, keys, ttls, conditions, st.booleans())
appends = st.builds(Append, keys, values, st.sampled_from([20, 1000]))
ranges = st.builds(SetRange, keys, st.integers(-1, 9), values, st.sampled_from([20, 1000]))
floats = st.builds(IncrFloat, keys, st.sampled_from([b"0.1", b"-1", b"1e40", b"x", b"inf"]))
moves = st.builds(Move, keys, keys, st.booleans(), st.booleans())
pairs = st.lists(st.tuples(keys, values), min_size=1, max_size=3).map(tuple)
many = st.builds(SetMany, pairs, st.booleans())
strings = st.one_of(appends, ranges, moves, many)
simple = st.one_of(gets, sets, deletes, incrs, expires, strings, st.builds(Clear), st.builds(Count))
writes = st.one_of(sets, deletes, incrs, expires)
parts = st.one_of(gets, writes, writes, strings, floats)
watched = st.lists(st.tuples(keys, st.sampled_from([0, 0, 1, 2, 3])), max_size=1).map(tuple)
atomics = st.builds(Atomic, st.lists(parts, max_size=5).map(tuple), st.booleans(), watched)
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
operations = st.one_of(simple, simple, simple, floats, atomics, onces, configures)
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
    st.builds(Append, keys, wild_values, wild_integers),
    st.builds(
        SetRange, keys, st.one_of(wild_integers, st.integers(0, 99)), wild_values, st.just(99)
    ),
    st.builds(SetRange, keys, wild_integers, wild_values, st.integers(-5, 1000)),
    st.builds(IncrFloat, keys, wild_values),
    st.builds(Move, keys, keys, st.booleans(), st.booleans()),
    st.builds(
        SetMany, st.lists(st.tuples(keys, wild_values), max_size=3).map(tuple), st.booleans()
    ),
)
wild_simple = st.one_of(st.builds(Get, keys), wild_writes)
wild_atomics = st.builds(
    Atomic,
    st.lists(wild_simple, max_size=4).map(tuple),
    st.booleans(),
    st.lists(st.tuples(keys, wild_integers), max_size=2).map(tuple),
)
wild_operations = st.one_of(
    wild_simple,
    st.builds(Clear),
    st.builds(Count),
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


def written(op: Any) -> list[bytes]:
    """The keys that exist after ``op``, perhaps new, when it succeeded."""
    if type(op) is SetMany:
        return [key for key, _ in op.items]
    if type(op) is Move:
        return [op.to]
    return [op.key] if type(op) in (Set, Incr, Append, SetRange, IncrFloat) else []


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
