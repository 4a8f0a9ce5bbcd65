"""After answers there is a rest, so that what is asked for next goes together."""

from __future__ import annotations

import asyncio
from typing import Any

from raftcache.lull import TURNS, Lull
from raftcache.ops import Result, Set, Status
from tests.core.conftest import Stage
from tests.core.test_gathering import entries
from tests.raft.test_pace import Turns


def test_a_rest_lasts_for_some_turns_however_often_it_is_begun() -> None:
    turns: Any = Turns()
    ends: list[bool] = []
    lull = Lull(turns, lambda: ends.append(lull.active))
    assert not lull.active
    for _ in range(2):
        lull.begin()
        for _ in range(TURNS - 1):
            turns.end_turn()
            lull.begin()
            assert lull.active and not ends
        turns.end_turn()
        assert ends == [False]
        turns.end_turn()
        assert ends == [False] and not turns.soon
        ends.clear()


def test_clients_that_were_answered_together_write_together_again(stage: Stage) -> None:
    """One needs a turn or two more than the other to ask for the next thing."""
    leader = stage.leader(0)
    node, runtime = stage.node(leader), stage.node(leader).runtime
    keys = [stage.key_of(0, number) for number in range(4)]
    second: list[asyncio.Future[Result]] = []

    def write(key: bytes) -> asyncio.Future[Result]:
        return node.write(Set(key, b"v"), node.now() + 5.0)

    def write_again(key: bytes, turns: int) -> None:
        if turns:
            runtime.call_soon(write_again, key, turns - 1)
        else:
            second.append(write(key))

    stage.wait(1.0)
    before = entries(stage, 0)
    first = [write(keys[0]), write(keys[1])]
    first[0].add_done_callback(lambda _: write_again(keys[2], 0))
    first[1].add_done_callback(lambda _: write_again(keys[3], 2))
    stage.until(lambda: len(second) == 2 and all(future.done() for future in second))
    assert [future.result().status for future in (*first, *second)] == [Status.CREATED] * 4
    assert entries(stage, 0) - before == 2


def test_one_that_comes_later_does_not_wait(stage: Stage) -> None:
    """A rest is over long before a client that asks now and then asks again."""
    key, leader = stage.key_of(0), stage.leader(0)
    stage.set(key, b"1", leader)
    stage.wait(0.001)
    replica = stage.node(leader).replicas[0]
    assert not replica._lull.active and not replica.raft.reads._together._lull.active
