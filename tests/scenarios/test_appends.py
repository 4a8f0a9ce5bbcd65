"""What an append may do to a log: S2, S6, S20, S21; guarantees 2 and 7."""

from __future__ import annotations

import pytest

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions
from tests.raft.harness import GROUP, Cluster, command, outcomes

from .story import (
    SMALL_MESSAGES,
    campaign,
    cluster,
    entries_sent,
    lost_without,
    other_leader,
    scenario,
)


@scenario("matching-prefix")
def test_a_late_append_takes_back_nothing_that_was_acknowledged(guarded: bool) -> None:
    """S2. Raft section 5.3: "if an existing entry conflicts with a new one", and only then, is
    anything deleted. c is away; b has all nine entries and a has told its clients. Then b hears the
    first append once more, and a crashes before it can send the others again."""
    c = cluster("abc", guarded=guarded, options=SMALL_MESSAGES)
    c.elect("a")
    c.held = {("a", "c"), ("c", "a")}
    proposals = c["a"].propose(*[b"entry-%d" % i for i in range(9)])
    appends = c.pending("a", "b", wire.Append)
    assert len([m for m in appends if m.entries]) >= 3
    c.flow(0.01)
    assert set(outcomes(proposals)) == {Outcome.APPLIED}, "a and b are a majority"

    # A copy of the first append, on its way since before.
    c["b"].group.on_message("a", appends[0])
    assert bool(lost_without(c, "a", proposals)) is not guarded, "acknowledged, and gone"


@scenario("committed-entries")
def test_no_peer_can_replace_a_committed_entry(guarded: bool) -> None:
    """Leader completeness (Raft section 5.4.3) makes it impossible among honest peers; one that
    sends it breaks the protocol, and its connection is closed."""
    c = cluster("abc", guarded=guarded)
    leader = c.elect("a")
    c.write("a", b"x", b"y")
    c.converge()
    c.flow(0.1)
    b = c["b"]
    before, at = b.log, b.commit - 1
    previous_term = b.journal.term_at(at - 1)
    assert previous_term is not None
    wrong = wire.Append(
        GROUP,
        leader.term + 1,
        at - 1,
        previous_term,
        b.commit,
        [(command(b"z"), leader.term + 1)],
        0,
    )
    if guarded:
        with pytest.raises(wire.WireError, match="committed"):
            b.group.on_message("a", wrong)
        # A leader that has another term there, and says no more.
        other = wire.Append(GROUP, leader.term + 1, at, leader.term + 1, b.commit, [], 0)
        with pytest.raises(wire.WireError, match="committed"):
            b.group.on_message("a", other)
        assert b.log == before
    else:
        b.group.on_message("a", wrong)
        assert b.log[:-1] == before[:-2] and b.log[-1][1] == b"z", "y is not even there"


@scenario("no-send-twice")
def test_nothing_is_sent_twice_on_a_connection(guarded: bool) -> None:
    """S2, the sender's half: PySyncObj rewinds to the acknowledged index at every acknowledgement,
    and goes on from there with the next heartbeat. With the receiver's guard alone nothing is lost
    by it but bandwidth."""
    c = cluster("abc", guarded=guarded, options=SMALL_MESSAGES)
    c.elect("a")
    c.sent.clear()
    c["a"].propose(*[b"entry-%02d" % i for i in range(18)])
    # Two of many messages have arrived, and the acknowledgement of the first; then there is more.
    c.deliver("a", "b", 2)
    c.deliver("b", "a", 1)
    c["a"].propose(b"one more")
    c.pass_time(2 * SMALL_MESSAGES.heartbeat_s)
    c.until(lambda: len(c["b"].state) == 19)
    sent = entries_sent(c, "a", "b")
    assert len(set(sent)) == 19
    assert (len(sent) == 19) is guarded, f"{len(sent)} sent, 19 needed"


def divergent(c: Cluster, tail: int, entries: list[bytes]) -> str:
    """a leads, is cut off and appends ``tail`` entries that nobody gets; b or c leads and commits
    ``entries``; then leadership changes once more, so that the new leader, returned, knows nothing
    of a."""
    c.elect("a")
    c.isolate("a")
    for i in range(tail):
        c["a"].propose(b"lost-%d" % i)
    leader = c[other_leader(c, c["a"].term)]
    c.write(leader.name, *entries)
    other = "c" if leader.name == "b" else "b"
    leader.group.transfer(other)
    c.until(lambda: c[other].leads and c[other].group.leader_ready)
    c.reconnect("a")
    return other


@scenario("conflict-answer")
def test_a_divergent_follower_is_corrected_in_a_few_round_trips(guarded: bool) -> None:
    """S20: PySyncObj backs up one entry at a time. The answer to a conflict names the first index
    of the conflicting term (Raft section 5.3, end)."""
    c = cluster("abc", guarded=guarded)
    leader = divergent(c, 50, [b"small-%d" % i for i in range(52)])
    c.sent.clear()
    c.until(lambda: len(c["a"].state) == 52)
    refused = [
        m for s, t, m in c.sent if (s, t) == ("a", leader) and isinstance(m, wire.AppendReply)
    ]
    round_trips = sum(not reply.success for reply in refused)
    assert (round_trips < 5) if guarded else (round_trips > 25)
    c.converge()


@scenario("conflict-answer")
def test_a_divergent_follower_catches_up_over_many_messages(guarded: bool) -> None:
    """S21: the messages that follow the one that conflicted must not overrule its answer: PySyncObj
    obeys the last answer, and sends the same again and again."""
    c = cluster("abc", guarded=guarded, options=RaftOptions(max_append_bytes=20_000))
    leader = divergent(c, 50, [b"%04d" % i * 2_500 for i in range(52)])
    c.sent.clear()
    c.flow(1.0)
    assert (len(c["a"].state) == 52) is guarded
    if guarded:
        assert len(entries_sent(c, leader, "a")) <= 60


@scenario("term-notice")
def test_a_node_in_a_higher_term_than_its_leader_is_not_stuck(guarded: bool) -> None:
    """c campaigned (a transfer that nobody heard of, say) and is one term ahead. It must ignore
    what a says, and PySyncObj does so in silence; its own timer would end that one day, ours never
    fires while a leader is heard by everybody else, since nobody grants a pre-vote. Here c answers
    with its term: a steps down, and a new election brings all together."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.isolate("c")
    campaign(c, "c")
    c.reconnect("c")
    proposals = c["a"].propose(b"x")
    c.flow(5.0)
    served = [member.name for member in c.members.values() if b"x" in member.state]
    assert outcomes(proposals) == [Outcome.APPLIED] or guarded
    if guarded:
        leader = c.elect()
        c.write(leader.name, b"y")
        c.converge()
    else:
        assert served == ["a", "b"], "c never gets another entry"
        assert c["c"].term > c["a"].term and c["a"].leads
