"""Requests of one turn go together, and each has its own end."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from raftcache.gathering import (
    MAX_GATHERED_BYTES,
    MAX_GATHERED_OPERATIONS,
    SAME_DEADLINE_S,
    Gathered,
)
from raftcache.ops import Get, Incr, Once, Result, Set, Status, Write
from raftcache.payloads import Kind
from raftcache.requests import Call
from raftcache.scattering import Part, Share, Whole
from tests.core.conftest import Stage
from tests.core.test_full_disk import fill


def entries(stage: Stage, group: int) -> int:
    """Log entries of the group's writers so far."""
    return sum(n.group_metrics[group].batch_operations.count for n in stage.cluster.nodes.values())


@pytest.mark.parametrize("where", ["leader", "follower"])
def test_one_turn_is_one_ticket_and_one_entry_and_each_hears_of_its_own(
    stage: Stage, where: str
) -> None:
    via = stage.leader(0) if where == "leader" else stage.followers(0)[0]
    node, keys = stage.node(via), [stage.key_of(0, i) for i in range(20)]
    before = entries(stage, 0)
    writes = [node.write(Set(key, b"v" + key), node.now() + 5.0) for key in keys]
    writes.append(node.write(Incr(stage.key_of(0, 30), 7), node.now() + 5.0))
    assert len(node.router._outstanding) == 1
    results = [stage.result(future) for future in writes]
    assert [r.status for r in results] == [Status.CREATED] * 21
    assert results[-1].number == 7
    assert entries(stage, 0) - before == 1
    reads = [node.read(key, node.now() + 5.0) for key in [*keys, stage.key_of(0, 40)]]
    batch = node.batch([Get(keys[3]), Get(keys[4])], node.now() + 5.0)
    assert len(node.router._outstanding) == 1
    assert [stage.result(f).value for f in reads] == [*(b"v" + key for key in keys), None]
    assert [r.value for r in stage.result(batch)] == [b"v" + keys[3], b"v" + keys[4]]
    assert (node.router._operations, node.router._bytes) == (0, 0)


def test_what_must_not_share_a_fate_goes_apart(stage: Stage) -> None:
    node, key = stage.node(), stage.key_of(0)
    now = node.now()
    ends = [
        node.write(Set(key, b"1"), now + 5.0),
        node.write(Once(b"s", 1, Incr(stage.key_of(0, 1))), now + 5.0),  # may be repeated
        node.write(Set(key, b"2"), now + 5.0 + SAME_DEADLINE_S),
        node.write(Set(key, b"3" * MAX_GATHERED_BYTES), now + 5.0 + SAME_DEADLINE_S),
        node.read(key, now + 5.0),
        node.write(Set(stage.key_of(1), b"1"), now + 5.0),
    ]
    assert len(node.router._outstanding) == len(ends)
    for future in ends:
        assert stage.result(future).status is not Status.UNAVAILABLE


def test_a_ticket_takes_so_many_operations_and_no_more(stage: Stage) -> None:
    node, key = stage.node(), stage.key_of(0)
    futures = [node.read(key, node.now() + 5.0) for _ in range(2 * MAX_GATHERED_OPERATIONS + 1)]
    assert len(node.router._outstanding) == 3
    assert {stage.result(future).status for future in futures} == {Status.NOT_FOUND}


def test_a_ticket_whose_time_is_up_takes_nobody_in(stage: Stage) -> None:
    """It was answered, and nobody who came after that would be."""
    node, key = stage.node(), stage.key_of(0)
    late = node.read(key, node.now())
    node.router.on_timer()
    assert late.result().status is Status.UNAVAILABLE
    assert stage.result(node.read(key, node.now() + SAME_DEADLINE_S / 2)).status is not None
    assert (node.router._operations, node.router._outstanding) == (0, {})


@pytest.mark.parametrize("op", [lambda key, n: Set(key, b"%d" % n), lambda key, n: Get(key)])
def test_what_requests_of_one_turn_ask_of_a_group_goes_together(
    stage: Stage, op: Callable[[bytes, int], Set | Get]
) -> None:
    """Each has its results in its order, and its writes of a key take effect in theirs."""
    node, here, there = stage.node(), stage.key_of(0), stage.key_of(1)
    batches = [
        node.batch([op(key, 10 * n + i) for i, key in enumerate(keys)], node.now() + 5.0)
        for n, keys in enumerate([[here, there, here], [there, here], [here], [there, there, here]])
    ]
    single = node.read(here, node.now() + 5.0)
    reads = isinstance(op(here, 0), Get)
    assert len(node.router._outstanding) == (2 if reads else 3)
    assert [len(stage.result(batch)) for batch in batches] == [3, 2, 1, 3]
    assert (node.router._operations, node.router._bytes) == (0, 0)
    stage.result(single)
    if not reads:
        assert (stage.read(here).value, stage.read(there).value) == (b"32", b"31")
        assert stage.result(batches[0])[2].version == stage.result(batches[0])[0].version + 1


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("what", ["writes", "reads", "both"])
def test_requests_for_several_groups_leave_no_garbage(
    stage: Stage, atomic: bool, what: str
) -> None:
    """Objects in cycles stay until the collector comes, which costs as much as all the rest."""
    keys = [stage.key_of(group, i) for i in range(2) for group in range(2)]
    batch: list[Get | Write] = [Set(key, b"v") for key in keys if what != "reads"]
    batch += [Get(key) for key in keys if what != "writes"]
    stage.batch(batch, atomic=atomic)
    gc.collect()
    gc.disable()
    try:
        stage.batch(batch, atomic=atomic)
        kinds = (Whole, Share, Part, Gathered)
        assert [each for each in gc.get_objects() if isinstance(each, kinds)] == []
    finally:
        gc.enable()


def test_a_router_that_is_closed_in_the_same_turn_leaves_nothing_open(stage: Stage) -> None:
    node = stage.node()
    futures = [node.write(Set(b"k%d" % i, b"v"), node.now() + 5.0) for i in range(5)]
    node.router.close()
    assert {future.result().status for future in futures} == {Status.UNAVAILABLE}
    stage.wait(0.1)
    assert (node.router._operations, node.router._bytes) == (0, 0)


def test_the_deadline_of_a_cut_off_leader_ends_all_of_a_ticket_as_unknown(stage: Stage) -> None:
    leader, keys = stage.leader(0), [stage.key_of(0, i) for i in range(3)]
    node = stage.node(leader)
    stage.isolate(leader)
    writes = [node.write(Set(key, b"v"), node.now() + 0.1) for key in keys]
    reads = [node.read(key, node.now() + 0.1) for key in keys]
    assert {stage.result(f).status for f in writes} == {Status.UNKNOWN}
    assert {stage.result(f).status for f in reads} == {Status.UNAVAILABLE}


@pytest.mark.parametrize("where", ["leader", "follower"])
def test_a_full_disk_refuses_a_read_of_what_is_due_and_not_its_neighbours(
    stage: Stage, where: str
) -> None:
    due, others = stage.key_of(0, 100), [stage.key_of(0, 200 + i) for i in range(3)]
    stage.set(due, b"x", ttl_ms=60_000)
    for key in others:
        stage.set(key, b"stays")
    fill(stage, *stage.cluster.names)
    stage.wait(61.0)
    node = stage.node(stage.leader(0) if where == "leader" else stage.followers(0)[0])
    reads = [node.read(key, node.now() + 5.0) for key in [others[0], due, *others[1:]]]
    assert len(node.router._outstanding) == 1
    results = [stage.result(future) for future in reads]
    assert results[1].status is Status.STORAGE_FULL
    assert [r.value for r in results if r is not results[1]] == [b"stays"] * 3
    assert (node.router._operations, node.router._bytes) == (0, 0)


def test_a_read_of_what_is_due_is_written_and_its_neighbours_are_not(stage: Stage) -> None:
    """Between the moment and the tick that says so in the log."""
    leader = stage.leader(0)
    node, due, other = stage.node(leader), stage.key_of(0, 1), stage.key_of(0, 2)
    stage.set(other, b"stays")
    replica = node.replicas[0]
    replica.on_timer = lambda: None  # type: ignore[method-assign]
    stage.set(due, b"x", leader, ttl_ms=50)
    stage.wait(0.1)
    before = node.group_metrics[0].applied
    reads = [node.read(key, node.now() + 5.0) for key in (other, due, other)]
    assert [stage.result(future).value for future in reads] == [b"stays", None, b"stays"]
    assert node.group_metrics[0].applied - before == 1


@pytest.mark.parametrize("where", ["leader", "follower"])
def test_a_gathered_read_whose_time_is_up_is_not_taken_apart(stage: Stage, where: str) -> None:
    """It is answered already; what else the node has to do goes on. (Found by an hour of faults
    against real processes.)"""
    leader = stage.leader(0)
    due, other = stage.key_of(0, 1), stage.key_of(0, 2)
    stage.set(other, b"stays")
    for node in stage.cluster.nodes.values():
        node.replicas[0].on_timer = lambda: None  # type: ignore[method-assign]
    stage.set(due, b"x", leader, ttl_ms=50)
    node = stage.node(leader if where == "leader" else stage.followers(0)[0])
    stage.wait(0.1)
    replica, held = node.replicas[0], list[Call]()
    confirmation = replica._confirmation
    replica._confirmation = lambda reads: confirmation(  # type: ignore[method-assign]
        [*reads, *held]
    )
    late = [node.read(key, node.now() + 0.02) for key in (other, due, other)]
    answers: list[object] = []
    held.append(Call([Get(other)], 1, lambda outcome, results: answers.extend(results)))
    replica._schedule, schedule = lambda: None, replica._schedule  # type: ignore[method-assign]
    stage.until(lambda: all(future.done() for future in late))
    assert [future.result().status for future in late] == [Status.UNAVAILABLE] * 3
    replica._schedule = schedule  # type: ignore[method-assign]
    replica._schedule()
    stage.until(lambda: bool(answers))
    assert (node.router._operations, node.router._outstanding) == (0, {})


def test_who_fails_at_the_answer_keeps_nobody_else_waiting() -> None:
    def fails(_results: object) -> None:
        raise RuntimeError("a bug in a front end")

    answers: list[object] = []
    ticket = Gathered(0, Kind.READ, 1.0, _never, _never)
    ticket.add([Get(b"a")], 1, fails)
    ticket.add_one(Get(b"b"), 1, Whole(1, fails), 0)
    ticket.add([Get(b"c")], 1, answers.extend)
    with pytest.raises(RuntimeError, match="a bug in a front end"):
        ticket.answer([Result(Status.OK), Result(Status.OK), Result(Status.NOT_FOUND)])
    assert answers == [Result(Status.NOT_FOUND)]


def _never(*_: object) -> None:
    raise AssertionError
