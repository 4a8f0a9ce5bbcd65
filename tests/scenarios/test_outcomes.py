"""How a proposal ends: S12, S13, S19; guarantee 10."""

from __future__ import annotations

from typing import Any

import pytest

from raftcache.raft.group import Outcome
from tests.raft.harness import Cluster, ListMachine, outcomes

from .story import TINY_LOG, cluster, construction, lost, other_leader, scenario


@scenario("outcome-term")
def test_no_proposal_is_applied_by_another_ones_entry(guarded: bool) -> None:
    """S19: PySyncObj matches answers by a number that starts at 0 again, and reports SUCCESS for a
    command in no log. a appends at the index at which b's entry is committed later."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.isolate("a")
    proposals = c["a"].propose(b"mine-1", b"mine-2")
    leader = other_leader(c, c["a"].term)
    c.write(leader, b"x", b"y")
    c.reconnect("a")
    c.converge()
    if guarded:
        assert outcomes(proposals) == [Outcome.NOT_APPLIED] * 2
    assert bool(lost(proposals, c["b"].state)) is not guarded, "acknowledged, and in no log"


@scenario("outcome-unknown")
def test_no_proposal_is_called_failed_and_applied_later(guarded: bool) -> None:
    """S13: PySyncObj says LEADER_CHANGED for what the next leader goes on to commit. b and c have
    x; their acknowledgements do not reach a, which is deposed."""
    c = cluster("abc", guarded=guarded)
    c.elect("a")
    c.held = {("b", "a"), ("c", "a")}
    proposals = c["a"].propose(b"x")
    c.flow(0.01)
    term = c["a"].term
    c.isolate("a")
    other_leader(c, term)
    c.until(lambda: not c["a"].leads)
    told = outcomes(proposals)
    c.reconnect("a")
    c.held.clear()
    c.converge()
    assert b"x" in c["b"].state
    assert (told == [Outcome.NOT_APPLIED]) is not guarded, "surely not applied, it was told"
    if guarded:
        assert outcomes(proposals) == [Outcome.APPLIED]


@scenario("outcome-snapshot")
def test_a_proposal_that_a_snapshot_covers_ends(guarded: bool) -> None:
    """S13: PySyncObj never calls back. The entries that would tell are gone: unknown."""
    c = cluster("abc", guarded=guarded, options=TINY_LOG)
    c.elect("a")
    c.isolate("a")
    proposals = c["a"].propose(b"lost-1", b"lost-2")
    leader = c[other_leader(c, c["a"].term)]
    for i in range(100):
        c.write(leader.name, b"entry-%d" % i)
    c.until(lambda: leader.journal.first_index > 10)
    c.reconnect("a")
    c.converge()
    assert c["a"].group.snapshots.received == 1
    c.flow(1.0)
    assert outcomes(proposals) == [Outcome.UNKNOWN if guarded else None] * 2, "a hang"


@construction("own-forwarding")
def test_nothing_is_proposed_or_answered_through_pysyncobj() -> None:
    """S13, S19. A follower refuses at once; whoever loses leadership between a submission and its
    tick is told that it is in no log. PySyncObj's own requests never become messages, so that there
    is no answer of its own to be mistaken."""
    c = Cluster("abc")
    c.elect("a")
    assert outcomes(c["b"].propose(b"x")) == [Outcome.NOT_APPLIED]
    c["a"].group.propose(b"y", None, lambda outcome, _: told.append(outcome))
    told: list[Outcome] = []
    contact = {"type": "append_entries", "term": c["a"].term + 1, "commit_index": 0}
    c["a"].group.engine.deliver("b", contact)
    sent = len(c.sent)
    c.turn()
    assert told == [Outcome.NOT_APPLIED]
    c.flow(0.5)
    assert sent < len(c.sent)
    assert not any(p in member.state for p in (b"x", b"y") for member in c.members.values())


@construction("applied-once")
def test_an_exception_applies_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """S12: PySyncObj counts an entry as applied after the callback, so that one that raises is
    applied again at every tick. The state machine never raises; were it to, or a proposer's
    callback, the entry counts as applied all the same, and the next ones follow."""
    c = Cluster("abc", crippled=True)
    c.elect("a")
    apply, calls = ListMachine.apply, list[bytes]()

    def bad(self: ListMachine, index: int, payload: memoryview, hint: Any) -> Any:
        calls.append(bytes(payload))
        result = apply(self, index, payload, hint)
        if bytes(payload) == b"bad":
            raise ZeroDivisionError
        return result

    monkeypatch.setattr(ListMachine, "apply", bad)

    def done(_outcome: Outcome, _result: Any) -> None:
        raise ZeroDivisionError

    c["a"].group.propose(b"good", None, done)
    c["a"].propose(b"bad", b"last")
    c.flow(1.0)
    assert all(member.state == [b"good", b"bad", b"last"] for member in c.members.values())
    assert sorted(calls) == sorted([b"good", b"bad", b"last"] * 3)
    assert {promise.count("ZeroDivisionError") > 0 for promise in c.broken} == {True}
