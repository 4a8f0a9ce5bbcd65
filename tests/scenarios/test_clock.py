"""What a group's clock may say: guarantee 9, of times to live."""

from __future__ import annotations

import pytest

from tests.raft.stamps import TICK_MS, stamped

from .story import scenario

SLOW_S = 0.4


@scenario("clock-lead")
def test_who_applied_the_log_first_does_not_stay_ahead(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All restart. Their leader is slow: a follower has applied the log, and knows what was stamped
    at its end, long before. What the leader stamps then is in the follower's past. When that one
    leads next, machine time must not jump to what it thought. (Found by a run of `kill-all`: a key
    with 1,000 ms to live was gone after 895 ms.)"""
    c, watch = stamped(durable=True)
    a = c.elect("a")
    c.flow(5.0)
    watch.stamp(a)
    c.converge()
    for name in "abc":
        c.crash(name)
    for name in "abc":
        c.start(name)
    c.until(lambda: c.leader is not None)
    leader = c.leader
    assert leader is not None
    quick = next(member for member in c.members.values() if member is not leader)
    with monkeypatch.context() as slowly:
        slowly.setattr(leader.group, "_apply", lambda: None)
        c.until(lambda: watch.seen_by(quick))
        c.flow(SLOW_S)
        assert not watch.seen_by(leader)
    c.flow(1.0)
    watch.stamp(leader)
    c.converge()
    c.elect(quick.name)
    watch.stamp(quick)
    c.converge()
    if guarded:
        assert watch.leaps_ms() <= TICK_MS
    else:
        assert watch.leaps_ms() == pytest.approx(SLOW_S * 1000, rel=0.3)
