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


def sizes(joint: Joint) -> list[int]:
    """Operations of each request."""
    return [part[0] for part in joint.parts if isinstance(part, tuple)]


def looked_up(stage: Stage, name: str) -> list[tuple[int, int, int, int]]:
    """Of each group: hits, misses, reads timed, reads answered where another node leads."""
    found = []
    for group, replica in sorted(stage.node(name).replicas.items()):
        stats, metrics = replica.machine.stats, stage.node(name).group_metrics[group]
        timed = metrics.read_seconds.count
        found.append((stats.hits, stats.misses, timed, metrics.read_here))
    return found


def test_all_that_one_leader_answers_for_in_a_turn_is_one_ticket() -> None:
    """Groups 0 and 3 are led here, groups 1 and 2 elsewhere."""
    stage = Stage(groups=4)
    name, node = "n1", stage.node("n1")
    stage.wait(3.0)
    assert [stage.leader(group) for group in range(4)] == ["n1", "n2", "n3", "n1"]
    keys = [stage.key_of(group) for group in range(4)]
    for key in keys:
        stage.set(key, b"v" + key)
    before = looked_up(stage, name)
    asked = [[0, 3], [3], [1], [0], [0, 1, 2, 3], [2, 1, 2], [1, 1]]
    until = node.now() + 5.0
    answers = [node.batch([Get(keys[group]) for group in groups], until) for groups in asked]
    missing = node.read(stage.key_of(0, 1), until)
    asking = [sizes(each) for each in under_way(stage, name)]
    assert asking == [[2, 1, 1, 1], [1, 2], [4, 3]]
    assert len(node.router._outstanding) == 3
    for answer, groups in zip(answers, asked, strict=True):
        assert [r.value for r in stage.result(answer)] == [b"v" + keys[group] for group in groups]
    assert stage.result(missing).status is Status.NOT_FOUND
    assert (node.router._operations, node.router._bytes) == (0, 0)
    changes = [
        tuple(now - then for now, then in zip(new, old, strict=True))
        for new, old in zip(looked_up(stage, name), before, strict=True)
    ]
    assert changes == [(3, 1, 4, 0), (5, 0, 5, 5), (3, 0, 3, 3), (3, 0, 3, 0)]


def test_a_late_leader_keeps_nobody_waiting_who_asks_another(stage: Stage) -> None:
    name, other = stage.leader(0), stage.leader(1)
    node, own, late = stage.node(name), stage.key_of(0), stage.key_of(1)
    stage.set(own, b"own")
    stage.set(late, b"late")
    stage.wait(1.0)
    stage.cluster.network.delay(other, name, 0.3)
    reads = [node.read(key, node.now() + 5.0) for key in (own, late)]
    assert len(under_way(stage, name)) == 2
    assert stage.until(reads[0].done) < PATIENCE_S
    assert not reads[1].done()
    assert [stage.result(read).value for read in reads] == [b"own", b"late"]


def test_requests_for_several_leaders_wait_for_each_other_for_a_moment_only() -> None:
    stage = Stage(groups=3)
    stage.wait(3.0)
    assert [stage.leader(group) for group in range(3)] == ["n1", "n2", "n3"]
    node, keys = stage.node("n1"), [stage.key_of(group) for group in range(3)]
    stage.cluster.network.delay("n3", "n1", 0.3)
    soon = node.batch([Get(keys[0]), Get(keys[1])], node.now() + 5.0)
    later = node.batch([Get(keys[0]), Get(keys[2])], node.now() + 5.0)
    assert len(under_way(stage, "n1")) == 1
    assert PATIENCE_S < stage.until(soon.done) < PATIENCE_S + 0.1
    assert not later.done()
    again = node.batch([Get(keys[0]), Get(keys[1])], node.now() + 5.0)
    assert len(under_way(stage, "n1")) == 0
    assert stage.until(again.done) < PATIENCE_S
    assert len(stage.result(later)) == 2
    stage.cluster.network.heal()
    stage.wait(APART_S)
    node.read(keys[0], node.now() + 5.0)
    assert len(under_way(stage, "n1")) == 1


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
    assert [sizes(joint) for joint in under_way(stage, "n1")] == [[3]]
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
