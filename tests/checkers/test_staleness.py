"""Stale reads: nobody is accused wrongly, and what is too old is convicted."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen_like.checkers.history import Operation, parse
from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.checkers.linearizability import check as linearizable
from jepsen_like.checkers.staleness import check

MS = 1_000_000


def op(name: str, args: list[Any], result: Any, start: int, end: int | None) -> Operation:
    """Times in milliseconds; ``end`` ``None``: unknown outcome."""
    last = None if end is None else end * MS
    ok = None if end is None else True
    return Operation(1, name, "k", tuple(args), result, start * MS, last, ok)


def accused(*history: Operation, **options: Any) -> bool:
    return bool(check(history, **options))


OLD, NEW = op("set", ["old"], None, 0, 10), op("set", ["new"], None, 20, 30)


def test_a_value_overwritten_before_the_window_is_too_old() -> None:
    assert accused(OLD, NEW, op("stale", [50], "old", 100, 110))


def test_a_value_overwritten_within_the_window_is_not() -> None:
    assert not accused(OLD, NEW, op("stale", [50], "old", 70, 90))
    assert not accused(OLD, NEW, op("stale", [50], "old", 80, 90)), "the window is closed"
    assert not accused(OLD, NEW, op("stale", [50], "old", 81, 90), slack_ns=2 * MS)
    assert not accused(OLD, NEW, op("stale", [50], "old", 82, 90), drift=0.05)


def test_a_read_without_a_bound_may_be_of_any_age_but_not_from_the_future() -> None:
    assert not accused(OLD, NEW, op("stale", [None], "old", 9000, 9010))
    assert accused(OLD, NEW, op("stale", [None], "new", 12, 15))
    assert accused(OLD, op("stale", [None], "never written", 12, 15))


def test_a_read_shows_the_overwriting_too() -> None:
    new = op("set", ["new"], None, 20, None)
    assert not accused(OLD, new, op("stale", [50], "old", 100, 110))
    assert accused(OLD, new, op("get", [], "new", 30, 40), op("stale", [50], "old", 100, 110))


def test_a_write_that_was_seen_had_happened_by_then() -> None:
    """The outcome of the old write is unknown, but somebody read it before the new one began."""
    old = op("set", ["old"], None, 0, None)
    late = op("stale", [50], "old", 100, 110)
    assert not accused(old, NEW, late)
    assert accused(old, op("get", [], "old", 5, 10), NEW, late)


def test_a_value_that_may_have_come_back_is_not_too_old() -> None:
    again = op("cas", ["new", "old"], None, 40, None)
    assert not accused(OLD, NEW, again, op("stale", [50], "old", 100, 110))


def test_absence_may_be_too_old_as_well() -> None:
    assert accused(OLD, op("stale", [50], None, 100, 110))
    assert not accused(op("set", ["x", 20], None, 0, 10), op("stale", [50], None, 100, 110))
    assert not accused(OLD, op("stale", [50], None, 100, 110), may_vanish=lambda key: key == "k")
    assert not accused(OLD, op("del", [], None, 20, None), op("stale", [0], None, 100, 110))


def test_counters_of_unknown_outcome_explain_any_number() -> None:
    count = op("incr", [1], 1, 0, 10)
    assert accused(count, op("incr", [1], 2, 20, 30), op("stale", [10], "1", 100, 110))
    assert not accused(count, op("incr", [-1], None, 20, None), op("stale", [10], "0", 100, 110))


def test_stale_reads_are_no_part_of_the_linearization() -> None:
    history = [OLD, NEW, op("stale", [None], "old", 100, 110)]
    assert linearizable(history).verdict is Verdict.VALID


def test_stale_reads_come_from_files() -> None:
    text = op("stale", [None], "old", 100, 110).to_json()
    assert parse(text, 0).args == (None,)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 30), st.booleans())
def test_reads_of_what_was_current_in_their_window_are_never_accused(
    seed: int, count: int, few_values: bool
) -> None:
    """A register whose state at each instant is known; reads take any state of their window."""
    draw = random.Random(seed)
    states: list[tuple[int, str | None]] = [(-1, None)]
    history: list[Operation] = []
    now = 0
    for number in range(count):
        start = now = now + draw.randint(1, 20)
        point = start + draw.randint(0, 30)
        point = max(point, states[-1][0] + 1)
        end = point + draw.randint(0, 30)
        value = str(draw.randint(1, 3)) if few_values else f"v{number}"
        kind = draw.choice(("set", "del", "get", "cas"))
        known = draw.random() < 0.7
        before = states[-1][1]
        args, result = [], None
        if kind == "set":
            args, after = [value], value
        elif kind == "del":
            after = None
        elif kind == "cas":
            args = [draw.choice((before, "other")), value]
            result = args[0] == before
            after = value if result else before
        else:
            after, result = before, before
        happens = known or draw.random() < 0.5
        if happens and after != before:
            states.append((point, after))
        result = result if known else None
        history.append(op(kind, args, result, start, end if known else None))
        now = max(now, point)
    for _ in range(10):
        start = draw.randint(0, now + 50)
        end, bound = start + draw.randint(0, 20), draw.choice((0, 5, 20, 100))
        seen = draw.randint(start - bound, end)
        value = next(value for at, value in reversed(states) if at <= max(seen, -1))
        history.append(op("stale", [bound], value, start, end))
    assert check(history) == [], f"seed {seed}"
