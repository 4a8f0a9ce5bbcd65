"""Stale, duplicate and premature messages stop at the transport.

The schedules by which PySyncObj alone loses acknowledged writes, told with each guard and without
it, are in ``tests/scenarios``.
"""

from __future__ import annotations

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions

from .harness import GROUP, Cluster

# -- guarantee 1: acknowledgements


def test_an_acknowledgement_from_an_old_connection_is_lost_with_it() -> None:
    """What a follower has stored counts from what it says on the connection that is up now."""
    c = Cluster()
    assert c.elect().name == "a"
    c.held = {("b", "a"), ("a", "c"), ("c", "a")}
    (proposal,) = c["a"].propose(b"x")
    c.flow(0.01)
    assert c.pending("b", "a", wire.AppendReply)
    c.join("a", "b")
    assert not c.pending("b", "a", wire.AppendReply)
    assert proposal.outcome is None
    c.held.clear()
    c.until(lambda: proposal.outcome is Outcome.APPLIED)


def test_an_acknowledgement_beyond_the_leaders_own_log_is_ignored() -> None:
    c = Cluster()
    leader = c.elect()
    commit, last = leader.commit, leader.journal.last_index
    reply = wire.AppendReply(GROUP, leader.term, last + 100, True, False)
    leader.group.on_message("b", reply)
    c.turn()
    assert leader.commit == commit
    assert leader.group.engine.match_index("b") <= last


# -- guarantee 2: appends


def test_entries_that_were_refused_are_sent_anew_at_once_but_not_for_every_refusal() -> None:
    """All that was under way is refused, one message after the other."""
    c = Cluster()
    leader = c.elect("a")
    c.write("a", b"x")
    c.converge()
    c.flow(1.0)
    refusal = wire.AppendReply(GROUP, leader.term, leader.journal.last_index, False, True, True)

    def sent_anew() -> int:
        """How often, when b refuses five times."""
        c.sent.clear()
        for _ in range(5):
            leader.group.on_message("b", refusal)
        appends = [m for _, t, m in c.sent if t == "b" and isinstance(m, wire.Append)]
        return sum(len(message.entries) for message in appends)

    assert sent_anew() == 1
    assert sent_anew() == 0
    c.flow(c.options.heartbeat_s)
    assert sent_anew() == 1


def test_runs_of_entries_are_split_into_messages_of_bounded_size() -> None:
    c = Cluster(options=RaftOptions(max_append_bytes=1000))
    assert c.elect().name == "a"
    c.sent.clear()
    c["a"].propose(*[b"x" * 300 for _ in range(20)])
    messages = [m for s, t, m in c.sent if (s, t) == ("a", "b") and isinstance(m, wire.Append)]
    assert len(messages) > 1
    assert all(sum(len(e[0]) for e in m.entries) <= 1000 for m in messages)
    c.converge()


# -- guarantee 3: votes


def test_a_vote_of_an_earlier_term_does_not_count() -> None:
    c = Cluster()
    c.elect()
    c["b"].group.engine.campaign()
    c.turn()
    c.drop("b", "a")
    c.drop("b", "c")
    c["b"].group.engine.campaign()
    for voter in "ac":
        c["b"].group.on_message(voter, wire.Vote(GROUP, c["b"].term - 1, {}))
    c.turn()
    assert not c["b"].leads


# -- guarantee 4: durability


def slow_disk(c: Cluster, name: str, seconds: float = 0.2) -> None:
    c.disks[name].sync_seconds = (seconds, seconds)


def acknowledged(c: Cluster, source: str, target: str) -> int:
    """The highest index that ``source`` has ever told ``target`` it holds."""
    replies = [
        m.next_index - 1
        for s, t, m in c.sent
        if (s, t) == (source, target) and isinstance(m, wire.AppendReply) and m.success
    ]
    return max(replies, default=0)


def test_an_acknowledgement_waits_for_the_followers_disk() -> None:
    """S4g. Raft figure 2: "updated on stable storage before responding to RPCs"."""
    c = Cluster(durable=True)
    assert c.elect().name == "a"
    slow_disk(c, "b")
    slow_disk(c, "c")
    (proposal,) = c["a"].propose(b"x")
    index = c["a"].journal.last_index
    c.flow(0.1)
    assert c["b"].journal.last_index == index, "it is in the follower's log"
    assert acknowledged(c, "b", "a") < index
    assert proposal.outcome is None
    c.flow(0.15)
    assert c["b"].journal.durable_index == index
    assert acknowledged(c, "b", "a") == index
    assert proposal.outcome is Outcome.APPLIED


def test_an_acknowledgement_counts_only_once_the_leaders_own_disk_has_the_entry() -> None:
    """The leader counts itself for every entry it appends; so others count only as far as that is
    true. It replicates meanwhile: the disks work at the same time."""
    c = Cluster(durable=True)
    assert c.elect().name == "a"
    slow_disk(c, "a")
    (proposal,) = c["a"].propose(b"x")
    index = c["a"].journal.last_index
    c.flow(0.1)
    assert acknowledged(c, "b", "a") == acknowledged(c, "c", "a") == index
    assert c["a"].commit < index and proposal.outcome is None
    c.flow(0.15)
    assert proposal.outcome is Outcome.APPLIED


def test_an_acknowledgement_waits_until_its_term_is_durable() -> None:
    """Raft figure 2: currentTerm is persistent state, too. The entries are on disk already."""
    c = Cluster(durable=True)
    c.elect("a")
    c.flow(0.1)
    slow_disk(c, "c")
    c.isolate("a")
    term, last, last_term = c["c"].term, c["c"].journal.last_index, c["c"].journal.last_term
    c.sent.clear()
    c["c"].group.on_message("b", wire.Append(GROUP, term + 1, last, last_term, 0, [], 0))
    c.pass_time(0.1)
    assert not c.count_sent("c", "b", wire.AppendReply)
    c.pass_time(0.15)
    assert c.count_sent("c", "b", wire.AppendReply)


def test_a_vote_waits_for_the_disk() -> None:
    """S4a. A voter that could forget its vote could vote twice in a term (Raft section 5.2)."""
    c = Cluster(durable=True)
    c.elect()
    slow_disk(c, "c")
    c["b"].group.engine.campaign()
    c.turn()
    c.flow(0.01)
    assert not c.count_sent("c", "b", wire.Vote)
    assert c["c"].journal.getVotedForNodeId() == "b"
    c.flow(0.25)
    assert c.count_sent("c", "b", wire.Vote) == 1


def test_what_was_held_for_the_disk_is_void_in_another_term() -> None:
    """Held acknowledgements and votes carry the term in which they were given."""
    c = Cluster(durable=True)
    assert c.elect().name == "a"
    slow_disk(c, "c", 0.1)
    c["b"].group.engine.campaign()
    c.pass_time(0.01)
    assert c.pending("b", "c", wire.RequestVote)
    c.deliver("b", "c")
    voted_in = c["c"].term
    assert c["c"].journal.getVotedForNodeId() == "b"
    c["c"].group.on_message("a", wire.TermNotice(GROUP, voted_in + 5))
    c.held = {("c", "b"), ("b", "c"), ("a", "c"), ("c", "a")}
    c.flow(0.3)
    assert not [m for m in c.pending("c", "b", wire.Vote) if m.term == voted_in]


# -- what is new


def test_what_is_appended_leaves_in_the_same_turn_and_its_commit_with_what_follows() -> None:
    c = Cluster()
    leader = c.elect("a")
    c.write("a", b"race")
    c.converge()
    c.flow(0.5)
    c.sent.clear()
    for number in range(10):
        (proposal,) = leader.propose(b"%d" % number)
        c.turn()
        bring = [m for _, _, m in c.sent if isinstance(m, wire.Append) and m.entries]
        assert bring, "an entry waits for no heartbeat"
        c.until(lambda proposal=proposal: proposal.outcome is Outcome.APPLIED)
        c.flow(0.0)
        c.sent.clear()
    index = leader.journal.last_index
    assert c["b"].commit < index or c["c"].commit < index
    c.converge()


def test_who_comes_back_gets_at_once_what_it_missed() -> None:
    c = Cluster()
    leader = c.elect("a")
    c.isolate("c")
    for number in range(5):
        c.write("a", b"%d" % number)
    c.flow(0.5)
    c.reconnect("c")
    c.held = set()
    came_back = c.now
    c.until(lambda: c["c"].journal.last_index == leader.journal.last_index)
    assert c.now - came_back < RaftOptions().heartbeat_s / 4
    c.converge()


def test_a_leader_that_was_one_before_sends_what_is_new_though_its_log_was_longer_then() -> None:
    """What was offered counts for its term only."""
    c = Cluster()
    c.elect("a")
    c.isolate("a")
    c["a"].propose(*[b"lost-%d" % i for i in range(9)])
    term = c["a"].term
    c.until(lambda: c.leader is not None and c.leader.term > term and c.leader.group.leader_ready)
    assert c.leader is not None
    c.write(c.leader.name, b"kept")
    c.reconnect("a")
    c.held = set()
    c.converge()
    again = c.elect("a")
    c.sent.clear()
    (proposal,) = again.propose(b"new")
    c.turn()
    assert [m for _, _, m in c.sent if isinstance(m, wire.Append) and m.entries]
    c.until(lambda: proposal.outcome is Outcome.APPLIED)
    c.converge()
