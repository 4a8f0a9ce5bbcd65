"""Stale, duplicate and premature messages stop at the transport.

The schedules are those by which PySyncObj 0.3.17 alone loses acknowledged writes (S1 to S22 of the
list of its defects). Where a guard can be taken away, a second run of the same schedule without it
shows the harm, so that these tests can fail.
"""

from __future__ import annotations

from typing import Any

import pytest

from raftcache.raft import wire
from raftcache.raft.engine import NO_OP
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions
from raftcache.raft.transport import GroupTransport

from .harness import GROUP, Cluster, Member, command, outcomes

SMALL_MESSAGES = RaftOptions(max_append_bytes=30)
TINY_LOG = RaftOptions(log_retention_bytes=200)


# -- without guards: messages go straight up


def count_any_reply(self: GroupTransport, node: str, message: wire.AppendReply) -> None:
    """As PySyncObj has it: an acknowledgement has no term."""
    self._up_reply(node, message.next_index, success=message.success, reset=message.reset)


def append_as_it_comes(self: GroupTransport, node: str, message: wire.Append) -> None:
    """As PySyncObj has it: everything after the previous entry is replaced."""
    up = {
        "type": "append_entries",
        "term": message.term,
        "commit_index": message.commit,
        "entries": [
            (pair[0], message.prev_index + 1 + i, pair[1]) for i, pair in enumerate(message.entries)
        ],
        "prevLogIdx": message.prev_index,
        "prevLogTerm": message.prev_term,
    }
    self.engine.deliver(node, up)


def count_any_vote(self: GroupTransport, node: str, message: wire.Vote) -> None:
    """As PySyncObj has it: votes are counted, not voters."""
    self.engine.deliver(node, {"type": "response_vote", "term": message.term})


# -- guarantee 1: acknowledgements


@pytest.mark.parametrize("guarded", [True, False])
def test_an_acknowledgement_of_an_earlier_term_does_not_count(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1. Five nodes, one slow direction (e to a). In term 1 only e stores a's entries; its
    acknowledgements stay on the way. Another leader overwrites them; a leads again and counts d,
    and then the late e, who has nothing of the new term: a majority that does not exist."""
    c = Cluster("abcde")
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
    for i in range(highest - base + 1):
        proposals += c["a"].propose(b"y%d" % i)
    c.flow(0.03)
    assert c["a"].commit <= base

    if not guarded:
        monkeypatch.setattr(GroupTransport, "on_append_reply", count_any_reply)
        handlers = c["a"].group._handlers
        handlers[wire.AppendReply] = c["a"].group._transport.on_append_reply
    while c.pending("e", "a") and c.pending("e", "a")[0].term == first_term:
        c.deliver("e", "a", 1)
    c.pass_time(0.001)
    counted = c["a"].commit > base
    assert counted is not guarded
    assert (Outcome.APPLIED in outcomes(proposals)) is not guarded


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


def entries_sent(c: Cluster, source: str, target: str) -> list[int]:
    """The index of every entry sent from ``source`` to ``target``, in order."""
    return [
        message.prev_index + 1 + i
        for s, t, message in c.sent
        if (s, t) == (source, target) and isinstance(message, wire.Append)
        for i in range(len(message.entries))
    ]


def test_nothing_is_sent_twice_on_a_connection() -> None:
    """S2, the sender's half: PySyncObj rewinds to the acknowledged index at every acknowledgement
    and sends again what is on its way."""
    c = Cluster(options=SMALL_MESSAGES)
    assert c.elect().name == "a"
    c.sent.clear()
    for round_ in range(20):
        c["a"].propose(*[b"%03d-%d" % (round_, i) for i in range(6)])
        if round_ % 3 == 0:
            c.hop()
        elif round_ % 3 == 1:
            c.deliver("a", "b", 2)
            c.deliver("b", "a", 1)
    c.converge()
    for follower in "bc":
        sent = entries_sent(c, "a", follower)
        assert sent == sorted(set(sent)), "sent twice or out of order"
        assert len(sent) == 120


def test_runs_of_entries_are_split_into_messages_of_bounded_size() -> None:
    c = Cluster(options=RaftOptions(max_append_bytes=1000))
    assert c.elect().name == "a"
    c.sent.clear()
    c["a"].propose(*[b"x" * 300 for _ in range(20)])
    messages = [m for s, t, m in c.sent if (s, t) == ("a", "b") and isinstance(m, wire.Append)]
    assert len(messages) > 1
    assert all(sum(len(e[0]) for e in m.entries) <= 1000 for m in messages)
    c.converge()


@pytest.mark.parametrize("guarded", [True, False])
def test_a_late_append_removes_nothing_that_matches(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2, the receiver's half; Raft section 5.3: "if an existing entry conflicts with a new one",
    and only then, is anything deleted. An append that was overtaken (here: delivered a second time)
    finds its entries and more. Without the guard b forgets entries whose commit a has counted."""
    c = Cluster(options=SMALL_MESSAGES)
    assert c.elect().name == "a"
    c.held = {("a", "c"), ("c", "a")}
    c["a"].propose(*[b"entry-%d" % i for i in range(6)])
    appends = c.pending("a", "b", wire.Append)
    assert len([m for m in appends if m.entries]) >= 3
    c.flow(0.01)
    full = c["b"].log
    assert c["a"].commit == c["a"].journal.last_index, "a and b are a majority"

    if not guarded:
        monkeypatch.setattr(GroupTransport, "on_append", append_as_it_comes)
        c["b"].group._handlers[wire.Append] = c["b"].group._transport.on_append
    c["b"].group.on_message("a", appends[0])
    c.turn()
    assert (c["b"].log == full) is guarded


def test_an_append_never_replaces_a_committed_entry() -> None:
    """Leader completeness (Raft section 5.4.3) makes it impossible; a peer that sends it breaks the
    protocol, and its connection is closed."""
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, b"x", b"y")
    c.converge()
    follower = c["b"]
    before, commit, term = follower.log, follower.commit, follower.term
    at = commit - 1
    wrong = [(command(b"z"), term + 1)]
    before_term = follower.journal.term_at(at - 1)
    assert before_term is not None
    with pytest.raises(wire.WireError, match="committed"):
        follower.group.on_message(
            "a", wire.Append(GROUP, term + 1, at - 1, before_term, commit, wrong)
        )
    with pytest.raises(wire.WireError, match="committed"):
        follower.group.on_message("a", wire.Append(GROUP, term + 1, at, term + 1, commit, []))
    assert follower.log == before


def test_only_noops_and_our_own_commands_enter_a_log() -> None:
    """S11, S16: PySyncObj unpickles regular commands and obeys membership entries of any leader."""
    c = Cluster()
    c.elect()
    follower = c["b"]
    last, term, before = follower.journal.last_index, follower.term, follower.log
    for kind in (b"", b"\x00", b"\x02", b"\x03", b"\x41", NO_OP + b"more"):
        append = wire.Append(GROUP, term, last, term, 0, [(kind + b"...", term)])
        with pytest.raises(wire.WireError, match="command of type"):
            follower.group.on_message("a", append)
    assert follower.log == before


def divergent(options: RaftOptions, tail: int, entries: list[bytes]) -> Cluster:
    """a leads, is cut off and appends ``tail`` entries that nobody gets; b or c leads and commits
    ``entries``; then leadership changes once more, so that the new leader knows nothing of a."""
    c = Cluster(options=options)
    assert c.elect().name == "a"
    c.isolate("a")
    for i in range(tail):
        c["a"].propose(b"lost-%d" % i)
    term = c["a"].term
    c.until(lambda: c.leader is not None and c.leader.term > term and c.leader.group.leader_ready)
    leader = c.leader
    assert leader is not None
    c.write(leader.name, *entries)
    other = "c" if leader.name == "b" else "b"
    leader.group.transfer(other)
    c.until(lambda: c[other].leads and c[other].group.leader_ready)
    c.reconnect("a")
    return c


def test_a_divergent_follower_is_corrected_in_a_few_round_trips() -> None:
    """S20: PySyncObj backs up one entry per heartbeat. The answer to a conflict names the first
    index of the conflicting term (Raft section 5.3, end)."""
    c = divergent(RaftOptions(), 50, [b"small-%d" % i for i in range(52)])
    took = c.until(lambda: len(c["a"].state) == 52)
    assert took < 0.4, "a few heartbeats, where one entry each would take fifty"
    c.converge()


def test_a_divergent_follower_catches_up_over_many_messages() -> None:
    """S21: the messages that follow the one that conflicted must not overrule its answer: PySyncObj
    obeys the last answer, and sends the same for ever."""
    options = RaftOptions(max_append_bytes=20_000)
    c = divergent(options, 50, [b"%04d" % i * 2_500 for i in range(52)])
    c.sent.clear()
    leader = c.leader
    assert leader is not None
    took = c.until(lambda: len(c["a"].state) == 52)
    assert took < 0.4
    sent = entries_sent(c, leader.name, "a")
    assert len(sent) <= 3 * 60, f"{len(sent)} entries sent for about 60 that were missing"
    c.converge()


@pytest.mark.parametrize("size", [70_000, 131_072 - 60, 1_000_000, 5_000_000])
def test_a_large_entry_arrives_whole_and_at_once(size: int) -> None:
    """S14: PySyncObj pickles entries beyond its batch size and mistakes the last piece."""
    c = Cluster()
    assert c.elect().name == "a"
    payload = b"\xff\x00\x80" * (size // 3)
    c.sent.clear()
    c.write("a", b"before", payload, b"after")
    c.converge()
    assert c["b"].state == [b"before", payload, b"after"]
    assert len(entries_sent(c, "a", "b")) == 3


# -- guarantee 3: votes


@pytest.mark.parametrize("guarded", [True, False])
def test_a_vote_counts_once_per_voter(guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """S5. Raft section 5.2: a candidate wins by votes from a majority of the *servers*. b's vote,
    seen twice, is one vote of the three that a needs."""
    if not guarded:
        monkeypatch.setattr(GroupTransport, "on_vote", count_any_vote)
    c = Cluster("abcde")
    c.elect()
    candidate, voter = ("b", "c") if c["a"].leads else ("a", "b")
    c[candidate].group.engine.campaign()
    c.turn()
    c.deliver(candidate, voter)
    (vote,) = c.pending(voter, candidate, wire.Vote)
    for _ in range(3):
        c[candidate].group.on_message(voter, vote)
        c.turn()
    assert c[candidate].leads is not guarded
    if guarded:
        c.deliver(candidate, "d")
        c.deliver("d", candidate)
        assert c[candidate].leads


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


def test_a_stranger_is_not_heard() -> None:
    """S22, S11: nothing of a node that is not a replica of this group reaches PySyncObj, where a
    late acknowledgement of a removed node raises KeyError."""
    c = Cluster()
    leader = c.elect()
    term = leader.term
    strange: list[Any] = [
        wire.AppendReply(GROUP, term, 2, True, False),
        wire.Vote(GROUP, term, {}),
        wire.RequestVote(GROUP, term + 10, 99, term, False),
        wire.Append(GROUP, term + 10, 1, 0, 0, []),
        wire.TermNotice(GROUP, term + 10),
    ]
    for message in strange:
        with pytest.raises(wire.WireError, match="not a replica"):
            leader.group.on_message("z", message)
        with pytest.raises(wire.WireError, match="not a replica"):
            leader.group.on_message(leader.name, message)
    c.turn()
    assert leader.leads and leader.term == term


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
    c["c"].group.on_message("b", wire.Append(GROUP, term + 1, last, last_term, 0, []))
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


def test_a_request_for_votes_waits_for_the_candidates_own_vote() -> None:
    c = Cluster(durable=True)
    c.elect()
    slow_disk(c, "b")
    c["b"].group.engine.campaign()
    c.turn()
    c.flow(0.1)
    assert not c.count_sent("b", "c", wire.RequestVote)
    c.flow(0.15)
    assert c.count_sent("b", "c", wire.RequestVote) == 1


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


def test_acknowledged_writes_survive_a_power_failure_of_everybody() -> None:
    """Guarantees 2 to 4 together: whatever was un-synced is lost, everywhere, at any moment."""
    for seed in range(30):
        c = Cluster(durable=True, seed=seed)
        c.elect()
        draw = c.scheduler.generator("test")
        proposals = []
        for i in range(10):
            leader = c.leader
            if leader is not None:
                proposals += leader.propose(b"%d" % i)
            c.flow(draw.choice([0.001, 0.002, 0.004]))
        before = [p.payload for p in proposals if p.outcome is Outcome.APPLIED]
        for name in c.names:
            c.crash(name, power=True)
        for name in c.names:
            c.start(name)
        c.elect()
        c.converge()
        assert [x for x in c["a"].state if x in before] == before, f"seed {seed}"


def test_without_the_gate_a_power_failure_loses_acknowledged_writes() -> None:
    """The same, with journals that call durable what they were only given: the harm is seen."""
    lost = 0
    for seed in range(30):
        c = Cluster(durable=True, seed=seed)
        c.elect()
        for member in c.members.values():
            _pretend_durable(member)
        proposals = c["a"].propose(b"x") if c["a"].leads else []
        c.flow(0.004)
        told = [p for p in proposals if p.outcome is Outcome.APPLIED]
        for disk in c.disks.values():
            disk.sync_seconds = (0.05, 0.05)
        for name in c.names:
            c.crash(name, power=True)
        for name in c.names:
            c.start(name)
        c.decided.clear()
        c.elect()
        c.flow(0.3)
        lost += bool(told) and c["a"].state != [b"x"]
    assert lost > 0


def _pretend_durable(member: Member) -> None:
    journal = member.journal
    add = journal.add

    def lying(command: bytes, idx: int, term: int) -> None:
        add(command, idx, term)
        journal.durable_index = idx

    journal.add = lying  # type: ignore[method-assign]
    member.cluster.disks[member.name].sync_seconds = (0.05, 0.05)
