"""Replicas that apply the same log are the same to the byte, and none ever raises."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from machine_strategies import image, logs, wild_logs

from raftcache.machine import Machine
from raftcache.ops import Batch, Configure, Get, Incr, Once, Set, encode_batch

many = settings(deadline=None)

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=25,
)
near_batches = st.tuples(
    st.integers(-5, 5),
    st.lists(st.binary(max_size=3), max_size=2),
    st.lists(st.tuples(st.integers(0, 9), anything, anything) | anything, max_size=4),
)


@many
@given(logs())
def test_replicas_are_alike_whether_they_kept_the_batch_or_decoded_it(log: list[Batch]) -> None:
    leader, follower = Machine(), Machine()
    for batch in log:
        assert leader.apply(batch) == follower.apply_payload(encode_batch(batch))
        assert image(leader) == image(follower)


@many
@given(logs())
@example([Batch(0, (), (Configure(0, "fifo", 0, 1), Once(b"s", 0, Incr(b"n")), Get(b"n")))])
def test_replicas_are_alike_however_operations_are_batched(log: list[Batch]) -> None:
    whole, split = Machine(), Machine()
    for batch in log:
        split.apply(Batch(batch.now_ms, batch.touched, ()))
        parts = [split.apply(Batch(batch.now_ms, (), (op,)))[0] for op in batch.ops]
        assert whole.apply(batch) == parts
        assert image(whole) == image(split)


@many
@given(wild_logs())
def test_any_batch_that_decodes_gets_one_result_per_operation(log: list[Batch]) -> None:
    machine = Machine()
    for batch in log:
        assert len(machine.apply_payload(encode_batch(batch))) == len(batch.ops)
        machine.next_deadline_ms()
    assert image(Machine.restore(image(machine))) == image(machine)


@many
@given(st.binary(max_size=200) | st.one_of(anything, near_batches).map(msgspec.msgpack.encode))
@example(b"\x91" * 100_000)
def test_any_bytes_may_be_in_the_log(payload: bytes) -> None:
    machine = Machine()
    machine.apply(Batch(1, (), (Set(b"k", b"v"),)))
    before = image(machine)
    results: list[Any] = machine.apply_payload(payload)
    assert results or machine.read(b"k").value == b"v"
    if not decodes(payload):
        assert (results, image(machine)) == ([], before)


def decodes(payload: bytes) -> bool:
    try:
        msgspec.msgpack.decode(payload, type=Batch)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


@given(wild_logs(), st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_log_entry_never_raises(log: list[Batch], at: int, byte: int) -> None:
    machine = Machine()
    for batch in log:
        payload = bytearray(encode_batch(batch))
        payload[at % len(payload)] = byte
        machine.apply_payload(bytes(payload))
    assert image(Machine.restore(image(machine))) == image(machine)
