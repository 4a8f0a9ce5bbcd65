"""What a vote is worth: S4a, S5, S22; guarantees 3 to 5. Election safety, Raft figure 3."""

from __future__ import annotations

from typing import Any

import pytest

from raftcache.raft import wire
from tests.raft.harness import GROUP, Cluster

from .story import (
    alone,
    broke,
    campaign,
    cluster,
    nothing_unsynced_survives,
    scenario,
    slow_disk,
)


@scenario("one-vote-per-voter")
def test_a_vote_seen_twice_elects_no_second_leader(guarded: bool) -> None:
    """S5. Raft section 5.2: a candidate wins by votes from a majority of the *servers*. a and c are
    candidates of one term; a has the vote of b, seen twice, c has those of d and e."""
    c = cluster("abcde", guarded=guarded)
    c.elect("e")
    c.held = set(c.queues)
    for pair in c.queues:
        c.drop(*pair)
    term = campaign(c, "a")
    assert campaign(c, "c") == term
    c.deliver("a", "b")
    (vote,) = c.pending("b", "a", wire.Vote)
    c.deliver("b", "a")
    c["a"].group.on_message("b", vote)
    for voter in "de":
        c.deliver("c", voter)
        c.deliver(voter, "c")
    assert c["c"].leads
    assert c["a"].leads is not guarded
    assert broke(c, "two leaders in term") is not guarded


def voted_and_lost_power(guarded: bool, disk_s: float, patience_s: float) -> Cluster:
    """b wins an election with c's vote; c loses power and restarts; a, who heard nothing of it,
    asks c for its vote in the same term. c's disk takes ``disk_s``; ``patience_s`` pass between its
    vote and the end."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    slow_disk(c, "c", disk_s)
    nothing_unsynced_survives(c, "c")
    c.held = set(c.queues) - {("b", "c")}
    term = campaign(c, "b")
    c.until(lambda: c["c"].journal.getVotedForNodeId() == "b")
    c.held = set(c.queues) - {("c", "b")}
    c.flow(patience_s)
    c.crash("c", power=True)
    slow_disk(c, "c", 0.001)
    c.start("c", connect=False)
    c.held = set(c.queues)
    c.until(lambda: not c["a"].leads)
    alone(c, "a", "c")
    c.held |= {("a", "b"), ("b", "a")}
    c.join("a", "c")
    assert campaign(c, "a") == term
    c.flow(0.05)
    return c


@scenario("vote-durability")
def test_a_vote_leaves_only_when_a_power_failure_cannot_undo_it(guarded: bool) -> None:
    """S4a. c's disk is slow: without the guard its vote for b is out before it is on the disk."""
    c = voted_and_lost_power(guarded, disk_s=0.2, patience_s=0.05)
    assert c["a"].leads, "c has voted once, for whom it remembers"
    assert broke(c, "two leaders in term") is not guarded


@scenario("meta-durability")
def test_a_vote_outlives_its_process(guarded: bool) -> None:
    """S4a. c's disk is fast: the vote for b was written in time, if it was written at all."""
    c = voted_and_lost_power(guarded, disk_s=0.001, patience_s=0.05)
    assert c.leaders[c["b"].term] == "b"
    assert c["a"].leads is not guarded
    assert broke(c, "two leaders in term") is not guarded


@scenario("vote-durability")
def test_a_request_for_votes_waits_for_the_candidates_own_vote(guarded: bool) -> None:
    """A candidate votes for itself; were it to ask first, it could lose that vote and give another
    in the same term."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    slow_disk(c, "b")
    campaign(c, "b")
    c.flow(0.1)
    assert (c.count_sent("b", "c", wire.RequestVote) == 0) is guarded
    c.flow(0.15)
    assert c.count_sent("b", "c", wire.RequestVote) == 1


@scenario("members-only")
def test_a_stranger_is_not_heard(guarded: bool) -> None:
    """S22, S11: nothing of a node that is not a replica of this group reaches PySyncObj, where a
    late acknowledgement of a removed node raises KeyError out of the tick. Such a connection is
    closed."""
    c = cluster("abc", guarded=guarded)
    leader = c.elect("a")
    term = leader.term
    strange: list[Any] = [
        wire.AppendReply(GROUP, term, 2, True, False),
        wire.RequestVote(GROUP, term + 10, 99, term, False),
        wire.Append(GROUP, term + 10, 1, 0, 0, [], 0),
    ]
    for message in strange:
        for stranger in ("z", "a"):
            expected = wire.WireError if guarded else (KeyError, AssertionError)
            if guarded or stranger == "z":
                with pytest.raises(expected):
                    leader.group.on_message(stranger, message)
    c.turn()
    if guarded:
        assert leader.leads and leader.term == term
