"""How proposals end: applied, surely not applied, or unknown; once, and never falsely.

PySyncObj reports failures for what may still happen, and sometimes nothing at all (S13, S19).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from raftcache.raft import wire
from raftcache.raft.group import APPLY_ENTRIES, Outcome, RaftGroup
from raftcache.raft.options import RaftOptions

from .harness import Cluster, Proposal, outcomes

TINY_LOG = RaftOptions(log_retention_bytes=200)


def test_an_applied_proposal_gets_the_state_machines_result() -> None:
    c = Cluster()
    leader = c.elect()
    proposal = Proposal(b"x")
    leader.group.propose(b"x", "a hint", proposal)
    c.until(lambda: proposal.outcome is not None)
    assert proposal.outcome is Outcome.APPLIED
    assert proposal.result == (leader.machine.index, "a hint")


def test_proposals_of_one_turn_keep_their_order() -> None:
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, *[b"%d" % i for i in range(100)])
    c.converge()
    assert c["b"].state == [b"%d" % i for i in range(100)]


def test_equal_proposals_are_told_apart() -> None:
    """Each is its own entry with its own result, even if it is the very same object."""
    c = Cluster()
    leader = c.elect()
    payload = b"the same"
    proposals = c.write(leader.name, payload, payload, payload)
    indexes = [proposal.result[0] for proposal in proposals]
    assert len(set(indexes)) == 3
    assert leader.state == [payload] * 3


def test_a_follower_refuses_a_proposal_at_once() -> None:
    c = Cluster()
    c.elect("a")
    assert outcomes(c["b"].propose(b"x")) == [Outcome.NOT_APPLIED]
    c.flow(0.2)
    assert c["a"].state == []


def test_a_proposal_before_the_first_leader_is_refused() -> None:
    c = Cluster()
    assert outcomes(c["a"].propose(b"x")) == [Outcome.NOT_APPLIED]


@pytest.mark.parametrize("leader_known", [True, False])
def test_leadership_lost_between_proposal_and_tick_is_surely_not_applied(
    leader_known: bool,
) -> None:
    """PySyncObj forwards such a command to the leader it knows, if any, and calls back whatever it
    hears or does not hear. Here it enters no log, and the proposer is told so."""
    c = Cluster()
    c.elect("a")
    proposal = Proposal(b"x")
    member = c["a"]
    member.group.propose(b"x", None, proposal)
    if leader_known:
        contact = {"type": "append_entries", "term": member.term + 1, "commit_index": 0}
        member.group.engine.deliver("b", contact)
    else:
        member.group.engine.step_down(member.term + 1)
    c.turn()
    assert proposal.outcome is Outcome.NOT_APPLIED
    c.elect()
    c.flow(0.5)
    assert b"x" not in c["b"].state


def deposed_with(c: Cluster, *payloads: bytes) -> list[Proposal]:
    """a leads, is cut off and proposes; somebody else leads by now."""
    c.elect("a")
    c.isolate("a")
    proposals = c["a"].propose(*payloads)
    term = c["a"].term
    c.until(lambda: c.leader is not None and c.leader.term > term and c.leader.group.leader_ready)
    assert outcomes(proposals) == [None] * len(payloads)
    return proposals


def test_a_truncated_proposal_is_open_until_its_index_is_committed() -> None:
    """The new leader's log ends before it: another entry at that index decides."""
    c = Cluster()
    proposals = deposed_with(c, *[b"lost-%d" % i for i in range(4)])
    c.reconnect("a")
    c.converge()
    decided = [outcome for outcome in outcomes(proposals) if outcome is not None]
    assert decided == [Outcome.NOT_APPLIED], "only the first index is taken, by the new leader's"
    leader = c.leader
    assert leader is not None
    c.write(leader.name, *[b"new-%d" % i for i in range(4)])
    c.converge()
    assert outcomes(proposals) == [Outcome.NOT_APPLIED] * 4


def test_a_truncated_proposal_that_its_proposer_overwrites_as_leader_is_unknown() -> None:
    """Cut off the log here, it may still be in another's, who may lead one day. Not so certainly
    dead as if its index were committed: unknown."""
    c = Cluster("abcde")
    c.elect("a")
    c.isolate("a")
    proposals = c["a"].propose(b"lost-1", b"lost-2", b"lost-3")
    term = c["a"].term
    c.until(lambda: c.leader is not None and c.leader.term > term and c.leader.group.leader_ready)
    c.reconnect("a")
    c.converge()
    c.elect("a")
    c.write("a", b"mine-1", b"mine-2", b"mine-3")
    c.converge()
    assert None not in outcomes(proposals)
    assert Outcome.APPLIED not in outcomes(proposals)


def test_a_cut_off_proposal_is_never_called_failed() -> None:
    """It stays open (its proposer has a deadline of its own), and may still be applied."""
    c = Cluster()
    c.elect("a")
    c.isolate("a")
    proposals = c["a"].propose(b"x")
    c.flow(5.0)
    assert outcomes(proposals) == [None]
    assert not c["a"].leads


def test_closing_ends_every_proposal() -> None:
    """In the log: unknown. Not in the log: surely not applied."""
    c = Cluster()
    c.elect("a")
    c.isolate("a")
    appended = c["a"].propose(b"x", b"y")
    submitted = Proposal(b"z")
    c["a"].group.propose(b"z", None, submitted)
    c["a"].group.close()
    assert outcomes(appended) == [Outcome.UNKNOWN] * 2
    assert submitted.outcome is Outcome.NOT_APPLIED
    c.turn()


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_no_proposal_ends_falsely_whatever_happens(seed: int, durable: bool) -> None:
    """The law behind all of the above, on random schedules of cuts, isolations, crashes and
    transfers: APPLIED is in every replica's state once, NOT_APPLIED in none. Without disks a
    minority may be down or recovering at a time."""
    c = Cluster("abcde" if seed % 3 == 0 else "abc", durable=durable, seed=seed, options=TINY_LOG)
    c.elect()
    spare = (len(c.names) - 1) // 2
    draw = c.scheduler.generator("test")
    proposals: list[Proposal] = []
    down: list[str] = []
    for step in range(150):
        for member in list(c.members.values()):
            if member.leads:
                proposals += member.propose(b"%d-%s" % (step, member.name.encode()))
        fault = draw.random()
        name = draw.choice(sorted(c.members))
        others = [other for other in c.members if other != name]
        away = len(down) + sum(member.group.recovering for member in c.members.values())
        if fault < 0.05 and (len(down) if durable else away) < spare:
            c.crash(name, power=draw.random() < 0.5)
            down.append(name)
        elif fault < 0.10 and down:
            c.start(down.pop())
        elif fault < 0.15:
            c.isolate(name)
        elif fault < 0.20:
            c.held.add((name, draw.choice(others)))
        elif fault < 0.30:
            c.cut(name, draw.choice(others))
        elif fault < 0.35:
            c[name].group.transfer(draw.choice(others))
        elif fault < 0.55:
            c.heal()
        c.flow(draw.choice([0.001, 0.005, 0.02, 0.1]))
    c.heal()
    while down:
        c.start(down.pop())
    c.elect()
    for name in c.members:
        c.reconnect(name)
    c.until(lambda: c.leader is not None and c.leader.group.accepts)
    c.write(c.elect().name, b"the end")
    c.converge()
    state = c["a"].state
    for proposal in proposals:
        count = state.count(proposal.payload)
        assert count <= 1
        if proposal.outcome is Outcome.APPLIED:
            assert count == 1, f"seed {seed}: {proposal.payload!r} acknowledged and lost"
        if proposal.outcome is Outcome.NOT_APPLIED:
            assert count == 0, f"seed {seed}: {proposal.payload!r} called failed, and applied"
    assert sum(p.outcome is Outcome.APPLIED for p in proposals) > 20


# -- the rest of the group


def test_a_group_of_one_waits_for_its_own_disk() -> None:
    """Nobody's acknowledgement stands between a lone leader and its disk."""
    c = Cluster("a", durable=True)
    c.until(lambda: c["a"].leads and c["a"].group.leader_ready)
    c.disks["a"].sync_seconds = (0.1, 0.1)
    (proposal,) = c["a"].propose(b"x")
    c.flow(0.05)
    assert proposal.outcome is None and c["a"].state == []
    c.until(lambda: proposal.outcome is Outcome.APPLIED)


def test_a_group_of_one_waits_for_no_timer() -> None:
    """PySyncObj commits at the start of a tick what it appends at the end of one."""
    c = Cluster("a")
    c.until(lambda: c["a"].leads and c["a"].group.leader_ready)
    (proposal,) = c["a"].propose(b"x")
    assert proposal.outcome is Outcome.APPLIED, "in the same moment"


def test_a_group_of_one_keeps_what_it_acknowledged() -> None:
    for seed in range(20):
        c = Cluster("a", durable=True, seed=seed)
        c.until(lambda c=c: c["a"].group.leader_ready)  # type: ignore[misc]
        proposals = []
        for i in range(10):
            proposals += c["a"].propose(b"%d" % i)
            c.flow(0.001)
        told = [p.payload for p in proposals if p.outcome is Outcome.APPLIED]
        c.crash("a", power=True)
        c.start("a")
        c.until(lambda c=c: c["a"].leads and c["a"].group.leader_ready)  # type: ignore[misc]
        assert c["a"].state[: len(told)] == told


def test_the_log_is_trimmed_but_for_what_a_connected_follower_needs() -> None:
    """One that lags a little gets entries; only one that lags a lot gets a snapshot."""
    c = Cluster(options=TINY_LOG)
    leader = c.elect("a")
    c.held = {("a", "c")}
    for i in range(40):
        c.write("a", b"%06d" % i)
    assert leader.journal.bytes > 200
    assert leader.journal.first_index <= leader.group.engine.match_index("c")
    c.held.clear()
    c.converge()
    assert leader.group.snapshots.sent == 0
    for i in range(40):
        c.write("a", b"%06d" % i)
    c.until(lambda: leader.journal.bytes <= 250)


def test_a_follower_that_is_away_holds_nothing_back() -> None:
    c = Cluster(options=TINY_LOG)
    leader = c.elect("a")
    c.crash("c")
    for i in range(100):
        c.write("a", b"%06d" % i)
    assert leader.journal.bytes <= 260


def test_a_message_that_is_no_groups_business_is_a_protocol_error() -> None:
    c = Cluster()
    c.elect()
    with pytest.raises(wire.WireError, match="unexpected Payload"):
        c["a"].group.on_message("b", wire.Payload(b"x"))  # type: ignore[arg-type]


def test_a_caught_up_follower_says_so() -> None:
    c = Cluster()
    c.elect("a")
    c.write("a", b"x")
    c.converge()
    c.flow(0.1)
    assert c["b"].group.caught_up and c["a"].group.caught_up
    c.held = {("a", "b")}
    c.write("a", b"y")
    c.deliver("a", "b", 1)
    assert c["b"].group.highest_commit >= c["b"].commit


def test_a_restarted_cluster_has_everything(seed: int = 3) -> None:
    c = Cluster(durable=True, seed=seed)
    leader = c.elect()
    c.write(leader.name, *[b"%d" % i for i in range(30)])
    for name in c.names:
        c.crash(name, power=True)
    for name in c.names:
        c.start(name)
    c.elect()
    c.converge()
    assert c["b"].state == [b"%d" % i for i in range(30)]


@pytest.mark.parametrize(
    ("payloads", "most"),
    [
        ([b"%d" % i for i in range(2500)], APPLY_ENTRIES),
        ([b"%d" % i * 150_000 for i in range(6)], 3),  # two of them, and a no-op
    ],
    ids=["many", "large"],
)
def test_a_long_log_is_applied_in_several_turns(payloads: list[bytes], most: int) -> None:
    """Others are heard in between: a leader that hears nobody steps down."""
    c = Cluster(durable=True)
    c.write(c.elect().name, *payloads)
    c.converge()
    for name in c.names:
        c.crash(name, power=True)
    turns: dict[str, list[int]] = {}
    for name in c.names:
        group = c.start(name).group
        turns[name] = applied = [group.applied_index]
        tick = group.engine.tick

        def counted(
            group: RaftGroup = group, applied: list[int] = applied, tick: Callable[[], None] = tick
        ) -> None:
            applied.append(group.applied_index)
            tick()

        group.engine.tick = counted  # type: ignore[method-assign]
    c.elect()
    c.converge()
    c.flow(0.1)
    for name, applied in turns.items():
        assert c[name].state == payloads
        applied.append(c[name].group.applied_index)
        assert applied[-1] - applied[0] >= len(payloads)
        assert max(after - before for before, after in pairwise(applied)) <= most


# -- turns for nothing


def test_a_follower_to_whom_nothing_happens_takes_no_turns() -> None:
    """An idle cluster costs its followers the heartbeats and no more; the leader still ticks."""
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, b"x")
    c.converge()
    ticks: list[str] = []
    for member in c.members.values():
        tick = member.group.engine.tick

        def counted(name: str = member.name, tick: Callable[[], None] = tick) -> None:
            ticks.append(name)
            tick()

        member.group.engine.tick = counted  # type: ignore[method-assign]
    term = leader.term
    c.flow(2.0)
    assert set(ticks) == {leader.name}
    assert leader.group.is_leader and leader.term == term
    c.write(leader.name, b"y")
    c.converge()
    assert set(ticks) == {member.name for member in c.members.values()}
    assert all(member.state == [b"x", b"y"] for member in c.members.values())


def test_a_follower_applies_with_the_message_that_says_what_is_committed() -> None:
    """Not at its next timer: a read of bounded staleness waits for it."""
    c = Cluster()
    leader = c.elect()
    follower = next(member for member in c.members.values() if member is not leader)
    c.write(leader.name, b"x")
    c.until(lambda: follower.group.engine.commit_index == leader.group.engine.commit_index)
    c.turn()
    assert follower.state == [b"x"]
