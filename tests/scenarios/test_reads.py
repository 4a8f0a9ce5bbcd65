"""What a read may return: S6; guarantee 9. Raft dissertation, section 6.4."""

from __future__ import annotations

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions
from tests.raft.harness import Cluster, Member, Read

from .story import cluster, scenario

LEASE = RaftOptions(lease_s=0.2, max_clock_drift=0.05)
LONG_LEASE = RaftOptions(lease_s=10.0, max_clock_drift=0.05)


def stale(read: Read, payload: bytes) -> bool:
    """Whether it returned a state without ``payload``, which was acknowledged before it began."""
    return read.confirmed is True and payload not in read.seen


def behind_its_back(c: Cluster) -> Member:
    """a leads and has applied ``old``. b and c see their connections to a close, elect one of
    them and commit ``new``; a notices nothing. Returns their leader."""
    c.elect("a")
    c.write("a", b"old")
    c.converge()
    for follower in "bc":
        c.hang_up(follower, "a")
    c.until(lambda: any(c[name].group.leader_ready for name in "bc"), limit_s=0.7)
    leader = c["b"] if c["b"].leads else c["c"]
    c.write(leader.name, b"new")
    assert c["a"].leads, "it does not know yet"
    return leader


@scenario("read-index")
def test_a_deposed_leader_that_does_not_know_it_answers_no_read(guarded: bool) -> None:
    """S6b: PySyncObj answers from what it has, for as long as half a minute. Only a majority can
    tell a leader that it is none."""
    c = cluster("abc", guarded=guarded)
    behind_its_back(c)
    read = c["a"].read()
    c.flow(0.05)
    assert stale(read, b"new") is not guarded
    if guarded:
        c.until(lambda: read.confirmed is False)


@scenario("read-rounds")
def test_a_read_is_not_answered_by_an_earlier_question(guarded: bool) -> None:
    """a has asked, and b has said yes; its answer is on the way while b and c elect another leader
    and commit ``new``. Only then does a read begin at a: the answer arrives, and is too old."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.write("a", b"old")
    c.converge()
    early = c["a"].read()
    c.deliver("a", "b")
    answers = c.pending("b", "a", wire.ProbeReply)
    for follower in "bc":
        c.hang_up(follower, "a")
    c.until(lambda: any(c[name].group.leader_ready for name in "bc"), limit_s=0.7)
    leader = c["b"] if c["b"].leads else c["c"]
    c.write(leader.name, b"new")
    assert c["a"].leads, "it does not know yet"
    late = c["a"].read()
    c["a"].group.on_message("b", answers[-1])
    c.turn()
    assert early.confirmed is True, "it may have seen the old state"
    assert stale(late, b"new") is not guarded


@scenario("own-term-reads")
def test_a_new_leader_answers_no_read_before_it_knows_what_was_acknowledged(guarded: bool) -> None:
    """Dissertation 6.4, step 1: before an entry of its own term is committed, its commit index may
    lag behind. a has acknowledged x; b has x, but not the news that it is committed, and leads."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.held = {("a", "c"), ("c", "a")}
    (proposal,) = c["a"].propose(b"x")
    c.deliver("a", "b")
    c.deliver("b", "a")
    assert proposal.outcome is Outcome.APPLIED and b"x" not in c["b"].state
    c.crash("a")
    c.held = set()
    c.until(lambda: c["b"].leads)
    assert not c["b"].group.leader_ready
    read = c["b"].read()
    # c follows b and says so, but its acknowledgement of b's log is late.
    c.deliver("b", "c")
    c.drop("c", "b", wire.AppendReply)
    c.until(lambda: read.confirmed is not None)
    assert stale(read, b"x") is not guarded


@scenario("lease-drift")
def test_a_lease_ends_before_the_promise_even_by_a_slow_clock(guarded: bool) -> None:
    """a's clock is 4.5 % slow. When it shows that ten seconds have passed, b and c have been free
    for 470 ms, which is enough to elect a leader and to commit."""
    c = cluster("abc", guarded=guarded, options=LONG_LEASE, rates={"a": 0.955})
    c.elect("a")
    c.write("a", b"old")
    c.converge()
    began = c.now
    read = c["a"].read(lease=True)
    c.until(lambda: read.confirmed is not None)
    c.flow(began + 9.95 - c.now)
    for follower in "bc":
        c.hang_up(follower, "a")
    c.until(lambda: any(c[name].group.leader_ready for name in "bc"))
    leader = c["b"] if c["b"].leads else c["c"]
    c.write(leader.name, b"new")
    assert c["a"].leads and c.now - began < 10.0 / 0.955
    assert stale(c["a"].read(lease=True), b"new") is not guarded


@scenario("lease-promise")
def test_nobody_is_elected_while_a_lease_holds(guarded: bool) -> None:
    """Even when the connection to the leader is seen to close. The lease is a majority's promise;
    nobody who made it votes."""
    c = cluster("abc", guarded=guarded, options=LEASE)
    c.elect("a")
    c.write("a", b"old")
    c.converge()
    read = c["a"].read(lease=True)
    c.until(lambda: read.confirmed is not None)
    for follower in "bc":
        c.hang_up(follower, "a")
    c.until(lambda: any(c[name].group.leader_ready for name in "bc"))
    leader = c["b"] if c["b"].leads else c["c"]
    c.write(leader.name, b"new")
    assert stale(c["a"].read(lease=True), b"new") is not guarded


@scenario("lease-restart")
def test_a_node_that_restarts_keeps_the_promise_that_it_has_forgotten(guarded: bool) -> None:
    """Promises are not on disk: whoever starts behaves as if it had just made one. b and c restart
    at once and elect one of them, while a, which hears of nothing, trusts them."""
    c = cluster("abc", guarded=guarded, durable=True, options=RaftOptions(lease_s=1.5))
    c.elect("a")
    c.write("a", b"old")
    c.converge()
    read = c["a"].read(lease=True)
    c.until(lambda: read.confirmed is not None)
    c.isolate("a")
    for name in "bc":
        c.members.pop(name).runtime.process.crash(True)
    for name in "bc":
        c.start(name, connect=False)
    c.join("b", "c")
    c.until(lambda: any(c[name].group.leader_ready for name in "bc"))
    leader = c["b"] if c["b"].leads else c["c"]
    c.write(leader.name, b"new")
    assert stale(c["a"].read(lease=True), b"new") is not guarded


@scenario("lease-transfer")
def test_a_leader_that_hands_over_gives_up_its_lease(guarded: bool) -> None:
    """The next leader is elected at any moment, by voters who need not keep their promise then. a
    asks b to take over, and hears no more."""
    c = cluster("abc", guarded=guarded, options=RaftOptions(lease_s=1.0))
    c.elect("a")
    c.write("a", b"old")
    c.converge()
    read = c["a"].read(lease=True)
    c.until(lambda: read.confirmed is not None)
    c["a"].group.transfer("b")
    c.turn()
    c.held = {("b", "a"), ("c", "a")}
    c.until(lambda: c["b"].group.leader_ready)
    c.write("b", b"new")
    assert c["a"].leads, "it does not know yet"
    assert stale(c["a"].read(lease=True), b"new") is not guarded


@scenario("follower-freshness")
def test_a_deposed_leader_makes_no_follower_fresh(guarded: bool) -> None:
    """Bounded staleness: e, which hears only a, asks it what a fresh state must have applied. The
    question goes through the leader's own barrier. Until e has been told, it is not fresh."""
    c = cluster("abcde", guarded=guarded)
    c.elect("a")
    c.write("a", b"old")
    c.converge()
    c.held = {(x, y) for x, y in c.queues if (x in "ae") != (y in "ae")}
    for follower in "bcd":
        c.hang_up(follower, "a")
    c.until(lambda: any(c[name].group.leader_ready for name in "bcd"), limit_s=0.5)
    leader = next(c[name] for name in "bcd" if c[name].leads)
    c.write(leader.name, b"new")
    assert c["a"].leads, "it does not know yet"
    read = c["e"].read_fresh(0.01)
    c.flow(0.05)
    assert stale(read, b"new") is not guarded, "as fresh as 10 ms ago, it was told"
