"""Reads of several groups are one, and none waits for a group that it does not concern."""

from __future__ import annotations

import pytest

from raftcache.gathering import Joint
from raftcache.joint_reads import APART_S, PATIENCE_S
from raftcache.ops import Get, Set, Status
from tests.core.conftest import Stage


def under_way(stage: Stage, name: str) -> list[Joint]:
    tickets = stage.node(name).router._outstanding
    return [ticket for ticket in tickets if isinstance(ticket, Joint)]


def looked_up(stage: Stage, name: str) -> list[tuple[int, int, int, int]]:
    """Of each group: hits, misses, reads timed, reads answered where another node leads."""
    found = []
    for group, replica in sorted(stage.node(name).replicas.items()):
        stats, metrics = replica.machine.stats, stage.node(name).group_metrics[group]
        timed = metrics.read_seconds.count
        found.append((stats.hits, stats.misses, timed, metrics.read_here))
    return found


def test_all_that_is_read_in_a_turn_is_one_ticket(stage: Stage) -> None:
    """Group 0 is led here, group 1 elsewhere."""
    name = stage.leader(0)
    assert stage.leader(1) != name
    node, here, there = stage.node(name), stage.key_of(0), stage.key_of(1)
    missing = [stage.key_of(group, 1) for group in range(2)]
    stage.set(here, b"here")
    stage.set(there, b"there")
    before = looked_up(stage, name)
    single = [node.read(key, node.now() + 5.0) for key in (here, there, missing[0])]
    batch = node.batch([Get(there), Get(missing[1]), Get(here)], node.now() + 5.0)
    assert len(under_way(stage, name)) == len(node.router._outstanding) == 1
    assert [stage.result(f).value for f in single] == [b"here", b"there", None]
    assert [result.value for result in stage.result(batch)] == [b"there", None, b"here"]
    assert (node.router._operations, node.router._bytes) == (0, 0)
    changes = [
        tuple(now - then for now, then in zip(new, old, strict=True))
        for new, old in zip(looked_up(stage, name), before, strict=True)
    ]
    assert changes == [(2, 1, 3, 0), (2, 1, 3, 3)]


def test_a_group_that_answers_late_keeps_the_others_waiting_for_a_moment_only(
    stage: Stage,
) -> None:
    name, other = stage.leader(0), stage.leader(1)
    node, own, late = stage.node(name), stage.key_of(0), stage.key_of(1)
    stage.set(own, b"own")
    stage.set(late, b"late")
    stage.wait(1.0)
    stage.cluster.network.delay(other, name, 0.3)
    reads = [node.read(key, node.now() + 5.0) for key in (own, late)]
    assert len(under_way(stage, name)) == 1
    assert stage.until(reads[0].done) < PATIENCE_S + 0.1
    assert not reads[1].done()
    assert not node.router._joint_reads.possible
    assert [stage.result(read).value for read in reads] == [b"own", b"late"]
    single = node.read(own, node.now() + 5.0)
    assert under_way(stage, name) == []
    assert stage.result(single).value == b"own"
    stage.cluster.network.heal()
    stage.wait(APART_S)
    assert node.router._joint_reads.possible


@pytest.mark.parametrize("end", ["deadline", "close"])
def test_a_joint_read_ends_once(stage: Stage, end: str) -> None:
    """At its deadline, or with its router; what its groups say after that is of no interest."""
    name, other = stage.leader(0), stage.leader(1)
    node, keys = stage.node(name), [stage.key_of(group) for group in range(2)]
    stage.wait(1.0)
    stage.cluster.network.delay(other, name, 0.3)
    batch = node.batch([Get(key) for key in keys], node.now() + 0.01)
    stage.wait(0.005)
    if end == "close":
        node.router.close()
        assert batch.done()
    assert {r.status for r in stage.result(batch)} == {Status.UNAVAILABLE}
    stage.wait(1.0)
    assert (node.router._operations, node.router._bytes) == (0, 0)
    assert node.router._joint_reads._under_way == {}


def test_a_node_without_all_groups_reads_what_is_here_jointly() -> None:
    stage = Stage(size=5, groups=5, replication=3)
    keys = [stage.key_of(group) for group in range(5)]
    for key in keys:
        stage.set(key, b"v" + key)
    node = stage.node("n1")
    here = [keys[group] for group in sorted(node.replicas)]
    batches = [node.batch([Get(key) for key in each], node.now() + 5.0) for each in (here, keys)]
    assert [joint.parts[0][0] for joint in under_way(stage, "n1")] == [3]  # type: ignore[index]
    for batch, each in zip(batches, (here, keys), strict=True):
        assert [result.value for result in stage.result(batch)] == [b"v" + key for key in each]


def test_what_is_due_is_not_shown_by_anybody(stage: Stage) -> None:
    """Between the moment and the entry that says so, one of the keys is due."""
    for node in stage.cluster.nodes.values():
        for replica in node.replicas.values():
            replica.on_timer = lambda: None  # type: ignore[method-assign]
    due, other = stage.key_of(0), stage.key_of(1)
    stage.set(other, b"stays")
    stage.write(Set(due, b"x", ttl_ms=50))
    stage.wait(0.1)
    for node in stage.cluster.nodes.values():
        batch = node.batch([Get(due), Get(other), Get(due)], node.now() + 5.0)
        assert len(under_way(stage, node.settings.node)) == 1
        assert [r.value for r in stage.result(batch)] == [None, b"stays", None]
