"""What an acknowledgement is worth: S1, S4g; guarantees 1 and 4."""

from __future__ import annotations

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from tests.raft.harness import outcomes

from .story import (
    cluster,
    lost,
    lost_without,
    nothing_unsynced_survives,
    other_leader,
    scenario,
    slow_disk,
)


@scenario("ack-terms")
def test_an_acknowledgement_of_an_earlier_term_commits_nothing(guarded: bool) -> None:
    """S1, on FIFO links without loss. In term 1 only e stores a's entries; its acknowledgements
    stay on the way. Another leader overwrites them; a leads again and counts d, and then the late
    e, who has nothing of the new term: a majority that does not exist."""
    c = cluster("abcde", guarded=guarded)
    assert c.elect().name == "a"
    c.held = {("e", "a"), ("a", "b"), ("a", "c"), ("a", "d")}
    for i in range(8):
        c["a"].propose(b"x%d" % i)
        c.flow(0.004)
    first_term = c["a"].term

    # b, c and d hear nothing of a: one of them leads, and replaces what a and e have.
    c.until(lambda: c.leader is not None and c.leader.term > first_term)
    c.held = {("e", "a")}
    c.until(lambda: len({tuple(member.log) for member in c.members.values()}) == 1)

    # a leads again, by the votes of others. From then on it reaches d only.
    leader = c.leader
    assert leader is not None
    leader.group.transfer("a")
    c.until(lambda: c["a"].leads and c["a"].group.leader_ready)
    c.held |= {("a", "b"), ("a", "c"), ("a", "e")}
    base = c["a"].journal.last_index
    late = c.pending("e", "a", wire.AppendReply)
    highest = max(reply.next_index for reply in late if reply.term == first_term) - 1
    assert highest > base, "the late acknowledgements reach beyond what the terms have in common"
    proposals = []
    for i in range(highest - base):
        proposals += c["a"].propose(b"y%d" % i)
    c.flow(0.03)
    assert set(outcomes(proposals)) == {None}, "only a and d have them"

    # The acknowledgements of term 1 arrive at last; then a and d are gone, and the majority that
    # is left goes on.
    while c.pending("e", "a") and c.pending("e", "a")[0].term == first_term:
        c.deliver("e", "a", 1)
    c.pass_time(0.001)
    assert (Outcome.APPLIED in outcomes(proposals)) is not guarded
    assert bool(lost_without(c, "ad", proposals)) is not guarded, "acknowledged, and gone"


@scenario("held-terms")
def test_an_acknowledgement_that_waited_for_the_disk_into_another_term_is_void(
    guarded: bool,
) -> None:
    """The same with e's disk as the slow part. By the time e has on disk what a sent in term 1,
    another leader has replaced those entries at a, which leads again, with others."""
    c = cluster("abcde", guarded=guarded, durable=True)
    c.elect("a")
    slow_disk(c, "e", 3.0)
    with_e = {pair for pair in c.queues if "e" in pair}
    c.held = {("a", "b"), ("a", "c"), ("a", "d")} | (with_e - {("a", "e")})
    for i in range(8):
        c["a"].propose(b"x%d" % i)
        c.flow(0.004)
    first_term, last = c["a"].term, c["e"].journal.last_index
    assert c["e"].log[-1][1] == b"x7" and c["e"].journal.durable_index < last

    # Another leader, who reaches all but e, and then a again.
    c.until(lambda: c.leader is not None and c.leader.term > first_term)
    c.held = with_e
    c.until(lambda: len({tuple(c[name].log) for name in "abcd"}) == 1)
    leader = c.leader
    assert leader is not None
    leader.group.transfer("a")
    c.until(lambda: c["a"].leads and c["a"].group.leader_ready)

    # From now on a feeds only d; the others answer its questions, and e hears of the term.
    for name in "bce":
        c["a"].group.on_congested(name, True)
    c.held = with_e - {("a", "e"), ("e", "a")}
    base, proposals = c["a"].journal.last_index, []
    for i in range(last - base):
        proposals += c["a"].propose(b"y%d" % i)
    assert proposals
    while c["e"].journal.durable_index < last or not c["e"].journal.meta_durable:
        c["a"].read()
        c.flow(0.05)
    slow_disk(c, "e", 0.001)
    for _ in range(5):
        c["a"].read()
        c.flow(0.05)
    assert c["a"].leads
    assert (Outcome.APPLIED in outcomes(proposals)) is not guarded

    assert bool(lost_without(c, "ad", proposals)) is not guarded, "acknowledged, and gone"


@scenario("ack-durability")
def test_a_power_failure_at_a_follower_takes_back_no_acknowledgement(guarded: bool) -> None:
    """S4g. Raft figure 2: "updated on stable storage before responding to RPCs". b has x in its
    log and a slow disk; c has nothing. b loses power, a is away: b and c decide."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    c.held = {("a", "c"), ("c", "a")}
    slow_disk(c, "b")
    nothing_unsynced_survives(c, "b")
    proposals = c["a"].propose(b"x")
    c.flow(0.1)
    assert b"x" in [payload for _, payload in c["b"].log]
    assert (outcomes(proposals) == [Outcome.APPLIED]) is not guarded

    c.isolate("a")
    c.crash("b", power=True)
    slow_disk(c, "b", 0.001)
    c.start("b")
    c.isolate("a")
    survivor = c[other_leader(c, c["a"].term)]
    c.write(survivor.name, b"y")
    assert bool(lost(proposals, survivor.state)) is not guarded, "acknowledged, and gone"
    if guarded:
        c.heal()
        c.converge()


@scenario("leader-durability")
def test_a_power_failure_at_the_leader_takes_back_nothing_it_counted(guarded: bool) -> None:
    """S4g, the leader's half: it counts itself for every entry it appends. a has the slow disk
    now, b has x safely; a loses power, b is away: a and c decide."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    c.held = {("a", "c"), ("c", "a")}
    slow_disk(c, "a")
    nothing_unsynced_survives(c, "a")
    proposals = c["a"].propose(b"x")
    c.flow(0.1)
    assert c["b"].journal.durable_index == c["a"].journal.last_index
    assert (outcomes(proposals) == [Outcome.APPLIED]) is not guarded

    term = c["a"].term
    c.crash("a", power=True)
    slow_disk(c, "a", 0.001)
    c.start("a")
    c.held.clear()
    c.isolate("b")
    survivor = c[other_leader(c, term)]
    c.write(survivor.name, b"y")
    assert bool(lost(proposals, survivor.state)) is not guarded, "acknowledged, and gone"
