"""Full and failing disks: writes are refused at once and surely, or go where there is room.

What a leader refuses is in no log; what it has accepted is never lost, nor called not applied.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftcache.raft import segments, transport, wire
from raftcache.raft.group import Outcome
from tests.raft.harness import Cluster, Member, Proposal, outcomes


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 4096)
    yield


def fill(c: Cluster, name: str) -> list[Proposal]:
    """Write at the leader until the disk of ``name`` takes no more; what was accepted."""
    accepted: list[Proposal] = []
    c.disks[name].free_bytes = 0
    while c[name].journal.has_room:
        leader = c.leader
        assert leader is not None
        accepted += [p for p in leader.propose(b"x" * 300) if p.outcome is not Outcome.FULL]
        c.flow(0.02)
    return accepted


def propose(c: Cluster, member: Member, payload: bytes) -> Proposal:
    (proposal,) = member.propose(payload)
    c.until(lambda: proposal.outcome is not None)
    return proposal


def test_a_leader_without_room_hands_over_to_a_replica_that_has_some() -> None:
    c = Cluster(durable=True)
    leader = c.elect("a")
    accepted = fill(c, "a")
    assert c.until(lambda: c.leader is not None and c.leader.name != "a") < 1.0
    successor = c.elect()
    assert propose(c, successor, b"goes on").outcome is Outcome.APPLIED
    c.flow(1.0)
    assert c.leader is successor, "and does not get it back"
    c.until(lambda: None not in outcomes(accepted))
    assert Outcome.FULL not in outcomes(accepted)
    c.disks["a"].free_bytes = None
    c.converge()
    c.flow(1.0)
    assert leader.journal.has_room
    assert leader.journal.durable_index == leader.journal.last_index


def test_without_a_majority_that_has_room_everything_is_refused_at_once_and_reads_go_on() -> None:
    c = Cluster(durable=True)
    leader = c.elect("a")
    for name in "bc":
        c.disks[name].free_bytes = 0
    accepted: list[Proposal] = []
    while not leader.group.full:
        accepted += leader.propose(b"x" * 300)
        c.flow(0.02)
    assert leader.journal.has_room and not leader.group.accepts
    last_index = leader.journal.last_index
    (refused,) = leader.propose(b"refused")
    c.turn()
    assert refused.outcome is Outcome.FULL
    assert leader.journal.last_index == last_index
    c.until(lambda: None not in outcomes(accepted))
    assert set(outcomes(accepted)) == {Outcome.APPLIED}
    read = leader.read()
    c.until(lambda: read.confirmed is not None)
    assert read.confirmed and c.leader is leader

    c.disks["b"].free_bytes = None
    assert c.until(lambda: leader.group.accepts) < 1.0
    assert propose(c, leader, b"goes on").outcome is Outcome.APPLIED
    c.disks["c"].free_bytes = None
    c.converge()
    assert b"refused" not in leader.state


def test_a_group_whose_disks_are_all_full_still_elects_a_leader_that_serves_reads() -> None:
    c = Cluster(durable=True)
    leader = c.elect()
    for name in "abc":
        c.disks[name].free_bytes = 0
    while any(member.journal.has_room for member in c.members.values()):
        leader.propose(b"x" * 300)
        c.flow(0.02)
    state = list(leader.state)
    for _ in range(3):
        leader = c.elect()
        c.crash(leader.name)
        c.until(lambda: c.leader is not None and c.leader.group.leader_ready)
        c.start(leader.name)
        c.flow(0.5)
    leader = c.elect()
    read = leader.read()
    c.until(lambda: read.confirmed is not None)
    assert read.confirmed and read.seen[: len(state)] == state
    (refused,) = leader.propose(b"refused")
    assert refused.outcome is Outcome.FULL


def test_a_leader_whose_disk_fails_hands_over_though_it_cannot_commit() -> None:
    """The engine counts no acknowledgement beyond what the leader has durably: that others have
    more is known all the same, and what was accepted is committed by them."""
    c = Cluster(durable=True)
    c.elect("a")
    c.disks["a"].fail_writes = 1_000_000
    proposals = c["a"].propose(b"accepted")
    assert c.until(lambda: c.leader is not None and c.leader.name != "a") < 0.5
    successor = c.elect()
    assert successor.state == [b"accepted"]
    assert propose(c, successor, b"goes on").outcome is Outcome.APPLIED
    c.until(lambda: None not in outcomes(proposals))
    assert outcomes(proposals) == [Outcome.APPLIED]
    c.disks["a"].fail_writes = 0
    c.converge()


def test_a_follower_that_cannot_write_takes_no_more_beyond_a_limit_and_catches_up_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "MAX_BACKLOG_BYTES", 3000)
    c = Cluster(durable=True)
    leader = c.elect("a")
    c.disks["b"].fail_writes = 1_000_000
    for i in range(50):
        c.write("a", b"%d" % i * 100)
    assert 3000 < c["b"].journal.backlog < 4000
    appends = c.count_sent("a", "b", wire.Append)
    c.flow(1.0)
    assert c.count_sent("a", "b", wire.Append) - appends < 100, "heartbeats, and nothing again"
    assert c.leader is leader, "and keeps its leader"
    c.disks["b"].fail_writes = 0
    c.converge(2.0)
    c.until(lambda: c["b"].journal.backlog == 0, 1.0)
    assert c["b"].group.snapshots.received == 0
