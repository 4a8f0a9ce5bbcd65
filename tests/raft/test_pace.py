"""Groups of one node start rounds together, and ask the same nodes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftcache.lull import TURNS
from raftcache.raft.pace import ROUND_APART_S, Pace, Rounds

from .harness import Cluster


class Turns:
    """A runtime whose turns and time the test ends."""

    def __init__(self) -> None:
        self.time = 100.0
        self.soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.later: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> float:
        return self.time

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        self.soon.append((function, args))

    def call_later(self, delay: float, function: Callable[[], object]) -> None:
        self.later.append((self.time + delay, function))

    def end_turn(self) -> None:
        soon, self.soon = self.soon, []
        for function, args in soon:
            function(*args)

    def rest(self) -> None:
        for _ in range(TURNS):
            self.end_turn()

    def pass_time(self, seconds: float) -> None:
        self.time += seconds
        due = [item for item in self.later if item[0] <= self.time + 1e-9]
        self.later = [item for item in self.later if item not in due]
        for _, function in due:
            function()


def started() -> tuple[Turns, Rounds, int]:
    """A round is under way, which began in an earlier turn."""
    turns: Any = Turns()
    rounds = Rounds(turns)
    assert may_start(rounds, never)
    number = rounds.start()
    turns.end_turn()
    return turns, rounds, number


def may_start(rounds: Rounds, wake: Callable[[], None]) -> bool:
    """Whether a group may that has no round under way."""
    return rounds.may_start(0, 0.0, wake)


def never() -> None:
    raise AssertionError("woken")


def test_rounds_of_one_turn_start_together_and_others_wait_for_the_last_of_them() -> None:
    turns: Any = Turns()
    rounds = Rounds(turns)
    woken: list[str] = []
    assert may_start(rounds, never)
    first = rounds.start()
    assert may_start(rounds, never)
    assert rounds.start() == first
    turns.end_turn()

    def wake() -> None:
        woken.append("c")

    assert not may_start(rounds, wake)
    assert not may_start(rounds, wake)
    rounds.end(first)
    assert woken == []
    assert not may_start(rounds, wake)
    rounds.end(first)
    for _ in range(TURNS - 1):
        turns.end_turn()
        assert woken == [] and not may_start(rounds, wake), "some are about to ask"
    turns.end_turn()
    assert woken == ["c"], "once, however often it asked"
    assert may_start(rounds, never)


def test_after_a_rest_nobody_waits() -> None:
    turns, rounds, first = started()
    rounds.end(first)
    turns.rest()
    assert may_start(rounds, never)
    turns.end_turn()
    assert not turns.soon


def test_a_slow_round_keeps_others_waiting_for_a_bounded_time() -> None:
    turns, rounds, first = started()
    woken: list[str] = []
    turns.pass_time(ROUND_APART_S / 2)
    assert not may_start(rounds, lambda: woken.append("b"))
    turns.pass_time(ROUND_APART_S / 4)
    assert not may_start(rounds, lambda: woken.append("c"))
    turns.pass_time(ROUND_APART_S / 4)
    assert woken == ["b", "c"]
    assert may_start(rounds, never)
    second = rounds.start()
    assert second != first
    turns.end_turn()
    rounds.end(first)
    assert not may_start(rounds, lambda: None), "the end of the slow one says nothing of the second"
    rounds.end(second)
    turns.rest()
    assert may_start(rounds, never)


def test_groups_of_the_same_nodes_ask_the_same_one_first() -> None:
    turns: Any = Turns()
    pace = Pace(turns)
    pace.to_append(["b", "c"]).won("c")
    assert list(pace.to_append(["c", "b"]).all) == ["c", "b"]
    assert list(pace.to_append(["b", "d"]).all) == ["b", "d"]
    assert list(pace.to_read(["b", "c"]).all) == ["b", "c"], "reads have a list of their own"


def test_a_read_of_a_group_waits_while_another_groups_round_is_under_way_and_no_longer() -> None:
    c = Cluster()
    leader = c.elect("a")
    c.flow(0.5)
    elsewhere = leader.pace.rounds.start()
    c.turn()
    before = leader.group.reads.rounds
    read = leader.read()
    c.turn()
    assert leader.group.reads.rounds == before and read.confirmed is None
    leader.pace.rounds.end(elsewhere)
    c.turn()
    assert leader.group.reads.rounds == before + 1
    c.until(lambda: read.confirmed is True)


def test_a_read_waits_for_no_other_group_that_does_not_answer() -> None:
    c = Cluster()
    leader = c.elect("a")
    c.flow(0.5)
    leader.pace.rounds.start()
    c.turn()
    read = leader.read()
    waited = c.until(lambda: read.confirmed is True)
    assert waited < 10 * ROUND_APART_S


def test_rounds_that_fail_keep_no_other_group_waiting() -> None:
    c = Cluster()
    leader = c.elect("a")
    c.flow(0.5)
    c.isolate("a")
    read = leader.read()
    c.turn()
    c.flow(ROUND_APART_S / 2)
    assert not may_start(leader.pace.rounds, lambda: None)
    leader.group.engine.step_down(leader.term + 1)
    leader.group.schedule()
    c.turn()
    assert read.confirmed is False
    assert may_start(leader.pace.rounds, never)


def test_a_timer_of_earlier_rounds_does_not_end_the_wait_for_later_ones() -> None:
    turns, rounds, first = started()
    assert not may_start(rounds, lambda: None)
    rounds.end(first)
    turns.rest()
    turns.pass_time(ROUND_APART_S / 2)
    second = rounds.start()
    turns.end_turn()
    woken: list[str] = []
    assert not may_start(rounds, lambda: woken.append("b"))
    turns.pass_time(ROUND_APART_S / 2)
    assert woken == []
    turns.pass_time(ROUND_APART_S)
    assert woken == ["b"]
    rounds.end(second)
    turns.rest()
    assert may_start(rounds, never)


def test_an_early_timer_is_as_good_as_one_in_time() -> None:
    turns, rounds, _ = started()
    woken: list[str] = []
    assert not may_start(rounds, lambda: woken.append("b"))
    ((_, function),) = turns.later
    function()
    assert woken == ["b"]
    assert may_start(rounds, never), "or it would ask again and again until then"
