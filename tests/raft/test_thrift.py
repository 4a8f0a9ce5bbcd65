"""New entries go to as many followers as a majority takes; the others get several at a time."""

from __future__ import annotations

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions
from raftcache.raft.quickest import RACE_EVERY_S
from raftcache.raft.thrift import LARGE_BYTES, PUT_OFF_S

from .harness import Cluster, Member


def calm(c: Cluster) -> tuple[Member, str, str]:
    """A leader whose last entry to all was just now; who is sent entries at once, and who not."""
    leader = c.elect("a")
    c.pass_time(RACE_EVERY_S)
    c.write("a", b"race")
    start_of_turn(c)
    c.write("a", b"first")
    (waits,) = [name for name in "bc" if not entries_sent(c, name)]
    start_of_turn(c)
    return leader, "c" if waits == "b" else "b", waits


def start_of_turn(c: Cluster) -> None:
    """What was put off is sent and answered; what is put off now waits for all of ``PUT_OFF_S``."""
    c.flow(2 * PUT_OFF_S)
    c.pass_time(PUT_OFF_S - c.now % PUT_OFF_S)
    c.sent.clear()


def entries_sent(c: Cluster, target: str) -> list[int]:
    """How many entries each message to ``target`` brought, where there were any."""
    sent = [m for _, t, m in c.sent if t == target and isinstance(m, wire.Append)]
    return [len(message.entries) for message in sent if message.entries]


def test_one_of_two_followers_gets_several_entries_at_a_time() -> None:
    c = Cluster()
    leader, first, other = calm(c)
    for proposal in c["a"].propose(b"0", b"1"):
        c.until(lambda proposal=proposal: proposal.outcome is Outcome.APPLIED)
    c.write("a", b"2")
    assert entries_sent(c, first) == [2, 1], "what is appended in one turn goes as one"
    assert entries_sent(c, other) == []
    c.flow(PUT_OFF_S)
    assert entries_sent(c, other) == [3]
    c.converge()
    assert c[other].state == leader.state
    assert c.count_sent(other, "a", wire.AppendReply) == 1


def test_of_five_replicas_two_followers_get_entries_at_once() -> None:
    c = Cluster("abcde")
    c.elect("a")
    c.write("a", b"race")
    start_of_turn(c)
    c.write("a", b"x")
    assert sum(entries_sent(c, name) == [1] for name in "bcde") == 2
    c.converge()


def test_of_two_replicas_nobody_waits() -> None:
    c = Cluster("ab")
    c.elect("a")
    c.write("a", b"race")
    c.sent.clear()
    c.write("a", b"x")
    assert entries_sent(c, "b") == [1]


def test_when_the_first_is_slow_the_other_is_soon_asked_and_comes_first_from_then_on() -> None:
    c = Cluster()
    _, first, other = calm(c)
    c.held = {(first, "a")}
    (proposal,) = c["a"].propose(b"x")
    assert c.until(lambda: proposal.outcome is Outcome.APPLIED) <= 2 * PUT_OFF_S
    start_of_turn(c)
    c.write("a", b"y")
    assert entries_sent(c, other) == [1]
    assert entries_sent(c, first) == []


def test_when_the_first_is_gone_nothing_waits_for_it() -> None:
    c = Cluster()
    _, first, other = calm(c)
    c.held = {("a", first)}
    (proposal,) = c["a"].propose(b"x")
    assert entries_sent(c, other) == []
    c.hang_up("a", first)
    assert entries_sent(c, other) == [1]
    c.until(lambda: proposal.outcome is Outcome.APPLIED, limit_s=PUT_OFF_S)


def test_who_answers_first_when_all_are_asked_comes_first() -> None:
    c = Cluster()
    _, first, other = calm(c)
    c.held = {(first, "a")}
    c.pass_time(RACE_EVERY_S)
    c.write("a", b"race")
    c.held = set()
    start_of_turn(c)
    c.write("a", b"x")
    assert entries_sent(c, other) == [1]
    assert entries_sent(c, first) == []


def test_a_read_at_the_one_that_waits_does_not_wait() -> None:
    c = Cluster()
    _, _, other = calm(c)
    c.write("a", b"x")
    read = c[other].read_here()
    assert c.until(lambda: read.confirmed is True) < PUT_OFF_S
    assert read.seen[-1] == b"x"


def test_what_was_put_off_is_sent_before_it_leaves_the_log() -> None:
    """Else a replica that misses nothing would need a snapshot."""
    c = Cluster(options=RaftOptions(log_retention_bytes=1000))
    _, _, other = calm(c)
    for i in range(20):
        c.write("a", b"%d" % i * 300)
    c.converge()
    assert c.count_sent("a", other, wire.SnapshotChunk) == 0


def test_large_entries_wait_for_nothing() -> None:
    c = Cluster()
    _, first, other = calm(c)
    c.write("a", b"small")
    c.write("a", b"x" * LARGE_BYTES)
    assert entries_sent(c, other) == [2], "and take with them what waited"
    assert entries_sent(c, first) == [1, 1]


def test_a_leader_that_is_deposed_sends_nothing_more() -> None:
    c = Cluster()
    leader, _, other = calm(c)
    c.held = {("a", name) for name in "bc"}
    leader.propose(b"x")
    leader.group.engine.step_down(leader.term + 1)
    c.sent.clear()
    c.flow(2 * PUT_OFF_S)
    assert entries_sent(c, other) == []
    c.held = set()
    c.elect()
    c.converge()
