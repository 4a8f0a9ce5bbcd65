"""From any node to the leader and back, also while leaders come and go."""

from __future__ import annotations

import pytest

from raftcache.limits import Limits
from raftcache.ops import Condition, Delete, Get, Incr, Match, Once, Set, Status
from tests.core.conftest import Stage


def test_every_node_answers_for_every_key(stage: Stage) -> None:
    for group in (0, 1):
        key = stage.key_of(group)
        for i, via in enumerate(stage.cluster.names):
            assert stage.set(key, b"%d" % i, via).status in (Status.OK, Status.CREATED)
            for reader in stage.cluster.names:
                assert stage.read(key, reader).value == b"%d" % i


def test_a_batch_over_several_groups_answers_in_the_order_of_its_operations(stage: Stage) -> None:
    first, second = stage.key_of(0), stage.key_of(1)
    results = stage.batch(
        [Set(first, b"1"), Set(second, b"2"), Get(first), Get(second), Delete(first), Get(first)]
    )
    assert [r.status for r in results] == [
        Status.CREATED,
        Status.CREATED,
        Status.OK,
        Status.OK,
        Status.OK,
        Status.NOT_FOUND,
    ]
    assert (results[2].value, results[3].value) == (b"1", b"2")


def test_an_atomic_batch_is_all_or_nothing_in_each_group(stage: Stage) -> None:
    good, bad = stage.key_of(0), stage.key_of(1)
    results = stage.batch(
        [
            Set(good, b"1"),
            Set(bad, b"2"),
            Set(bad, b"3", condition=Condition(Match.ABSENT)),
            Incr(good, 5),
        ],
        atomic=True,
    )
    assert [r.status for r in results] == [
        Status.CREATED,
        Status.ABORTED,
        Status.PRECONDITION_FAILED,
        Status.OK,
    ]
    assert stage.read(good).value == b"6"
    assert stage.read(bad).status is Status.NOT_FOUND


def test_an_atomic_batch_of_one_operation_has_the_result_of_that_operation(stage: Stage) -> None:
    key = stage.key_of(0)
    stage.set(key, b"5")
    (added,) = stage.batch([Incr(key, 2)], atomic=True)
    assert (added.status, added.number) == (Status.OK, 7)
    (failed,) = stage.batch([Set(key, b"1", condition=Condition(Match.ABSENT))], atomic=True)
    assert failed.status is Status.PRECONDITION_FAILED
    (alone, *_) = stage.batch([Incr(key), Incr(stage.key_of(1))], atomic=True)
    assert alone.number == 8


def test_an_atomic_batch_with_an_idempotency_key_is_applied_once(stage: Stage) -> None:
    key = stage.key_of(0)
    ops = [Once(b"session#0", 0, Incr(key)), Once(b"session#1", 0, Incr(key))]
    first = stage.batch(ops, "n1", atomic=True)
    again = stage.batch(ops, "n2", atomic=True)
    assert [r.number for r in first] == [r.number for r in again] == [1, 2]
    assert stage.read(key).value == b"2"


def test_without_a_majority_a_write_that_no_leader_took_is_surely_not_applied(
    stage: Stage,
) -> None:
    key = stage.key_of(0)
    follower = stage.followers(0)[0]
    for name in stage.cluster.names:
        if name != follower:
            stage.cluster.crash(name, power=False)
    stage.wait(3.0)  # the follower notices
    assert stage.write(Set(key, b"x"), follower, 1.0).status is Status.UNAVAILABLE
    assert stage.read(key, follower).status is Status.UNAVAILABLE


def test_a_write_taken_by_a_leader_that_cannot_commit_ends_as_unknown(stage: Stage) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    stage.isolate(leader)
    assert stage.write(Set(key, b"x"), leader, 0.3).status is Status.UNKNOWN


def test_writes_go_on_through_the_others_when_the_leader_dies(stage: Stage) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    stage.set(key, b"before")
    survivor = stage.followers(0)[0]
    stage.cluster.crash(leader, power=True)
    assert stage.read(key, survivor).value == b"before"
    assert stage.set(key, b"after", survivor).status is Status.OK


def test_a_retried_increment_with_an_idempotency_key_counts_once(stage: Stage) -> None:
    """The leader dies with the answer: the router repeats what may have been applied, because the
    session makes that harmless."""
    key, leader = stage.key_of(0), stage.leader(0)
    via = stage.followers(0)[0]
    node = stage.node(via)
    pending = [node.write(Once(b"s%d" % i, 0, Incr(key)), node.now() + 5.0) for i in range(20)]
    # Late enough for the leader to have taken them, too early for all answers to be back.
    stage.wait(0.002)
    stage.cluster.crash(leader, power=False)
    results = [stage.result(future) for future in pending]
    assert {r.status for r in results} <= {Status.OK, Status.CREATED}
    assert stage.read(key, via).value == b"20"


def test_without_an_idempotency_key_what_may_have_been_applied_is_not_repeated(
    stage: Stage,
) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    via = stage.followers(0)[0]
    node = stage.node(via)
    pending = [node.write(Incr(key), node.now() + 5.0) for _ in range(20)]
    stage.wait(0.002)
    stage.cluster.crash(leader, power=False)
    results = [stage.result(future) for future in pending]
    done = sum(r.status in (Status.OK, Status.CREATED) for r in results)
    unknown = sum(r.status is Status.UNKNOWN for r in results)
    assert done + unknown == 20
    found = stage.read(key, via)
    assert done <= int(found.value or b"0") <= done + unknown


def test_leadership_moves_on_request_and_clients_see_only_success(stage: Stage) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    target = stage.followers(0)[1]
    node = stage.node(stage.followers(0)[0])
    pending = []
    for _ in range(50):
        pending.append(node.write(Incr(key), node.now() + 5.0))
        stage.wait(0.0005)
        if len(pending) == 20:
            moved = stage.node("n1").transfer(0, target, stage.node("n1").now() + 5.0)
    assert stage.result(moved).status is Status.OK
    assert stage.leader(0) == target != leader
    assert {stage.result(f).status for f in pending} <= {Status.OK, Status.CREATED}
    assert stage.read(key).value == b"50"


@pytest.mark.parametrize(("group", "target"), [(7, None), (0, "nobody"), (-1, None)])
def test_a_transfer_of_what_does_not_exist_is_refused(
    stage: Stage, group: int, target: str | None
) -> None:
    node = stage.node()
    future = node.transfer(group, target, node.now() + 1.0)
    assert stage.result(future).status is Status.NOT_FOUND


@pytest.mark.parametrize("via", ["n1", "n2", "n3"])
def test_a_transfer_to_the_leader_has_succeeded_already(stage: Stage, via: str) -> None:
    leader, node = stage.leader(0), stage.node(via)
    term = node.replicas[0].raft.engine.term
    future = node.transfer(0, leader, node.now() + 1.0)
    assert stage.result(future).status is Status.OK
    assert (stage.leader(0), node.replicas[0].raft.engine.term) == (leader, term)


def test_more_than_the_limit_in_flight_is_refused_and_nothing_else_suffers(stage: Stage) -> None:
    node = stage.node()
    node.router._limits = Limits(max_queued_operations=10)
    pending = [node.write(Set(b"k%d" % i, b"v"), node.now() + 5.0) for i in range(15)]
    statuses = [stage.result(future).status for future in pending]
    assert statuses == [Status.CREATED] * 10 + [Status.UNAVAILABLE] * 5
    assert stage.set(b"later", b"v").status is Status.CREATED


def test_one_request_larger_than_the_limit_still_goes_when_it_is_alone(stage: Stage) -> None:
    node = stage.node()
    node.router._limits = Limits(max_queued_bytes=10)
    assert stage.set(b"large", b"v" * 100).status is Status.CREATED


def test_a_stopped_router_leaves_no_future_open(stage: Stage) -> None:
    node = stage.node()
    pending = [node.write(Set(b"k%d" % i, b"v"), node.now() + 5.0) for i in range(5)]
    node.router.close()
    assert all(future.done() for future in pending)


@pytest.fixture
def wide() -> Stage:
    """Five nodes, so that some have no replica of a group."""
    return Stage(size=5, replication=3)


def outsider(stage: Stage, group: int) -> str:
    hosts = stage.node("n1").placement[group]
    return next(name for name in stage.cluster.names if name not in hosts)


def cut_off_the_leader(stage: Stage, group: int) -> str:
    """Silently: no connection is seen to end."""
    leader = stage.leader(group)
    stage.isolate(leader)
    stage.until(lambda: stage.cluster.leader(group) not in (None, leader))
    return leader


def test_a_node_without_a_replica_finds_the_next_leader_though_the_last_one_is_only_silent(
    wide: Stage,
) -> None:
    """Its connection to the old leader is given up after four seconds. (Found by the tests of the
    container cluster.)"""
    key, via = wide.key_of(0), outsider(wide, 0)
    wide.set(key, b"old", via)
    cut_off_the_leader(wide, 0)
    node = wide.node(via)
    started = wide.scheduler.now
    assert wide.read(key, via).value == b"old"
    assert wide.result(node.write(Set(key, b"new"), node.now() + 2.0)).status is Status.OK
    assert wide.read(key, via).value == b"new"
    assert wide.scheduler.now - started < 1.5
    assert wide.node(via).peers.connected(wide.node("n1").placement[0][0])


def test_what_was_asked_of_a_leader_that_fell_silent_is_asked_of_the_next(wide: Stage) -> None:
    """Reads, and writes with an idempotency key, which may be repeated; of any other write nobody
    knows the outcome."""
    key, via = wide.key_of(0), outsider(wide, 0)
    wide.set(key, b"1", via)
    wide.isolate(wide.leader(0))
    node = wide.node(via)
    read = node.read(key, node.now() + 3.0)
    once = node.write(Once(b"session", 0, Incr(key)), node.now() + 3.0)
    plain = node.write(Set(key, b"x"), node.now() + 3.0)
    wide.wait(2.0)
    assert read.done() and read.result().value == b"1"
    assert once.done() and once.result().number == 2
    assert not plain.done()
    assert wide.result(plain).status is Status.UNKNOWN
    assert wide.read(key, via).value == b"2"


def test_a_slow_leader_is_asked_again_after_a_while(wide: Stage) -> None:
    """No other node can say more: none of them leads."""
    key, via = wide.key_of(0), outsider(wide, 0)
    wide.set(key, b"1", via)
    leader = wide.leader(0)
    for name in wide.cluster.names:
        wide.cluster.disks[name].sync_seconds = (0.7, 0.7)
    node = wide.node(via)
    slow = node.write(Set(key, b"2"), node.now() + 5.0)
    wide.wait(0.5)
    read = node.read(key, node.now() + 5.0)
    wide.until(lambda: slow.done() and read.done())
    assert slow.result().status is Status.OK
    assert read.result().value in (b"1", b"2")
    assert wide.leader(0) == leader


def test_a_node_that_does_not_lead_says_who_does(wide: Stage) -> None:
    """Guessing may take a dozen tries. (Found by the simulator, seed 1300397.)"""
    key, via, leader = wide.key_of(0), outsider(wide, 0), wide.leader(0)
    wide.set(key, b"v", via)
    router, counts = wide.node(via).router, wide.node(via).group_metrics[0]
    for follower in wide.node(via).placement[0]:
        if follower != leader:
            router._hints[0] = follower
            before = counts.forwarded
            assert wide.read(key, via).value == b"v"
            assert counts.forwarded == before + 2
            assert router.leader_of(0) == leader


@pytest.mark.parametrize(("size", "needed"), [(3, 0), (5, 4)])
def test_a_follower_answers_reads_itself(size: int, needed: int) -> None:
    """After a question to the leader, which needs a round only where two are no majority."""
    stage = Stage(size=size, groups=1)
    key, leader = stage.key_of(0), stage.leader(0)
    stage.set(key, b"x", leader)
    reads = stage.node(leader).replicas[0].raft.reads
    before = reads.rounds
    for via in stage.followers(0):
        counts = stage.node(via).group_metrics[0]
        assert stage.read(key, via).value == b"x"
        assert (counts.read_here, counts.forwarded) == (1, 0)
    assert reads.rounds == before + needed
    assert stage.read(key, leader).value == b"x"
    assert reads.rounds == before + needed + 1, "its own reads always do"


def test_a_follower_sends_on_what_only_the_leader_may_answer(stage: Stage) -> None:
    """A key that is due but not removed yet: nobody may be told before the log says so. Others
    that were asked in the same turn are answered."""
    key, other = stage.key_of(0), stage.key_of(0, 1)
    stage.set(key, b"x", ttl_ms=300)
    stage.set(other, b"y")
    (via, *_) = stage.followers(0)
    node = stage.node(via)
    replica = node.replicas[0]
    due_ms = replica.machine.time_ms + 300
    stage.until(lambda: replica.clock.now_ms() >= due_ms - 2)
    reads = [node.read(each, node.now() + 5.0) for each in (key, other, key)]
    while replica.machine.read(key).value is not None:
        more = node.read(key, node.now() + 5.0)
        reads.append(more)
        stage.until(more.done)
    for read in reads:
        stage.until(read.done)
    assert reads[1].result().value == b"y"
    assert reads[-1].result().status is Status.NOT_FOUND
    seen = [read.result().value for read in reads if read is not reads[1]]
    assert seen == sorted(seen, key=lambda value: value is None), "once gone it stays gone"
    assert node.group_metrics[0].forwarded >= 1


def test_a_follower_that_is_far_behind_sends_reads_on(stage: Stage) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    (via, *_) = stage.followers(0)
    stage.set(key, b"x")
    node = stage.node(via)
    node.replicas[0].raft.applied_index -= 100
    read = node.read(key, node.now() + 5.0)
    stage.until(lambda: node.group_metrics[0].forwarded == 1)
    node.replicas[0].raft.applied_index += 100
    assert stage.result(read).value == b"x"
    assert leader != via


def test_what_is_read_at_a_follower_is_used_everywhere(stage: Stage) -> None:
    """Recency is in the log, whoever was asked."""
    keys = [stage.key_of(0, number) for number in range(3)]
    for key in keys:
        stage.set(key, b"x")
    (via, *_) = stage.followers(0)
    assert stage.read(keys[0], via).value == b"x"
    stage.wait(1.0)
    for node in stage.cluster.nodes.values():
        entries = node.replicas[0].machine.cache.entries
        assert [key for key in entries if key in keys] == [keys[1], keys[2], keys[0]]
