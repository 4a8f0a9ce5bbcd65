"""What a snapshot may do: S7, S8, S9, S15; guarantees 1 and 2."""

from __future__ import annotations

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from tests.raft.harness import Cluster, Proposal, outcomes
from tests.raft.test_snapshots import hold_snapshot, refuse

from .story import TINY_LOG, broke, cluster, lost, other_leader, scenario


def far_behind(c: Cluster, tail: int) -> tuple[str, list[Proposal]]:
    """a leads and is cut off with ``tail`` entries that nobody gets; b or c leads, commits a
    hundred entries and forgets the oldest. Returns who leads, and a's proposals."""
    c.elect("a")
    c.isolate("a")
    proposals = c["a"].propose(*[b"lost-%d" % i for i in range(tail)])
    leader = c[other_leader(c, c["a"].term)]
    for i in range(100):
        c.write(leader.name, b"entry-%d" % i)
    c.until(lambda: leader.journal.first_index > 10)
    return leader.name, proposals


@scenario("snapshot-commit")
def test_a_part_of_a_snapshot_commits_nothing(guarded: bool) -> None:
    """S7, the worst: after the first chunk of the leader's snapshot a deposed leader takes its own
    tail for committed, applies it and tells its clients. A plain network, no crash."""
    c = cluster("abc", guarded=guarded, options=TINY_LOG)
    leader, proposals = far_behind(c, tail=2)
    hold_snapshot(c, c[leader])
    commit = c["a"].commit
    chunk = c.pending(leader, "a", wire.SnapshotChunk)[0]
    assert not chunk.last
    c["a"].group.on_message(leader, chunk)
    c.turn()
    assert (c["a"].commit == commit) is guarded
    assert (Outcome.APPLIED in outcomes(proposals)) is not guarded
    assert bool(lost(proposals, c[leader].state)) is not guarded, "acknowledged, and nowhere else"
    assert broke(c, "two commands at index") is not guarded


@scenario("snapshot-failure")
def test_a_snapshot_that_could_not_be_installed_counts_for_nothing(guarded: bool) -> None:
    """S8. a finds the snapshot unreadable; PySyncObj acknowledges a's own last index then, as if it
    matched. a has a long tail of its own; the leader b, whose other follower is away, takes that
    for the second copy of what it has just appended, and tells its clients."""
    c = cluster("abc", guarded=guarded, options=TINY_LOG)
    leader, _ = far_behind(c, tail=110)
    other = "c" if leader == "b" else "b"
    refused = refuse(c["a"], times=100)
    c.until(lambda: c[other].state == c[leader].state)
    c.isolate(other)
    proposals = c[leader].propose(*[b"new-%d" % i for i in range(20)])
    last = c["a"].journal.last_index
    assert c[leader].commit < last < c[leader].journal.last_index
    for x in (leader, "a"):
        for y in (leader, "a"):
            c.held.discard((x, y))
    c.join("a", leader)
    c.until(lambda: bool(refused))
    c.flow(0.05)
    assert (Outcome.APPLIED in outcomes(proposals)) is not guarded

    term = c[leader].term
    c.crash(leader)
    c.reconnect(other)
    c.held.clear()
    refused += [b""] * 100  # from now on it can read them
    survivor = c[other_leader(c, term)]
    c.write(survivor.name, b"z")
    assert bool(lost(proposals, survivor.state)) is not guarded, "acknowledged, and gone"


@scenario("snapshot-regress")
def test_an_older_snapshot_never_replaces_newer_state(guarded: bool) -> None:
    """S9: a second copy of a snapshot arrives when the follower has gone on, has acknowledged more,
    and is needed for it: the leader crashes, the third node has nothing."""
    c = cluster("abc", guarded=guarded, options=TINY_LOG)
    leader, _ = far_behind(c, tail=2)
    other = "c" if leader == "b" else "b"
    c.sent.clear()
    c.reconnect("a")
    c.converge()
    chunks = [m for s, t, m in c.sent if t == "a" and isinstance(m, wire.SnapshotChunk)]
    c.isolate(other)
    proposals = c.write(leader, b"later")
    c.flow(0.1)
    before = list(c["a"].state)
    assert before[-1] == b"later"
    for chunk in chunks:
        c["a"].group.on_message(leader, chunk)
        c.turn()
    c.pass_time(0.01)
    assert (c["a"].state == before) is guarded
    assert broke(c, "the state went backwards") is not guarded

    term = c[leader].term
    c.crash(leader)
    c.reconnect(other)
    survivor = c[other_leader(c, term)]
    c.write(survivor.name, b"z")
    assert bool(lost(proposals, survivor.state)) is not guarded, "acknowledged, and gone"


@scenario("snapshot-flood")
def test_a_follower_far_behind_is_told_once(guarded: bool) -> None:
    """S15: PySyncObj says so again and again, for as long as its tick may take."""
    c = cluster("abc", guarded=guarded, options=TINY_LOG)
    leader, _ = far_behind(c, tail=2)
    told: list[str] = []
    transport = c[leader].group._transport
    needed = transport._events.snapshot_needed
    transport._events.snapshot_needed = lambda node: (told.append(node), needed(node))[1]
    hold_snapshot(c, c[leader])
    assert (told == ["a"]) is guarded, f"{len(told)} times in one tick"
    c.converge()
