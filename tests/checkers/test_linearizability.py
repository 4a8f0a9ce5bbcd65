"""The checker against brute force, against hand-made histories, and against the clock."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen_like.checkers.history import Operation
from jepsen_like.checkers.linearizability import Verdict, check
from jepsen_like.checkers.models import CacheModel, State


def op(
    process: int, name: str, args: Sequence[Any], result: Any, start: int, end: int | None
) -> Operation:
    """``end`` ``None``: unknown outcome."""
    ok = None if end is None else True
    return Operation(process, name, "k", tuple(args), result, start, end, ok)


def verdict(*operations: Operation) -> Verdict:
    return check(operations).verdict


# -- brute force ----------------------------------------------------------------------------------


def brute_force(history: Sequence[Operation]) -> bool:
    """Try every order of every choice of the operations whose outcome is unknown."""
    model = CacheModel()
    operations = model.prepare([x for x in history if x.ok is not False])
    known = [x for x in operations if x.ok]
    unknown = [x for x in operations if x.ok is None]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                if _in_time(order) and _explains(model, order):
                    return True
    return False


def _in_time(order: Sequence[Operation]) -> bool:
    return not any(
        (later.end is not None and later.end < earlier.start) or _pipelined(later, earlier)
        for earlier, later in itertools.combinations(order, 2)
    )


def _pipelined(first: Operation, second: Operation) -> bool:
    """Whether ``first`` has to come first."""
    together = first.pipeline is not None and first.pipeline == second.pipeline
    return together and first.ok is second.ok is True and first.index < second.index


def _explains(model: CacheModel, order: Sequence[Operation]) -> bool:
    state: State | None = model.initial
    for operation in order:
        assert state is not None
        state = model.step(state, operation)
        if state is None:
            return False
    return True


values = st.sampled_from(["1", "2"])
shapes = st.one_of(
    st.tuples(st.just("get"), st.just(()), st.sampled_from([None, "1", "2", "3"])),
    st.tuples(st.just("set"), st.tuples(values), st.sampled_from([None, True, False])),
    st.tuples(st.just("set"), st.tuples(values, st.just(1)), st.none()),
    st.tuples(st.just("cas"), st.tuples(st.sampled_from([None, "1", "2"]), values), st.booleans()),
    st.tuples(st.just("incr"), st.tuples(st.just(1)), st.sampled_from([1, 2, 3])),
    st.tuples(st.just("del"), st.just(()), st.sampled_from([None, True, False])),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    operations = []
    for index in range(draw(st.integers(1, 5))):
        name, args, result = draw(shapes)
        start = draw(st.integers(0, 6)) * 500_000
        length = draw(st.integers(0, 4)) * 500_000
        ok = draw(st.sampled_from([True, True, True, None, False]))
        end = start + length if ok is True else None
        pipeline = draw(st.sampled_from([None, 0, 1]))
        mates = [x for x in operations if x.ok is True and x.pipeline == pipeline is not None]
        if mates and ok is True:
            start, end = mates[0].start, mates[0].end
        operations.append(
            Operation(index, name, "k", args, result, start, end, ok, index, pipeline)
        )
    return operations


@settings(max_examples=600, deadline=None)
@given(histories())
def test_the_verdict_is_that_of_brute_force(history: list[Operation]) -> None:
    expected = Verdict.VALID if brute_force(history) else Verdict.INVALID
    assert check(history).verdict is expected


@st.composite
def told_histories(draw: st.DrawFn) -> list[Operation]:
    """Operations carried out one after the other, each write with a value of its own, of which
    clients know roughly when; some outcomes are unknown, and answers may be wrong."""
    model, state = CacheModel(), State()
    told: list[Operation] = []
    for place in range(draw(st.integers(2, 6))):
        seen = state.value if draw(st.booleans()) else draw(st.sampled_from([None, "v0", "v1"]))
        name = draw(st.sampled_from(["get", "set", "get", "set", "cas", "del"]))
        args = {"set": (f"v{place}",), "cas": (seen, f"v{place}")}.get(name, ())
        result: Any = None
        if name == "get":
            result = seen
        elif name == "cas":
            result = state.value == seen
        elif name == "del":
            result = state.value is not None
        start = 100 + 10 * place - draw(st.integers(0, 25))
        end: int | None = 100 + 10 * place + draw(st.integers(0, 25))
        after = model.step(state, op(place, name, args, None, start, None))
        assert after is not None
        if draw(st.integers(0, 3)) == 0:
            end, result, after = None, None, draw(st.sampled_from([state, after]))
        told.append(replace(op(place, name, args, result, start, end), index=place))
        state = after
    return told


@settings(max_examples=600, deadline=None)
@given(told_histories())
def test_the_verdict_is_that_of_brute_force_where_values_are_written_once(
    history: list[Operation],
) -> None:
    expected = Verdict.VALID if brute_force(history) else Verdict.INVALID
    assert check(history).verdict is expected


def test_who_says_that_there_was_nothing_comes_first_where_there_is_nothing() -> None:
    """Ten writes that created the key, ten that may have, and nine deletions, all at the same time:
    one that may have must not be the first."""
    history = []
    for i in range(10):
        history += [
            op(i, "set", [f"a{i}"], None, 10, 90 + i),
            op(i, "set", [f"b{i}"], True, 10, 110 + i),
        ]
        if i:
            history.append(op(i, "del", [], True, 10, 100 + i))
    assert check(history, configurations=2_000).verdict is Verdict.VALID


@pytest.mark.parametrize("end", [25, None])
def test_what_is_written_twice_may_come_back(end: int | None) -> None:
    history = [
        op(1, "set", ["x"], None, 0, 10),
        op(1, "set", ["y"], None, 13, 20),
        op(1, "get", [], "y", 21, 22),
        op(2, "set", ["x"], None, 23, end),
        op(1, "get", [], "x", 30, 31),
    ]
    assert verdict(*history) is Verdict.VALID


def test_who_reads_a_value_decides_when_it_ends() -> None:
    """Sixteen writers at a time, and sixteen readers that saw their values one after the other;
    without a look ahead no end of it is to be seen."""
    history: list[Operation] = []
    for batch in range(4):
        start, order = 1000 * batch, [i * 7 % 16 for i in range(16)]
        history += [op(i, "set", [f"{batch}.{i}"], None, start, start + 900) for i in range(16)]
        for place, i in enumerate(order):
            at = start + 100 + 10 * place
            history.append(op(20, "get", [], f"{batch}.{i}", at, at + 5))
        history.append(op(30 + batch, "set", [f"{batch}.x"], None, start, None))
    numbered = [replace(x, index=i) for i, x in enumerate(history)]
    assert check(numbered, configurations=5_000).verdict is Verdict.VALID
    wrong = [*numbered, op(50, "get", [], "1.3", 9000, 9001)]
    assert check(wrong, configurations=5_000).verdict is Verdict.INVALID


@settings(max_examples=300, deadline=None)
@given(histories())
def test_the_culprit_is_the_first_return_that_cannot_be_explained(
    history: list[Operation],
) -> None:
    report = check(history)
    if report.verdict is Verdict.VALID:
        return
    culprit = report.keys[0].culprit
    assert culprit is not None and culprit.end is not None
    before = [x for x in history if x.start <= culprit.end]
    cut = [
        x if x.end is not None and x.end < culprit.end else replace(x, ok=None, end=None)
        for x in before
        if x.ok is not False
    ]
    assert check(cut).verdict is Verdict.VALID


# -- known histories ------------------------------------------------------------------------------


def test_a_read_may_see_a_concurrent_write_or_not() -> None:
    for seen in (None, "x"):
        assert verdict(op(1, "set", ["x"], None, 0, 10), op(2, "get", [], seen, 5, 15)) == 0


def test_a_stale_read_is_a_violation() -> None:
    assert verdict(op(1, "set", ["x"], None, 0, 10), op(2, "get", [], None, 11, 20)) == 1


def test_intervals_are_closed() -> None:
    """A read that starts in the instant in which a write ends may be put before it."""
    assert verdict(op(1, "set", ["x"], None, 0, 10), op(2, "get", [], None, 10, 20)) == 0


def test_a_pipeline_keeps_its_order_and_others_may_come_in_between() -> None:
    def sent(name: str, args: Sequence[Any], result: Any, pipeline: int | None) -> Operation:
        return replace(op(1, name, args, result, 0, 10), pipeline=pipeline)

    write, read = ("set", ["x"], None), ("get", [], None)
    assert verdict(sent(*write, None), sent(*read, None)) == 0
    assert verdict(sent(*read, 7), sent(*write, 7)) == 0
    assert verdict(sent(*write, 7), sent(*read, 7)) == 1
    assert verdict(sent(*write, 7), sent(*read, 8)) == 0
    assert verdict(sent(*write, 7), sent(*read, 7), op(2, "del", [], None, 5, 20)) == 0


def test_of_a_pipeline_what_is_not_known_may_come_late() -> None:
    lost = replace(op(1, "set", ["x"], None, 0, None), pipeline=7)
    missed = replace(op(1, "get", [], None, 0, 10), pipeline=7)
    assert verdict(lost, missed, op(2, "get", [], "x", 20, 30)) == 0


def test_a_value_that_was_read_may_not_be_unread() -> None:
    write = op(1, "set", ["new"], None, 0, 100)
    first, second = op(2, "get", [], "new", 10, 20), op(3, "get", [], None, 30, 40)
    assert verdict(write, first) == 0
    assert verdict(write, first, second) == 1


def test_a_lost_acknowledged_write_is_a_violation() -> None:
    assert (
        verdict(
            op(1, "set", ["a"], None, 0, 10),
            op(1, "set", ["b"], None, 20, 30),
            op(2, "get", [], "a", 40, 50),
        )
        == 1
    )


def test_a_write_of_unknown_outcome_may_take_effect_much_later_or_never() -> None:
    unknown = op(1, "set", ["late"], None, 0, None)
    absent, seen = op(2, "get", [], None, 10, 20), op(2, "get", [], "late", 1000, 1010)
    gone = op(2, "get", [], None, 1020, 1030)
    assert verdict(unknown, absent) == 0
    assert verdict(unknown, absent, seen) == 0
    assert verdict(unknown, absent, seen, gone) == 1


def test_a_write_of_unknown_outcome_does_not_take_effect_before_its_start() -> None:
    assert verdict(op(1, "set", ["x"], None, 50, None), op(2, "get", [], "x", 10, 20)) == 1


def test_a_write_that_definitely_failed_must_not_be_seen() -> None:
    failed = Operation(1, "set", "k", ("x",), None, 0, 10, False)
    assert verdict(failed, op(2, "get", [], None, 20, 30)) == 0
    assert verdict(failed, op(2, "get", [], "x", 20, 30)) == 1


def test_two_cas_from_the_same_value_cannot_both_succeed() -> None:
    start = op(1, "set", ["0"], None, 0, 1)
    first, second = op(1, "cas", ["0", "1"], True, 10, 20), op(2, "cas", ["0", "2"], True, 10, 20)
    assert verdict(start, first, replace(second, result=False)) == 0
    assert verdict(start, first, second) == 1


def test_a_cas_may_create_and_delete() -> None:
    assert (
        verdict(
            op(1, "cas", [None, "x"], True, 0, 1),
            op(1, "cas", ["x", None], True, 2, 3),
            op(1, "get", [], None, 4, 5),
        )
        == 0
    )


def test_increments_count_each_once() -> None:
    counts = [op(i, "incr", [1], i + 1, i, 100) for i in range(5)]
    assert verdict(*counts) == 0
    assert verdict(*counts, op(9, "incr", [1], 5, 200, 210)) == 1  # the same number twice
    assert verdict(*counts, op(9, "incr", [1], 7, 200, 210)) == 1  # one that nobody asked for
    assert verdict(*counts, op(8, "incr", [1], None, 0, None), op(9, "incr", [1], 7, 200, 210)) == 0


def test_an_increment_of_something_else_fails_and_changes_nothing() -> None:
    word = op(1, "set", ["word"], None, 0, 1)
    failed = op(1, "incr", [1], None, 2, 3)
    assert verdict(word, failed, op(1, "get", [], "word", 4, 5)) == 0
    assert verdict(failed) == 1  # of an absent key it would have worked


def test_a_deletion_that_found_nothing_needs_an_absent_key() -> None:
    assert verdict(op(1, "del", [], False, 0, 1)) == 0
    assert verdict(op(1, "set", ["x"], None, 0, 1), op(1, "del", [], False, 2, 3)) == 1
    assert verdict(op(1, "set", ["x"], None, 0, 1), op(1, "del", [], True, 2, 3)) == 0


def test_keys_are_judged_one_by_one() -> None:
    good = [op(1, "set", ["x"], None, 0, 1), op(1, "get", [], "x", 2, 3)]
    bad = [replace(x, key="other", result="y") for x in good]
    report = check([*good, *bad])
    assert [(key.key, key.verdict) for key in report.keys] == [
        ("k", Verdict.VALID),
        ("other", Verdict.INVALID),
    ]


# -- expiry ---------------------------------------------------------------------------------------

MS = 1_000_000


def test_a_key_expires_no_earlier_than_its_time_to_live_and_for_good() -> None:
    stored = op(1, "set", ["x", 100], None, 0, 5 * MS)
    assert verdict(stored, op(2, "get", [], None, 90 * MS, 99 * MS)) == 1
    assert verdict(stored, op(2, "get", [], None, 101 * MS, 102 * MS)) == 0
    late = op(2, "get", [], "x", 150 * MS, 151 * MS)
    assert verdict(stored, late) == 0  # late is no violation: nobody was there to expire it
    dead = op(2, "get", [], None, 160 * MS, 161 * MS)
    assert verdict(stored, late, dead) == 0
    assert verdict(stored, dead, op(2, "get", [], "x", 170 * MS, 171 * MS)) == 1


def test_a_new_value_does_not_die_of_the_old_deadline() -> None:
    first = op(1, "set", ["x", 100], None, 0, 1)
    second = op(1, "set", ["y"], None, 10 * MS, 11 * MS)
    assert verdict(first, second, op(2, "get", [], None, 200 * MS, 201 * MS)) == 1


def test_an_increment_keeps_the_expiry() -> None:
    first = op(1, "set", ["1", 100], None, 0, 1)
    count = op(1, "incr", [1], 2, 50 * MS, 51 * MS)
    assert verdict(first, count, op(2, "get", [], None, 200 * MS, 201 * MS)) == 0


def test_slack_allows_for_rounding() -> None:
    history = [
        op(1, "set", ["x", 100], None, 0, 1),
        op(2, "get", [], None, 98 * MS, int(99.5 * MS)),
    ]
    assert check(history).verdict is Verdict.INVALID
    assert check(history, model=CacheModel(slack_ns=MS)).verdict is Verdict.VALID
    assert check(history, model=CacheModel(drift=0.01)).verdict is Verdict.VALID


# -- size -----------------------------------------------------------------------------------------


def simulate(
    seed: int, operations: int, keys: int, processes: int, unknown: float
) -> list[Operation]:
    """A history of a perfect store: each operation takes effect somewhere inside its interval."""
    draw = random.Random(seed)
    model = CacheModel()
    calls = []
    free = [0] * processes
    for index in range(operations):
        process = min(range(processes), key=free.__getitem__)
        start = free[process] + draw.randint(1, 100)
        end = start + draw.randint(1, 1000)
        free[process] = end
        calls.append((draw.randint(start, end), index, process, start, end))
    states: dict[str, State] = {}
    history = []
    for _, index, process, start, end in sorted(calls):
        key = f"k{draw.randrange(keys)}"
        state = states.get(key, model.initial)
        name = draw.choice(["get", "get", "set", "cas", "incr", "del"])
        lost = draw.random() < unknown
        args: tuple[Any, ...] = ()
        result: Any = None
        if name == "get":
            result = state.value
        elif name == "set":
            args = (str(index),)
        elif name == "cas":
            args = (state.value if draw.random() < 0.7 else "no", str(index))
            result = args[0] == state.value
        elif name == "incr":
            args = (1,)
            result = int(state.value or 0) + 1
        else:
            result = state.value is not None
        done = Operation(process, name, key, args, result, start, end, True, index)
        after = model.step(state, done)
        assert after is not None
        if lost:
            done = replace(done, ok=None, end=None, result=None)
        if not lost or draw.random() < 0.5:
            states[key] = after
        history.append(done)
    return sorted(history, key=lambda x: x.start)


@pytest.mark.parametrize("unknown", [0.0, 0.03])
def test_ten_thousand_operations_are_judged_in_seconds(unknown: float) -> None:
    history = simulate(1, 10_000, 10, 20, unknown)
    started = time.monotonic()
    report = check(history)
    assert report.verdict is Verdict.VALID
    assert time.monotonic() - started < 10.0


def test_one_wrong_read_among_ten_thousand_is_found_and_named() -> None:
    history = simulate(2, 10_000, 10, 20, 0.01)
    place = next(
        i for i, x in enumerate(history) if i > 5000 and x.op == "get" and x.ok and x.result
    )
    history[place] = replace(history[place], result="never written")
    report = check(history)
    assert report.verdict is Verdict.INVALID
    assert [key.culprit for key in report.bad] == [history[place]]


def test_whoever_runs_out_of_time_or_room_does_not_say_valid() -> None:
    history = simulate(3, 3000, 1, 20, 0.05)
    assert check(history, seconds=0.0).verdict is Verdict.UNDECIDED
    assert check(history, configurations=100).verdict is Verdict.UNDECIDED
