"""Reads without log entries never see an older state than a read before them did.

ReadIndex and leases: Raft dissertation, section 6.4. PySyncObj has neither; a deposed leader of its
own serves its state for as long as its fallback timeout (S6).
"""

from __future__ import annotations

import pytest

from raftcache.raft import wire
from raftcache.raft.options import RaftOptions
from raftcache.raft.pace import ROUND_APART_S
from raftcache.raft.quickest import RACE_EVERY_S
from raftcache.raft.reads import ASK_OTHERS_AFTER_S

from .harness import GROUP, Cluster, Member

LEASE = RaftOptions(lease_s=0.2, max_clock_drift=0.05)


def test_a_read_sees_what_was_acknowledged_before_it() -> None:
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, b"x")
    read = leader.read()
    c.until(lambda: read.confirmed is not None)
    assert read.confirmed and read.seen == [b"x"]


def test_a_deposed_leader_learns_of_it_from_the_first_answer() -> None:
    """S6b: PySyncObj ignores messages of an earlier term in silence. Here every one of them is
    answered with the term."""
    c = Cluster()
    assert c.elect().name == "a"
    for follower in "bc":
        c.hang_up(follower, "a")
    c.until(lambda: any(c[name].leads for name in "bc"), limit_s=0.3)
    assert c["a"].leads
    follower = "c" if c["b"].leads else "b"
    c.join("a", follower)
    read = c["a"].read()
    took = c.until(lambda: not c["a"].leads)
    assert took < 0.01
    c.until(lambda: read.confirmed is False)


def test_a_read_waits_until_its_index_is_applied_after_the_round() -> None:
    """Reads that begin while a write is on its way see it or not; those after its acknowledgement
    see it."""
    c = Cluster()
    leader = c.elect()
    reads, proposals = [], []
    for i in range(20):
        proposals += leader.propose(b"%d" % i)
        reads.append((i, leader.read()))
        c.hop()
    c.until(lambda: all(read.confirmed for _, read in reads))
    for i, read in reads:
        done_before = [p.payload for p in proposals[: max(0, i - 3)]]
        assert read.seen[: len(done_before)] == done_before


def test_reads_that_wait_share_a_round() -> None:
    c = Cluster()
    leader = c.elect()
    rounds = leader.group.reads.rounds
    c.sent.clear()
    first = leader.read()
    rest = [leader.read() for _ in range(100)]
    c.until(lambda: all(read.confirmed for read in [first, *rest]))
    assert leader.group.reads.rounds == rounds + 2, "one on its way, one for all others"
    assert c.count_sent(leader.name, "b", wire.Probe) == 2


def test_a_read_waits_for_no_slow_round() -> None:
    """Where answers take long, a second round leaves before the first has come back."""
    c = Cluster()
    leader = c.elect()
    rounds = leader.group.reads.rounds
    reads = [leader.read()]
    c.pass_time(2 * ROUND_APART_S)
    reads += [leader.read() for _ in range(10)]
    c.pass_time(2 * ROUND_APART_S)
    assert leader.group.reads.rounds == rounds + 2, "ten reads in one more"
    reads += [leader.read() for _ in range(10)]
    assert leader.group.reads.rounds == rounds + 2, "and no third while two are on their way"
    c.until(lambda: all(read.confirmed for read in reads))
    assert leader.group.reads.rounds == rounds + 3


def test_a_round_asks_no_more_than_a_majority_takes() -> None:
    c = Cluster("abcde")
    leader = c.elect()
    others = [name for name in "abcde" if name != leader.name]
    read_once(c, leader)
    c.sent.clear()
    for _ in range(10):
        read_once(c, leader)
    asked = [c.count_sent(leader.name, name, wire.Probe) for name in others]
    assert sorted(asked) == [0, 0, 10, 10]


def test_who_takes_long_is_asked_last_until_it_is_quicker_again() -> None:
    c = Cluster()
    leader = c.elect()
    read_once(c, leader)
    c.sent.clear()
    read_once(c, leader)
    (slow,) = [name for name in "bc" if c.count_sent(leader.name, name, wire.Probe)]
    quick = "bc".replace(slow, "")
    c.held = {(slow, leader.name)}
    took = read_once(c, leader)
    assert ASK_OTHERS_AFTER_S <= took <= 2 * ASK_OTHERS_AFTER_S, "the other was asked, too"
    c.sent.clear()
    assert read_once(c, leader) < ASK_OTHERS_AFTER_S
    assert c.count_sent(leader.name, slow, wire.Probe) == 0
    c.held = {(quick, leader.name)}
    c.pass_time(RACE_EVERY_S)
    assert read_once(c, leader) < ASK_OTHERS_AFTER_S, "now and then all are asked"
    c.held = set()
    c.sent.clear()
    read_once(c, leader)
    assert c.count_sent(leader.name, quick, wire.Probe) == 0


def test_who_is_not_connected_is_not_waited_for() -> None:
    c = Cluster()
    leader = c.elect()
    for name in "bc":
        read_once(c, leader)
        c.hang_up(leader.name, name)
        assert read_once(c, leader) < ASK_OTHERS_AFTER_S
        c.join(leader.name, name)


def read_once(c: Cluster, leader: Member) -> float:
    """How long a read takes, in seconds."""
    read = leader.read()
    return c.until(lambda: read.confirmed is not None)


def test_questions_that_nobody_heard_are_asked_again() -> None:
    """A replica that has lost its state hears nothing until it has it back, and its connection goes
    on: two such rounds, and no read would ever have been answered. (Found by the simulator, seed
    1300458.)"""
    c = Cluster()
    leader = c.elect()
    others = [name for name in "abc" if name != leader.name]
    reads = [leader.read()]
    c.pass_time(2 * ROUND_APART_S)
    reads.append(leader.read())
    c.pass_time(2 * ASK_OTHERS_AFTER_S)
    for name in others:
        assert len(c.drop(leader.name, name, wire.Probe)) == 2
    c.until(lambda: all(read.confirmed for read in reads), 0.2)
    c.sent.clear()
    c.flow(0.2)
    assert c.count_sent(leader.name, others[0], wire.Probe) == 0, "answered is answered"


def test_a_read_does_not_share_a_round_that_began_before_it() -> None:
    """The answer to an earlier question says nothing about now."""
    c = Cluster()
    assert c.elect().name == "a"
    c.held = {("b", "a"), ("c", "a")}
    early = c["a"].read()
    c.flow(0.01)
    answers = c.pending("b", "a", wire.ProbeReply)
    assert len(answers) == 1
    c["a"].read()
    late = c["a"].read()
    c["a"].group.on_message("b", answers[0])
    c.turn()
    assert early.confirmed is True
    assert late.confirmed is None


def test_a_question_lost_with_its_connection_is_asked_again() -> None:
    c = Cluster()
    assert c.elect().name == "a"
    c.held = {("a", "b"), ("a", "c")}
    read = c["a"].read()
    assert c.pending("a", "b", wire.Probe)
    c.held = {("a", "c")}
    c.join("a", "b")
    c.until(lambda: read.confirmed is True, limit_s=0.05)


def test_a_follower_refuses_reads_at_once() -> None:
    c = Cluster()
    c.elect()
    assert c["b"].read().confirmed is False
    assert c["b"].read(lease=True).confirmed is False


def test_a_leader_of_one_confirms_its_reads_at_once() -> None:
    """Nobody else is to be asked."""
    c = Cluster("a")
    c.until(lambda: c["a"].leads and c["a"].group.leader_ready)
    c.write("a", b"x")
    read = c["a"].read()
    took = c.until(lambda: read.confirmed is not None)
    assert read.confirmed and read.seen == [b"x"]
    assert took <= 0.002


# -- at followers


def test_a_follower_of_three_reads_after_one_question_and_no_round() -> None:
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, b"x")
    rounds = leader.group.reads.rounds
    for follower in (name for name in "abc" if name != leader.name):
        c.sent.clear()
        reads = [c[follower].read_here() for _ in range(5)]
        c.until(lambda reads=reads: all(read.confirmed for read in reads))
        assert all(read.seen == [b"x"] for read in reads)
        assert c.count_sent(follower, leader.name, wire.ReadIndex) <= 2
    assert leader.group.reads.rounds == rounds
    read = leader.read_here()
    c.until(lambda: read.confirmed is True)
    assert leader.group.reads.rounds == rounds + 1


def test_a_follower_that_lags_waits_for_what_was_acknowledged_before() -> None:
    c = Cluster()
    assert c.elect().name == "a"
    c.held = {("a", "b")}
    proposals = c["a"].propose(b"x")
    c.until(lambda: proposals[0].outcome is not None)
    read = c["b"].read_here()
    c.flow(0.01)
    assert read.confirmed is None
    c.held = set()
    c.until(lambda: read.confirmed is True, limit_s=0.05)
    assert read.seen == [b"x"]


def test_of_five_replicas_two_are_no_majority() -> None:
    c = Cluster("abcde")
    leader = c.elect()
    (follower, *_) = [name for name in "abcde" if name != leader.name]
    rounds = leader.group.reads.rounds
    read = c[follower].read_here()
    c.until(lambda: read.confirmed is True)
    assert leader.group.reads.rounds == rounds + 1


@pytest.mark.parametrize("wrong", [-1, 0, 1])
def test_the_word_of_another_term_counts_for_nothing(wrong: int) -> None:
    c = Cluster()
    leader = c.elect()
    term = leader.term + wrong if wrong else -1
    rounds = leader.group.reads.rounds
    leader.group.on_message("b", wire.ReadIndex(GROUP, 77, term))
    c.turn()
    assert leader.group.reads.rounds == rounds + 1
    c.until(lambda: c.count_sent(leader.name, "b", wire.ReadIndexReply) == 1)


def test_the_word_of_an_earlier_question_does_not_count_for_other_reads() -> None:
    """What the leader itself is asked may have begun after that."""
    c = Cluster()
    assert c.elect().name == "a"
    c.held = {("b", "a"), ("c", "a")}
    read = c["a"].read()
    c["a"].group.on_message("b", wire.ReadIndex(GROUP, 77, c["b"].term))
    c.flow(0.005)
    assert read.confirmed is None


def test_who_elects_another_leader_is_told_by_that_one() -> None:
    c = Cluster()
    assert c.elect().name == "a"
    c.isolate("a")
    read = c["b"].read_here()
    c.until(lambda: any(c[name].leads for name in "bc"))
    c.until(lambda: c["b"].leads or c["b"].group.leader == "c")
    (leader,) = [c[name] for name in "bc" if c[name].leads]
    c.write(leader.name, b"new")
    later = c["b"].read_here()
    c.until(lambda: later.confirmed is True)
    assert later.seen == [b"new"]
    assert read.confirmed is not None, "not left with who cannot answer"
    assert c["a"].leads, "it has not noticed"
    c.heal()
    old = c["a"].read_here()
    c.until(lambda: old.confirmed is not None)
    assert old.confirmed is False or old.seen == [b"new"]


def test_who_hears_of_no_leader_says_so() -> None:
    c = Cluster()
    assert c.elect().name == "a"
    read = c["b"].read_here()
    c.hang_up("b", "a")
    assert read.confirmed is False
    c.until(lambda: c["b"].read_here().confirmed is False)


def test_the_word_of_who_is_getting_its_state_back_counts_for_nothing() -> None:
    """What its earlier incarnation has promised is not known yet."""
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, b"x")
    c.crash("c")
    c.held = {("b", "c")}
    c.start("c")
    c.flow(0.2)
    assert c["c"].group.recovering
    assert not c["c"].group.close_behind
    assert c["c"].group._term_followed() == -1
    c.held = set()
    c.until(lambda: c["c"].group.close_behind)
    assert c["c"].group._term_followed() == leader.term


def test_a_leader_that_has_committed_nothing_in_its_term_answers_nobody() -> None:
    """What earlier leaders acknowledged may lie beyond its commit index."""
    c = Cluster()
    assert c.elect().name == "a"
    c.crash("a")
    c.until(lambda: any(c[name].leads for name in "bc"))
    (leader,) = [c[name] for name in "bc" if c[name].leads]
    assert leader.journal.term_at(leader.commit) != leader.term
    other = "c" if leader.name == "b" else "b"
    leader.group.on_message(other, wire.ReadIndex(GROUP, 77, leader.term))
    assert not c.count_sent(leader.name, other, wire.ReadIndexReply)
    c.until(lambda: c.count_sent(leader.name, other, wire.ReadIndexReply) == 1)
    assert leader.group.leader_ready


# -- leases


def take_lease(c: Cluster, leader: Member) -> None:
    read = leader.read(lease=True)
    c.until(lambda: read.confirmed is not None)
    assert read.confirmed and leader.group.reads.lease_valid()


def test_lease_reads_need_no_message_while_the_lease_holds() -> None:
    c = Cluster(options=LEASE)
    leader = c.elect()
    take_lease(c, leader)
    c.sent.clear()
    assert leader.read(lease=True).confirmed is True
    assert not [m for _, _, m in c.sent if isinstance(m, wire.Probe)]


def test_no_lease_is_asked_for_by_plain_reads() -> None:
    """A lease delays the next election; only those pay for it who use it."""
    c = Cluster(options=LEASE)
    leader = c.elect()
    read = leader.read()
    c.until(lambda: read.confirmed is True)
    assert not leader.group.reads.lease_valid()


def test_a_lease_is_shorter_than_the_promise_by_the_clock_drift() -> None:
    """It counts from when the question was asked, by the leader's clock, shortened by how much
    faster another's may run."""
    c = Cluster(options=LEASE)
    assert c.elect().name == "a"
    c.held = {("b", "a"), ("c", "a")}
    asked = c.now
    c["a"].read(lease=True)
    c.flow(0.05)
    c.held = set()
    c.until(lambda: c["a"].group.reads.lease_valid())
    c.isolate("a")
    c.pass_time(asked + 0.2 * 0.95 - 0.001 - c.now)
    assert c["a"].read(lease=True).confirmed is True
    c.pass_time(0.002)
    assert c["a"].leads
    assert c["a"].read(lease=True).confirmed is None


def test_a_vote_asked_for_during_a_promise_is_not_given() -> None:
    """Pre-vote is a courtesy; the promise must hold against a candidate that does not ask."""
    c = Cluster(options=LEASE)
    assert c.elect().name == "a"
    take_lease(c, c["a"])
    c["b"].group.engine.campaign()
    c.turn()
    c.deliver("b", "c")
    assert not c.count_sent("c", "b", wire.Vote)


def test_no_lease_after_a_transfer_began() -> None:
    """The next leader may be elected at any moment, without asking who has promised what."""
    c = Cluster(options=LEASE)
    assert c.elect().name == "a"
    take_lease(c, c["a"])
    c["a"].group.transfer("b")
    c.turn()
    assert not c["a"].group.reads.lease_valid()
    read = c["a"].read(lease=True)
    assert read.confirmed is not True
    c.until(lambda: c["b"].leads)
    c.until(lambda: read.confirmed is not None)


def test_a_failed_transfer_leaves_no_lease_in_this_term() -> None:
    """The order to campaign may still be on its way."""
    c = Cluster(options=LEASE)
    assert c.elect().name == "a"
    c.held = {("a", "b")}
    c["a"].group.transfer("b")
    c.flow(1.0)
    assert c["a"].leads and c["a"].group.accepts, "the transfer was given up"
    read = c["a"].read(lease=True)
    c.until(lambda: read.confirmed is True)
    assert not c["a"].group.reads.lease_valid()


# -- bounded staleness


def test_a_follower_reads_a_state_no_older_than_asked_for() -> None:
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, b"x")
    read = c["b"].read_fresh(0.1)
    c.until(lambda: read.confirmed is not None)
    assert read.confirmed and read.seen == [b"x"]


def test_within_the_bound_no_message_is_needed() -> None:
    c = Cluster()
    c.elect()
    read = c["b"].read_fresh(0.5)
    c.until(lambda: read.confirmed is True)
    c.flow(0.3)
    c.sent.clear()
    assert c["b"].read_fresh(0.5).confirmed is True
    assert not c.count_sent("b", "a", wire.ReadIndex)
    late = c["b"].read_fresh(0.1)
    assert late.confirmed is None
    c.until(lambda: late.confirmed is True)


def test_a_cut_off_follower_serves_no_staler_state() -> None:
    c = Cluster()
    assert c.elect().name == "a"
    read = c["b"].read_fresh(0.5)
    c.until(lambda: read.confirmed is True)
    c.isolate("b")
    c.write("a", b"new")
    assert c["b"].read_fresh(0.5).confirmed is True, "not older than half a second, by its clock"
    c.flow(0.6)
    late = c["b"].read_fresh(0.5)
    c.flow(0.5)
    assert late.confirmed is None
    c.hang_up("b", "a")
    assert late.confirmed is False
