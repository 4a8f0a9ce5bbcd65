"""Who is deposed and who is replaced: S6, S18; guarantees 7 and 8. Raft dissertation, sections
4.2.3 (disruptive servers), 6.2 (check-quorum) and 9.6 (pre-vote)."""

from __future__ import annotations

import pytest

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from tests.raft.harness import GROUP, Cluster, outcomes

from .story import cluster, scenario


@scenario("pre-vote")
def test_a_node_back_from_a_partition_deposes_nobody(guarded: bool) -> None:
    """S6a. It asks before it campaigns: nobody answers while it is alone, and those who hear their
    leader say no. Without that it counts terms up for as long as it is away, and brings the
    highest back."""
    c = cluster("abc", guarded=guarded)
    leader = c.elect("a")
    term = leader.term
    c.isolate("c")
    c.flow(3.0)
    assert (c["c"].term == term) is guarded, "a node that is alone enters no new term"
    c.write("a", b"x")
    c.reconnect("c")
    c.flow(1.0)
    terms = {member.term for member in c.members.values()}
    assert (leader.leads and terms == {term}) is guarded
    if guarded:
        assert c["c"].state == [b"x"] and c["c"].group.campaigns == 0
    else:
        assert c["a"].term > term, "the healthy leader lost its term"


CUTS = ("stalled", "reset", "out", "in")


def cut(c: Cluster, name: str, kind: str) -> None:
    """Cut ``name`` off: in silence, with its connections closed, or in one direction only."""
    if kind == "reset":
        for other in c.members:
            if other != name:
                c.cut(name, other)
    else:
        outward, inward = kind != "in", kind != "out"
        c.held |= {(x, y) for x, y in c.queues if (outward and x == name) or (inward and y == name)}


@pytest.mark.parametrize("names", ["abc", "abcde"])
@pytest.mark.parametrize("kind", CUTS)
@pytest.mark.parametrize("lossy", [False, True], ids=["late", "lost"])
def test_no_election_when_a_partitioned_follower_returns(
    names: str, kind: str, lossy: bool
) -> None:
    """Guarantee 7, for every kind of cut: while it is away and when it is back (with what was under
    way arriving late, or lost with its connections) the leader and all terms stay the same."""
    c = Cluster(names)
    leader = c.elect("a")
    term = leader.term
    victim = names[-1]
    for round_ in range(3):
        cut(c, victim, kind)
        c.flow(1.5)
        c.write("a", b"%d" % round_)
        if lossy and kind != "reset":
            c.reconnect(victim)
        c.heal()
        c.flow(0.7)
        assert leader.leads
        assert {member.term for member in c.members.values()} == {term}
    assert max(c.leaders) == term, "no election in a later term"
    c.converge()
    assert c[victim].state == [b"0", b"1", b"2"]


@scenario("stickiness")
def test_a_node_that_alone_has_lost_the_leader_deposes_nobody(guarded: bool) -> None:
    """Leader stickiness (dissertation 4.2.3). Only the connection between a and c is gone: b still
    hears a, and says no."""
    c = cluster("abc", guarded=guarded)
    leader = c.elect("a")
    term = leader.term
    c.cut("a", "c")
    c.flow(2.0)
    assert (leader.leads and leader.term == term) is guarded
    assert (max(member.term for member in c.members.values()) == term) is guarded


@scenario("check-quorum")
def test_a_leader_without_a_majority_steps_down(guarded: bool) -> None:
    """S6. Check-quorum (dissertation 6.2): within two election timeouts, in its own term. Until
    then it takes proposals that end nowhere."""
    c = cluster("abc", guarded=guarded)
    leader = c.elect("a")
    c.isolate("a")
    c.flow(1.0)
    assert leader.leads is not guarded
    taken = leader.propose(b"x")
    assert (outcomes(taken) == [Outcome.NOT_APPLIED]) is guarded, "refused at once, or never told"


@scenario("fast-failover")
def test_a_crashed_leader_is_replaced_within_tens_of_milliseconds(guarded: bool) -> None:
    """Guarantee 8: its connections close, and that is news enough."""
    for seed in range(5):
        c = cluster("abcde", guarded=guarded, seed=seed)
        c.elect("a")
        c.crash("a")
        took = c.until(lambda c=c: c.leader is not None)  # type: ignore[misc]
        assert (took < 0.08) is guarded, f"seed {seed}"
        c.until(lambda c=c: c.leader.group.leader_ready)  # type: ignore[misc,union-attr]
        assert len(c.leaders) == 2, "one election was enough"


@scenario("transfer-flag")
def test_an_order_to_campaign_that_could_not_be_followed_is_forgotten(guarded: bool) -> None:
    """S18: PySyncObj remembers an order to campaign that it could not follow, ignores its leader's
    heartbeats and follows it when nobody wants it any more. All of b's connections are congested
    when the order comes."""
    c = cluster("abc", guarded=guarded)
    leader = c.elect("a")
    term = leader.term
    for other in "ac":
        c["b"].group.on_congested(other, True)
    c["b"].group.on_message("a", wire.TimeoutNow(GROUP, term))
    c.turn()
    c.flow(1.0)
    for other in "ac":
        c["b"].group.on_congested(other, False)
    c.flow(1.0)
    assert (leader.leads and leader.term == term) is guarded
