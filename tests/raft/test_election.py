"""Who leads, and when: nobody healthy is deposed, nobody dead is waited for long.

Raft section 5.2; dissertation sections 3.10 (transfer), 4.2.3 (disruptive servers), 6.2
(check-quorum) and 9.6 (pre-vote). What happens without them is told in ``tests/scenarios``.
"""

from __future__ import annotations

from raftcache.raft import wire
from raftcache.raft.election import CRASH_STAGGER_S
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions

from .harness import GROUP, Cluster, outcomes


def test_at_the_first_start_the_first_replica_is_elected() -> None:
    """Groups list their replicas in different orders, so that leaders are spread."""
    for seed in range(10):
        c = Cluster("bca", seed=seed)
        took = c.until(lambda c=c: c.leader is not None)  # type: ignore[misc]
        assert c.leader is not None and c.leader.name == "b"
        assert took < 0.1
        assert c.leaders == {1: "b"}


def test_a_first_start_without_the_preferred_replicas_vote_still_elects() -> None:
    c = Cluster("abc")
    c.isolate("a")
    # Whether the others know yet that nobody has state decides who goes first; one of them does.
    c.flow(0.01)
    c.held.clear()
    c.until(lambda: c.leader is not None, limit_s=2.0)


def test_a_partitioned_node_that_asks_with_the_longest_log_is_refused_while_there_is_a_leader() -> (
    None
):
    """Leader stickiness (dissertation 4.2.3): what decides is whether a leader is heard."""
    c = Cluster()
    c.elect("a")
    last, term = c["b"].journal.last_index, c["b"].term
    c.sent.clear()
    c["c"].group.on_message("b", wire.PreVote(GROUP, term, last + 100, term))
    c["a"].group.on_message("b", wire.PreVote(GROUP, term, last + 100, term))
    c.turn()
    assert not c.count_sent("c", "b", wire.PreVoteGranted)
    assert not c.count_sent("a", "b", wire.PreVoteGranted)


def test_a_pre_vote_goes_only_to_a_log_that_is_long_enough() -> None:
    """Raft section 5.4.1, asked in advance."""
    c = Cluster()
    c.elect("a")
    c.write("a", b"x")
    c.converge()
    c.crash("a")
    last, last_term, term = c["c"].journal.last_index, c["c"].journal.last_term, c["c"].term
    asked = [
        (last - 1, last_term, False),
        (last + 9, last_term - 1, False),
        (last, last_term, True),
        (1, last_term + 1, True),
    ]
    for index, index_term, granted in asked:
        c.sent.clear()
        c["c"].group.on_message("b", wire.PreVote(GROUP, term, index, index_term))
        c.turn()
        assert bool(c.count_sent("c", "b", wire.PreVoteGranted)) is granted


def test_a_pre_vote_changes_nothing_where_it_is_asked() -> None:
    c = Cluster()
    c.elect("a")
    c.crash("a")
    before = (c["c"].term, c["c"].journal.getVotedForNodeId())
    last, last_term = c["c"].journal.last_index, c["c"].journal.last_term
    c["c"].group.on_message("b", wire.PreVote(GROUP, before[0] + 7, last, last_term))
    c.turn()
    assert (c["c"].term, c["c"].journal.getVotedForNodeId()) == before


def test_a_silent_leader_is_replaced_within_two_election_timeouts() -> None:
    c = Cluster(options=RaftOptions(election_timeout_s=0.4))
    c.elect("a")
    c.isolate("a")
    took = c.until(lambda: c["b"].leads or c["c"].leads)
    assert 0.3 < took < 0.4 * 2 + 0.4


def crash_with_b_behind(c: Cluster) -> None:
    """Of the two that are left, b goes first and lacks what c has."""
    c.elect("a")
    c.held = {("a", "b")}
    c.write("a", b"x")
    c.held.clear()
    c.crash("a")
    assert c["b"].journal.last_index < c["c"].journal.last_index


def test_who_refuses_a_shorter_log_stands_at_once() -> None:
    """The leader sends entries to some first, so that at a crash one is often behind."""
    c = Cluster()
    crash_with_b_behind(c)
    assert c.until(lambda: c["c"].leads) < CRASH_STAGGER_S
    assert c["b"].group.campaigns == 0
    c.until(lambda: c["b"].state == c["c"].state == [b"x"])


def test_who_refuses_a_shorter_log_stands_for_nothing_while_it_hears_a_leader() -> None:
    c = Cluster()
    c.elect("a")
    c.held = {("a", "b")}
    c.write("a", b"x")
    c["c"].group.on_message("b", wire.PreVote(GROUP, c["b"].term, c["b"].journal.last_index, 1))
    c.flow(0.05)
    assert c["c"].group.campaigns == 0 and c["a"].leads


def test_a_new_leader_has_a_follower_that_is_behind_catch_up_at_once() -> None:
    """PySyncObj alone would send what is missing with its next heartbeat."""
    c = Cluster(options=RaftOptions(heartbeat_s=0.4, election_timeout_s=2.0))
    crash_with_b_behind(c)
    c.until(lambda: c["c"].leads)
    assert c.until(lambda: c["c"].group.leader_ready) < 0.02


def test_a_lost_connection_between_followers_starts_nothing() -> None:
    c = Cluster()
    leader = c.elect("a")
    c.cut("b", "c")
    c.flow(2.0)
    assert leader.leads and c["b"].group.campaigns == c["c"].group.campaigns == 0


def test_a_leader_with_a_majority_stays() -> None:
    c = Cluster("abcde")
    leader = c.elect("a")
    c.isolate("d")
    c.isolate("e")
    c.flow(5.0)
    assert leader.leads and len(c.leaders) == 1


def test_a_leader_without_a_majority_leads_again_after_the_partition_heals() -> None:
    c = Cluster()
    c.elect("a")
    c.isolate("a")
    c.isolate("b")
    c.isolate("c")
    c.flow(3.0)
    assert c.leader is None
    assert {member.term for member in c.members.values()} == {1}
    for name in "abc":
        c.reconnect(name)
    c.until(lambda: c.leader is not None, limit_s=2.0)
    c.write(c.leader.name, b"x")  # type: ignore[union-attr]


def test_an_even_split_of_votes_is_resolved() -> None:
    """Raft section 5.2: randomized timeouts. Both candidates of a four-node group get two votes."""
    c = Cluster("abcd")
    c.elect("a")
    c.crash("a")
    c["b"].group.engine.campaign()
    c["c"].group.engine.campaign()
    c.turn()
    c.until(lambda: c.leader is not None, limit_s=3.0)


# -- transfer


def test_a_transfer_hands_over_within_a_few_milliseconds() -> None:
    """Dissertation 3.10. The target campaigns at once: no timeout passes."""
    c = Cluster()
    c.elect("a")
    c.write("a", b"x")
    c["a"].group.transfer("c")
    took = c.until(lambda: c["c"].leads)
    assert took < 0.02
    c.until(lambda: c["c"].group.leader_ready)
    assert not c["a"].leads and not c["a"].group.transferring
    c.write("c", b"y")
    c.converge()


def test_a_transfer_refuses_proposals_until_it_ends() -> None:
    """So that the target's log stays complete."""
    c = Cluster()
    c.elect("a")
    c["a"].group.transfer("c")
    assert not c["a"].group.accepts
    assert outcomes(c["a"].propose(b"x")) == [Outcome.NOT_APPLIED]
    c.until(lambda: c["c"].leads)


def test_what_was_proposed_before_a_transfer_is_applied() -> None:
    c = Cluster()
    c.elect("a")
    proposals = c["a"].propose(*[b"%d" % i for i in range(50)])
    c["a"].group.transfer("c")
    c.until(lambda: None not in outcomes(proposals))
    assert set(outcomes(proposals)) == {Outcome.APPLIED}
    c.until(lambda: c["c"].leads)


def test_a_transfer_without_a_target_picks_who_has_most_of_the_log() -> None:
    c = Cluster()
    c.elect("a")
    c.held = {("a", "b")}
    c["a"].propose(b"x")
    c.flow(0.05)
    c["a"].group.transfer(None)
    c.until(lambda: c["c"].leads)


def test_a_transfer_that_fails_ends_and_the_leader_goes_on() -> None:
    """S18: in PySyncObj a lost transfer leaves a flag that makes heartbeats useless."""
    c = Cluster(options=RaftOptions(election_timeout_s=0.4))
    leader = c.elect("a")
    c.held = {("a", "c")}
    c["a"].group.transfer("c")
    c.flow(0.05)
    c.held.clear()
    c.drop("a", "c", wire.TimeoutNow)
    took = c.until(lambda: leader.group.accepts)
    assert took <= 0.81
    c.write("a", b"x")
    c.flow(3.0)
    assert leader.leads and len(c.leaders) == 1


def test_an_order_to_campaign_counts_only_from_the_leader_of_this_term() -> None:
    c = Cluster()
    c.elect("a")
    term = c["b"].term
    for node, order in (
        ("c", wire.TimeoutNow(GROUP, term)),
        ("a", wire.TimeoutNow(GROUP, term - 1)),
        ("a", wire.TimeoutNow(GROUP, term + 1)),
    ):
        c["b"].group.on_message(node, order)
        c.turn()
    assert c["b"].term == term and c["b"].group.campaigns == 0


def test_a_closed_group_campaigns_no_more() -> None:
    c = Cluster()
    c.elect("a")
    member = c["b"]
    member.group.on_down("a")
    term = member.journal.getCurrentTerm()
    member.group.close()
    c.sent.clear()
    c.pass_time(0.5)
    assert member.journal.getCurrentTerm() == term
    assert not [m for s, _, m in c.sent if s == "b"]
