"""Starting again without a disk, or with an emptied one: S3; guarantee 6.

"Viewstamped Replication Revisited", section 4.3, with the crash vector of Michael et al. (DISC
2017): see ``raftcache.raft.recovery``. Clusters here are memory-only where nothing else is said.
"""

from __future__ import annotations

import pytest

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions
from tests.raft.harness import GROUP, Cluster, Proposal, outcomes

from .story import (
    TINY_LOG,
    alone,
    broke,
    campaign,
    cluster,
    lost,
    nothing_unsynced_survives,
    other_leader,
    scenario,
    slow_disk,
)

# -- guards


@scenario("diskless-recovery")
def test_a_node_without_its_memory_helps_nobody_to_forget(guarded: bool) -> None:
    """S3. a and b have x, which is acknowledged; c was away. b restarts with nothing, while a does
    not answer. Naively, b and c are a majority that knows nothing of x."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.isolate("c")
    proposals = c.write("a", b"x")
    term = c["a"].term
    c.crash("b")
    c.start("b")
    alone(c, "b", "c")
    c.flow(3.0)
    assert any(c[name].leads for name in "bc") is not guarded
    if guarded:
        assert c["b"].group.recovering, "it waits for a"
        c.heal()
        c.write(c.elect().name, b"y")
        c.converge()
        assert not lost(proposals, c["b"].state) and not c["b"].group.recovering
    else:
        survivor = c[other_leader(c, term)]
        c.write(survivor.name, b"y")
        assert lost(proposals, survivor.state) == [b"x"], "acknowledged, and gone"


def test_a_cluster_whose_followers_all_lost_their_memory_goes_on() -> None:
    """One after the other, with nothing written in between: what each acknowledges when it is back
    is no more than what it had acknowledged before, and yet the leader has to go on from there.
    (Found by the simulator: PySyncObj then asked for snapshots of both for ever.)"""
    c = cluster("abc", guarded=True, options=TINY_LOG)
    c.elect("a")
    for i in range(30):
        c.write("a", b"entry-%d" % i)
    c.converge()
    assert c["a"].journal.first_index > 2
    for name in "bc":
        c.crash(name)
        c.start(name)
        c.until(lambda name=name: not c[name].group.recovering)
        c.flow(0.3)
    c.write("a", b"last")
    c.converge()
    assert c["b"].state == c["a"].state


@scenario("diskless-recovery")
def test_a_node_without_its_memory_votes_in_no_term_a_second_time(guarded: bool) -> None:
    """S3. b leads by c's vote; c restarts with nothing; a, which heard nothing of that election,
    asks for c's vote in the same term."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.held = set(c.queues) - {("b", "c"), ("c", "b")}
    term = campaign(c, "b")
    c.deliver("b", "c")
    c.deliver("c", "b")
    assert c["b"].leads and c["b"].term == term
    c.held = set(c.queues)
    c.crash("c")
    c.until(lambda: not c["a"].leads)
    c.start("c", connect=False)
    c.join("a", "c")
    c.held -= {("a", "c"), ("c", "a")}
    c.flow(0.7)
    if c["a"].term < term:
        campaign(c, "a")
    c.flow(0.05)
    assert c["a"].term == term
    assert broke(c, "two leaders in term") is not guarded


@scenario("recovery-deaf")
def test_a_node_that_forgot_its_term_acknowledges_nothing_of_a_deposed_leader(
    guarded: bool,
) -> None:
    """Guarantee 6: deaf. b and c have moved on from a and have committed y; a does not know it. c
    restarts with nothing and reaches only a at first, whose entry at that same index it must not
    acknowledge."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.write("a", b"x")
    c.converge()
    for follower in "bc":
        c.hang_up(follower, "a")
    c.until(lambda: c["b"].group.leader_ready or c["c"].group.leader_ready)
    if c["c"].leads:
        c["c"].group.transfer("b")
        c.until(lambda: c["b"].group.leader_ready)
    ours = c.write("b", b"y")
    assert c["a"].leads, "it does not know yet"
    theirs = c["a"].propose(*[b"z-%d" % i for i in range(4)])
    c.crash("c")
    c.start("c", connect=False)
    c.join("a", "c")
    c.flow(0.2)
    assert (Outcome.APPLIED in outcomes(theirs)) is not guarded
    assert broke(c, "two commands at index") is not guarded
    if guarded:
        c.join("b", "c")
        c.join("a", "b")
        c.flow(1.0)
        c.write(c.elect().name, b"last")
        c.converge()
        assert not lost([*ours, *theirs], c["c"].state)


@scenario("crash-vector")
def test_a_vote_of_a_dead_incarnation_does_not_count(guarded: bool) -> None:
    """Why recovery alone is not enough. a is a candidate of the next term and has c's vote; then c
    restarts and recovers from b, d and e, who know nothing of that term. In it c votes for e, who
    leads by that; a needs one vote more, and b, who was not asked yet, gives it: c, c's ghost, and
    a. b's vote says that c has died since."""
    c = cluster("abcde", guarded=guarded)
    c.elect("b")
    c.isolate("a")
    for pair in c.queues:
        if "a" in pair:
            c.drop(*pair)
    term = campaign(c, "a")
    c.deliver("a", "c", 1)
    assert c["c"].journal.getVotedForNodeId() == "a"
    c.deliver("c", "a")
    assert not c["a"].leads, "two votes of five"

    # Its leader b was deposed by nobody: c starts again before it could say anything.
    c.crash("c")
    c.start("c", connect=False)
    for other in "bde":
        c.join(other, "c")
    c.until(lambda: not c["c"].group.recovering)
    assert c["c"].term < term
    c.join("a", "c")

    # e becomes a candidate of that term, too, with a log as long as any.
    c.held = set(c.queues)
    c.pass_time(0.25)  # c might have promised a lease before it died
    for pair in c.queues:
        c.drop(*pair)
    assert campaign(c, "e") == term
    for voter in "cd":
        c.deliver("e", voter)
        c.deliver(voter, "e")
    assert c["e"].leads

    # a's request reaches b at last.
    last, last_term = c["a"].journal.last_index, c["a"].journal.last_term
    c["b"].group.on_message("a", wire.RequestVote(GROUP, term, last, last_term, False))
    c.turn()
    assert c.pending("b", "a", wire.Vote)
    c.deliver("b", "a")
    assert c["a"].leads is not guarded
    assert broke(c, "two leaders in term") is not guarded


@scenario("recovered-vote")
def test_a_recovered_node_never_votes_again_in_the_term_it_entered(guarded: bool) -> None:
    """A durable node: its disk is replaced, it recovers, and restarts once more, normally. Its
    first incarnation may have voted in this term: c has, for b. The candidate here claims a log as
    long as b's: an honest one of this term cannot have it, which is a second line of defence."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    c["a"].group.transfer("b")
    c.until(lambda: c["b"].group.leader_ready)
    c.flow(0.1)
    term = c["b"].term
    votes = [m for s, t, m in c.sent if (s, t) == ("c", "b") and isinstance(m, wire.Vote)]
    assert any(vote.term == term for vote in votes)
    c.crash("c", power=True)
    c.disks["c"].wipe()
    c.start("c")
    assert c["c"].group.recovering
    c.until(lambda: not c["c"].group.recovering)
    c.crash("c", power=True)
    c.start("c")
    assert not c["c"].group.recovering, "nothing is missing this time"
    c.pass_time(0.3)  # promises of leases are over
    assert c["c"].term == term
    c.sent.clear()
    last = c["c"].journal.last_index
    c["c"].group.on_message("a", wire.RequestVote(GROUP, term, last + 1, term, False))
    c.pass_time(0.05)
    assert (c.count_sent("c", "a", wire.Vote) == 0) is guarded, "a second vote in one term"


@scenario("recovery-mark")
def test_what_an_interrupted_recovery_left_is_not_relied_on(guarded: bool) -> None:
    """A durable node whose disk was replaced dies while it recovers, and starts again. What it has
    by then is not all that it once acknowledged: b had x, has got back less, and must not decide
    with c, who never had x."""
    options = RaftOptions(max_append_bytes=30)
    c = cluster("abc", guarded=guarded, durable=True, options=options)
    c.elect("a")
    c.isolate("c")
    proposals = c.write("a", *[b"entry-%d" % i for i in range(10)])
    c.crash("b", power=True)
    c.disks["b"].wipe()
    c.start("b")
    # c answers b's questions, and still gets nothing from a.
    c.held = {("a", "c")}
    c.until(lambda: c["b"].term == c["a"].term)
    c.until(lambda: c["b"].journal.durable_index >= 1)
    term = c["a"].term
    c.isolate("a")
    c.pass_time(0.05)
    assert c["b"].group.recovering and c["b"].journal.last_index < c["a"].journal.last_index
    c.crash("b", power=True)
    c.start("b")
    c.isolate("a")
    c.flow(3.0)
    if guarded:
        assert not c["b"].leads and not c["c"].leads and c["b"].group.recovering
        c.heal()
        c.write(c.elect().name, b"y")
        c.converge()
        assert not lost(proposals, c["c"].state)
    else:
        survivor = c[other_leader(c, term)]
        c.write(survivor.name, b"y")
        assert lost(proposals, survivor.state), "acknowledged, and gone"


# -- the way back


def start_and_recover(c: Cluster, name: str) -> None:
    c.start(name)
    assert c[name].group.recovering
    c.until(lambda: not c[name].group.recovering)


@pytest.mark.parametrize("names", ["abc", "abcde"])
def test_any_minority_may_restart_at_any_time(names: str) -> None:
    """While writes go on; followers and leaders alike. Nothing acknowledged is lost, and whoever
    restarts has everything again."""
    for seed in range(8):
        c = Cluster(names, seed=seed)
        c.elect()
        draw = c.scheduler.generator("test")
        proposals: list[Proposal] = []
        minority = (len(names) - 1) // 2
        for _ in range(6):
            victims = draw.sample(names, draw.randint(1, minority))
            for victim in victims:
                proposals += _propose(c)
                c.flow(draw.choice([0.0, 0.001, 0.002, 0.01]))
                c.crash(victim)
            c.flow(draw.choice([0.0, 0.002, 0.05, 0.3]))
            for victim in victims:
                c.start(victim)
                proposals += _propose(c)
                c.flow(draw.choice([0.0, 0.002, 0.05]))
            c.until(lambda c=c: not any(m.group.recovering for m in c.members.values()))  # type: ignore[misc]
        c.write(c.elect().name, b"last")
        c.converge()
        for name in names:
            assert not lost(proposals, c[name].state), f"seed {seed}"
        assert len(set(c["a"].state)) == len(c["a"].state)
        assert sum(p.outcome is Outcome.APPLIED for p in proposals) > 5


def _propose(c: Cluster) -> list[Proposal]:
    """A write at whoever leads, if anybody does."""
    if c.leader is None or not c.leader.group.accepts:
        return []
    return c.leader.propose(b"%d" % len(c.sent))


def test_a_recovering_node_neither_votes_nor_campaigns_nor_acknowledges() -> None:
    """Deaf to all but recovery: c hears nobody who could tell it where it stands."""
    c = Cluster("abc")
    c.elect("a")
    c.write("a", b"x")
    c.crash("c")
    c.start("c")
    c.isolate("b")
    c.sent.clear()
    c.flow(0.3)
    last, term = c["a"].journal.last_index, c["a"].term
    for message in (
        wire.RequestVote(GROUP, term + 1, last, term, False),
        wire.RequestVote(GROUP, term + 1, last, term, True),
        wire.PreVote(GROUP, term, last, term),
        wire.TimeoutNow(GROUP, term),
        wire.Append(GROUP, term, 1, 0, 0, [], 0),
        wire.Probe(GROUP, term, 1, 100),
    ):
        c["c"].group.on_message("a", message)
    c.flow(2.0)
    kinds = {type(m) for s, _, m in c.sent if s == "c"}
    assert kinds <= {wire.RecoveryRequest, wire.RecoveryReply}
    assert c["c"].group.recovering and c["c"].group.campaigns == 0
    c.heal()
    c.until(lambda: not c["c"].group.recovering)


def test_recovery_waits_for_an_election_to_end() -> None:
    """No leader, no recovery: c's restart falls into an election between d and e."""
    c = Cluster("abcde")
    c.elect("a")
    proposals = c.write("a", b"x")
    c.crash("c")
    c.crash("a")
    c.start("c")
    assert c["c"].group.recovering
    term = max(member.term for member in c.members.values())
    other_leader(c, term)
    c.until(lambda: not c["c"].group.recovering)
    c.start("a")
    c.write(c.elect().name, b"y")
    c.converge()
    assert not lost(proposals, c["c"].state)


def test_recovery_begins_again_when_the_leader_changes_in_the_middle() -> None:
    """c knows where to go, and has not got there when its leader dies (five nodes, two away)."""
    c = Cluster("abcde", options=RaftOptions(max_append_bytes=30))
    c.elect("a")
    proposals = c.write("a", *[b"entry-%d" % i for i in range(30)])
    c.converge()
    c.crash("c")
    c.start("c")
    c.held = {("a", "c")}
    c.until(lambda: bool(c.pending("a", "c", wire.RecoveryReply)))
    while not c.pending("a", "c", wire.Append):
        c.deliver("a", "c", 1)
        c.hop()
    while c["c"].term != c["a"].term:
        c.deliver("a", "c", 1)
    assert c["c"].group.recovering
    term = c["a"].term
    c.crash("a")
    c.held.clear()
    other_leader(c, term)
    c.until(lambda: not c["c"].group.recovering)
    assert c["c"].term > term
    c.write(c.elect().name, b"y")
    c.converge()
    assert not lost(proposals, c["c"].state)


def test_a_durable_node_with_an_emptied_disk_recovers_from_the_others() -> None:
    for seed in range(5):
        c = Cluster("abc", durable=True, seed=seed)
        c.elect("a")
        proposals = c.write("a", *[b"entry-%d" % i for i in range(20)])
        c.converge()
        c.crash("b", power=True)
        c.disks["b"].wipe()
        start_and_recover(c, "b")
        # Its new disk counts: it survives a power failure of all.
        for name in "abc":
            c.crash(name, power=True)
        for name in "bc":
            c.start(name)
        c.write(c.elect().name, b"y")
        assert not lost(proposals, c["b"].state), f"seed {seed}"


def test_an_emptied_disk_is_relied_on_only_once_the_log_is_on_it() -> None:
    """Guarantee 4: b's new disk is slow; b is back only when it has synced."""
    c = Cluster("abc", durable=True)
    c.elect("a")
    c.write("a", b"x")
    c.converge()
    c.crash("b", power=True)
    c.disks["b"].wipe()
    slow_disk(c, "b", 0.3)
    nothing_unsynced_survives(c, "b")
    c.start("b")
    c.until(lambda: c["b"].journal.last_index == c["a"].journal.last_index)
    assert c["b"].group.recovering
    c.until(lambda: not c["b"].group.recovering)
    assert c["b"].journal.durable_index == c["a"].journal.last_index
    assert c["b"].journal.meta_durable


@pytest.mark.parametrize("names", ["abc", "abcde"])
def test_when_all_restart_at_once_they_start_anew(names: str) -> None:
    """There is nothing to recover, everybody says so, and the cluster serves; what was in it is
    lost, as a memory-only cluster must say to its user."""
    c = Cluster(names)
    c.elect()
    c.write(c.elect().name, b"x")
    for name in names:
        c.crash(name)
    c.decided.clear()
    c.leaders.clear()
    for name in names:
        c.start(name)
    c.write(c.elect().name, b"y")
    c.converge()
    assert c["a"].state == [b"y"]


def test_a_majority_that_restarts_at_once_waits_and_says_so() -> None:
    """More than was allowed: somebody may know more than all who are left. No answer is made up."""
    c = Cluster("abc")
    c.elect("a")
    c.write("a", b"x")
    c.converge()
    c.crash("a")
    c.crash("b")
    c.start("a")
    c.start("b")
    c.flow(3.0)
    assert c["a"].group.recovering and c["b"].group.recovering
    assert not any(member.leads for member in c.members.values())
