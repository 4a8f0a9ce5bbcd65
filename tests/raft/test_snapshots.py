"""Snapshots: state for a follower that the log no longer reaches; never backwards, never assumed.

PySyncObj's own transfer applies a deposed leader's tail (S7), acknowledges installs that failed
(S8) and puts older state over newer (S9).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions

from .harness import GROUP, Cluster, Member, outcomes

TINY_LOG = RaftOptions(log_retention_bytes=200)


def far_behind(c: Cluster, count: int = 100, tail: int = 2) -> tuple[Member, list]:
    """a leads, is cut off with ``tail`` entries that nobody gets; the others commit ``count``
    entries and forget the log. Returns their leader and a's proposals."""
    assert c.elect().name == "a"
    c.isolate("a")
    proposals = c["a"].propose(*[b"lost-%d" % i for i in range(tail)])
    term = c["a"].term
    c.until(lambda: c.leader is not None and c.leader.term > term and c.leader.group.leader_ready)
    leader = c.leader
    assert leader is not None
    for i in range(count):
        c.write(leader.name, b"entry-%d" % i)
    c.until(lambda: leader.journal.first_index > 10)
    return leader, proposals


def hold_snapshot(c: Cluster, leader: Member) -> None:
    """Let a come back, up to where the first chunk is on its way to it."""
    c.reconnect("a")
    c.held = set()
    for _ in range(500):
        if c.pending(leader.name, "a", wire.SnapshotChunk):
            return
        for pair in c.queues:
            if c.queues[pair]:
                c.deliver(*pair, 1)
        if c.pending(leader.name, "a", wire.SnapshotChunk):
            return
        c.pass_time(0.001)
    raise AssertionError("no snapshot")


@pytest.mark.parametrize("durable", [False, True])
def test_a_follower_far_behind_gets_a_snapshot_and_then_the_log(durable: bool) -> None:
    c = Cluster(options=TINY_LOG, durable=durable)
    leader, proposals = far_behind(c)
    c.reconnect("a")
    c.converge()
    assert c["a"].state == [b"entry-%d" % i for i in range(100)]
    assert c["a"].group.snapshots.received == 1
    c.write(leader.name, b"later")
    c.converge()
    assert Outcome.APPLIED not in outcomes(proposals)
    assert None not in outcomes(proposals)


@pytest.mark.parametrize("durable", [False, True])
def test_a_snapshot_is_sent_once(durable: bool) -> None:
    """The follower's log ends where the snapshot does: nothing but entries follow."""
    c = Cluster(options=TINY_LOG, durable=durable)
    leader, _ = far_behind(c)
    c.reconnect("a")
    c.converge()
    c.flow(0.2)
    assert leader.group.snapshots.sent == 1


def test_a_transfer_that_loses_its_connection_begins_anew() -> None:
    """S8: chunks say where they belong; what was lost with a connection is not skipped."""
    c = Cluster(options=TINY_LOG)
    leader, _ = far_behind(c)
    hold_snapshot(c, leader)
    c.deliver(leader.name, "a", 1)
    c.join(leader.name, "a")
    c.converge()
    assert c["a"].state == [b"entry-%d" % i for i in range(100)]


def test_chunks_that_nobody_heard_are_sent_anew() -> None:
    """A replica that asks for its own state first is deaf to a snapshot that is sent meanwhile. The
    connection stays as it is, so nothing but the leader's asking shows that it was lost."""
    c = Cluster(options=TINY_LOG)
    leader, _ = far_behind(c)
    hold_snapshot(c, leader)
    assert c.drop(leader.name, "a", wire.SnapshotChunk)
    c.converge()
    assert c["a"].state == [b"entry-%d" % i for i in range(100)]
    assert leader.group.snapshots.sent > 1


def test_a_transfer_under_way_is_not_begun_anew() -> None:
    """The leader asks at every half heartbeat; while chunks come or are read, that is no reason."""
    c = Cluster(options=TINY_LOG)
    leader, _ = far_behind(c)
    hold_snapshot(c, leader)
    for _ in range(20):
        c.deliver(leader.name, "a", 1)
        c.pass_time(0.05)
    c.converge()
    assert (leader.group.snapshots.sent, c["a"].group.snapshots.received) == (1, 1)


def test_a_new_leader_waits_until_the_old_ones_snapshot_is_dealt_with() -> None:
    """Its own finds no room before; asking again and again would only make it be sent in vain."""
    c = Cluster(options=TINY_LOG)
    leader, _ = far_behind(c)
    hold_snapshot(c, leader)
    c.disks["a"].sync_seconds = (3.0, 3.0)
    while not c["a"].group.snapshots.installing:
        c.deliver(leader.name, "a", 1)
        c.deliver("a", leader.name)
        c.pass_time(0.001)
    c.crash(leader.name)
    other = "c" if leader.name == "b" else "b"
    c.held = set()
    c.flow(2.0)
    assert c[other].leads
    assert c[other].group.snapshots.sent == 1
    c.disks["a"].sync_seconds = (0.0002, 0.002)
    c.converge()
    assert c["a"].state == [b"entry-%d" % i for i in range(100)]


def test_a_chunk_out_of_order_is_ignored() -> None:
    c = Cluster(options=TINY_LOG)
    leader, _ = far_behind(c)
    hold_snapshot(c, leader)
    while not any(chunk.last for chunk in c.pending(leader.name, "a", wire.SnapshotChunk)):
        c.pass_time(0.001)
    chunks = c.pending(leader.name, "a", wire.SnapshotChunk)
    c.drop(leader.name, "a", wire.SnapshotChunk)
    before = c["a"].log
    for chunk in [*chunks[2:], chunks[0], chunks[-1]]:
        c["a"].group.on_message(leader.name, chunk)
        c.turn()
    c.pass_time(0.05)
    assert c["a"].log == before
    c.pass_time(1.0)
    for chunk in [chunks[0], *chunks[:-1], *chunks[1:]]:
        c["a"].group.on_message(leader.name, chunk)
        c.turn()
    c.pass_time(0.05)
    assert c["a"].group.snapshots.received == 1, "what came twice was taken once"
    c.converge()


def refuse(member: Member, times: int) -> list[bytes]:
    """Let ``member`` find the next snapshots unreadable."""
    prepare, refused = member.machine.prepare, []

    def broken(data: bytes) -> object:
        if len(refused) < times:
            refused.append(data)
            raise ValueError("not a snapshot")
        return prepare(data)

    member.machine.prepare = broken  # type: ignore[method-assign,assignment]
    return refused


def test_after_a_failed_install_the_snapshot_is_sent_again() -> None:
    """A follower that could not use a snapshot is not left behind for good."""
    c = Cluster(options=TINY_LOG)
    far_behind(c)
    refused = refuse(c["a"], times=1)
    c.reconnect("a")
    c.until(lambda: bool(refused))
    c.converge(limit_s=5.0)


def test_a_full_disk_delays_a_snapshot_and_does_not_lose_it() -> None:
    c = Cluster(options=TINY_LOG, durable=True)
    far_behind(c)
    c.disks["a"].free_bytes = 300
    c.reconnect("a")
    c.flow(1.0)
    assert not c["a"].state
    c.disks["a"].free_bytes = None
    c.converge(limit_s=5.0)


def test_a_snapshot_of_an_earlier_term_is_answered_with_the_term() -> None:
    c = Cluster()
    c.elect()
    follower, before = c["b"], c["b"].log
    c.sent.clear()
    chunk = wire.SnapshotChunk(GROUP, follower.term - 1, 50, 1, 1, b"\x40x", 0, b"", True)
    follower.group.on_message("c", chunk)
    c.turn()
    assert [m for s, t, m in c.sent if (s, t) == ("b", "c")] == [
        wire.TermNotice(GROUP, follower.term)
    ]
    assert follower.log == before


def test_a_new_leader_interrupts_a_snapshot_and_starts_its_own() -> None:
    """The old leader's chunks and the new one's do not mix."""
    c = Cluster(options=TINY_LOG)
    leader, _ = far_behind(c)
    hold_snapshot(c, leader)
    c.deliver(leader.name, "a", 1)
    old = c.pending(leader.name, "a")
    other = "c" if leader.name == "b" else "b"
    c.crash(leader.name)
    c.until(lambda: c[other].leads)
    late = [m for m in old if isinstance(m, wire.SnapshotChunk)]
    for chunk in late:
        c["a"].group.on_message(leader.name, chunk)
        c.turn()
    c.converge()
    assert c["a"].state == [b"entry-%d" % i for i in range(100)]


def test_a_follower_that_gets_a_snapshot_counts_as_alive() -> None:
    """PySyncObj sends no heartbeats meanwhile; without others the leader would step down, and the
    follower would campaign."""
    c = Cluster(options=RaftOptions(log_retention_bytes=200, snapshot_window_bytes=64))
    leader, _ = far_behind(c, count=300)
    other = "c" if leader.name == "b" else "b"
    c.crash(other)
    term, campaigns = leader.term, c["a"].group.campaigns
    hold_snapshot(c, leader)
    # One chunk in 20 ms: the transfer takes longer than any election timeout.
    for _ in range(100):
        c.deliver(leader.name, "a", 1)
        c.pass_time(0.02)
        c.deliver("a", leader.name)
    assert leader.leads and leader.term == term
    assert c["a"].group.campaigns == campaigns
    c.converge()


def test_the_log_keeps_what_the_snapshot_on_its_way_needs() -> None:
    """A snapshot ends where the log goes on, even if the log is trimmed meanwhile."""
    c = Cluster(options=TINY_LOG)
    leader, _ = far_behind(c)
    hold_snapshot(c, leader)
    to_a = (leader.name, "a")
    c.held = {to_a}
    index = c.pending(*to_a, wire.SnapshotChunk)[0].index
    for i in range(30):
        c.write(leader.name, b"meanwhile-%d" % i)
    assert leader.journal.first_index <= index
    c.held.clear()
    c.converge()
    assert leader.group.snapshots.sent == 1


def test_a_follower_stores_the_snapshot_before_it_counts() -> None:
    """Guarantee 4 for snapshots: acknowledged once a power failure cannot undo the install."""
    for seed in range(20):
        c = Cluster(options=TINY_LOG, durable=True, seed=seed)
        leader, _ = far_behind(c, tail=150)
        c.disks["a"].sync_seconds = (0.001, 0.02)
        c.reconnect("a")
        draw = c.scheduler.generator("test")
        c.flow(0.07 + 0.05 * draw.random())
        match = leader.group.engine.match_index("a")
        c.crash("a", power=True)
        member = c.start("a", connect=False)
        assert member.journal.last_index >= match
        assert match == 0 or member.journal.term_at(match) == leader.journal.term_at(match)
        for other in "bc":
            c.join("a", other)
        c.converge()


def test_snapshots_are_taken_lazily() -> None:
    """Chunks are made as they are sent, while later entries are applied."""
    c = Cluster(options=RaftOptions(log_retention_bytes=200, snapshot_window_bytes=128))
    leader, _ = far_behind(c)
    taken: list[int] = []
    snapshot = leader.machine.snapshot

    def lazy() -> Iterator[bytes]:
        for chunk in list(snapshot()):
            taken.append(len(chunk))
            yield chunk

    leader.machine.snapshot = lazy  # type: ignore[method-assign]
    hold_snapshot(c, leader)
    c.pass_time(0.1)
    assert sum(taken) <= 128 + 64, "no more than the window before an acknowledgement"
    c.converge()
