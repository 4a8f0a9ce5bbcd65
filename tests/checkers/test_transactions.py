"""Transactions on the keys of a tag: strict serializability."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jepsen_like.checkers.history import HistoryError, Operation, load, parse
from jepsen_like.checkers.linearizability import Verdict, check
from jepsen_like.checkers.transactions import run
from tests.checkers.test_linearizability import brute_force


def txn(start: int, end: int | None, args: list[list[Any]], result: list[Any] | None) -> Operation:
    line = {
        "process": start,
        "op": "txn",
        "key": "t",
        "args": args,
        "result": result,
        "start": start,
        "end": end,
        "ok": None if end is None else True,
    }
    return parse(json.dumps(line), start)


def verdict(*history: Operation) -> Verdict:
    return check(history).verdict


def test_parts_see_what_came_before_them() -> None:
    state, answers = run(
        None,
        [
            ("get", "a"),
            ("append", "a", "1 "),
            ("append", "a", "2 "),
            ("get", "a"),
            ("incr", "n", 3),
            ("incr", "a", 1),
            ("set", "a", "x"),
            ("del", "n"),
            ("get", "n"),
        ],
    )
    assert answers == [None, None, None, "1 2 ", 3, None, None, None, None]
    assert state == '{"a": "x"}'
    assert run(state, [("del", "a")])[0] is None


def test_a_history_that_one_order_explains_is_valid() -> None:
    assert (
        verdict(
            txn(0, 10, [["append", "a", "1 "], ["incr", "n", 1]], [None, 1]),
            txn(5, 15, [["append", "a", "2 "], ["incr", "n", 1]], [None, 2]),
            txn(20, 30, [["get", "a"], ["get", "n"]], ["1 2 ", "2"]),
        )
        is Verdict.VALID
    )


def test_a_transaction_of_which_half_is_seen_is_not() -> None:
    write = txn(0, 10, [["append", "a", "1 "], ["append", "b", "1 "]], [None, None])
    assert verdict(write, txn(5, 6, [["get", "a"], ["get", "b"]], ["1 ", None])) is Verdict.INVALID
    assert verdict(write, txn(5, 6, [["get", "a"], ["get", "b"]], [None, None])) is Verdict.VALID


def test_two_that_each_miss_the_other_s_write_are_not() -> None:
    one = txn(0, 10, [["get", "b"], ["set", "a", "1"]], [None, None])
    other = txn(1, 11, [["get", "a"], ["set", "b", "1"]], [None, None])
    assert verdict(one, other) is Verdict.INVALID  # write skew: serializable would be an order


def test_an_order_against_real_time_is_not() -> None:
    write = txn(0, 10, [["append", "a", "1 "]], [None])
    assert verdict(write, txn(11, 12, [["get", "a"]], [None])) is Verdict.INVALID


def test_an_unknown_transaction_happened_whole_or_not_at_all() -> None:
    unknown = txn(0, None, [["set", "a", "1"], ["set", "b", "1"]], None)
    read = [["get", "a"], ["get", "b"]]
    assert verdict(unknown, txn(5, 6, read, [None, None])) is Verdict.VALID
    assert verdict(unknown, txn(5, 6, read, ["1", "1"])) is Verdict.VALID
    assert verdict(unknown, txn(5, 6, read, ["1", None])) is Verdict.INVALID
    seen_and_gone = [txn(5, 6, read, ["1", "1"]), txn(7, 8, read, [None, None])]
    assert verdict(unknown, *seen_and_gone) is Verdict.INVALID


@pytest.mark.parametrize(
    "args",
    [
        [],
        [["get"]],
        [["frobnicate", "a"]],
        [["set", "a"]],
        [["set", "a", 1]],
        [["incr", "a", "1"]],
        [["incr", "a", True]],
        ["get"],
    ],
)
def test_what_is_no_transaction_is_refused(args: list[Any]) -> None:
    with pytest.raises(HistoryError):
        txn(0, None, args, None)


def test_a_file_keeps_transactions_as_they_are(tmp_path: Path) -> None:
    operation = txn(0, 10, [["append", "a", "1 "], ["get", "a"]], [None, "1 "])
    path = tmp_path / "history.jsonl"
    path.write_text(operation.to_json() + "\n")
    assert load(path) == [operation]


# -- what answers rule out ------------------------------------------------------------------------

MICROS = st.sampled_from(["get a", "append a", "append a", "get r", "set r", "append r", "del a"])


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Transactions carried out one after the other, of which clients know roughly when; some
    outcomes are unknown, and answers may be wrong."""
    state: str | None = None
    told: list[Operation] = []
    for place in range(draw(st.integers(2, 5))):
        micros: list[tuple[str, ...]] = []
        for number, name in enumerate(draw(st.lists(MICROS, min_size=1, max_size=3))):
            what, key = name.split()
            value = (f"{place}{number} ",) if what in ("append", "set") else ()
            micros.append((what, key, *value))
        after, answers = run(state, micros)
        start = 100 + 10 * place - draw(st.integers(0, 25))
        end: int | None = 100 + 10 * place + draw(st.integers(0, 25))
        if draw(st.integers(0, 3)) == 0:
            end, after = None, draw(st.sampled_from([state, after]))
        elif draw(st.integers(0, 9)) == 0:
            answers = [draw(st.sampled_from([None, "00 ", "10 ", "00 10 "])) for _ in answers]
        state = after
        told.append(txn(start, end, [list(m) for m in micros], answers if end else None))
    return [replace(operation, index=index) for index, operation in enumerate(told)]


@settings(max_examples=600, deadline=None)
@given(histories())
def test_the_verdict_is_that_of_brute_force(history: list[Operation]) -> None:
    expected = Verdict.VALID if brute_force(history) else Verdict.INVALID
    assert check(history).verdict is expected


def test_what_is_read_later_decides_between_appends_at_the_same_time() -> None:
    """Twenty clients at a time; without a look ahead no end of it is to be seen."""
    history: list[Operation] = []
    value = ""
    for batch in range(5):
        order = [(batch * 20 + i) * 7 % 100 for i in range(20)]
        start = batch * 100
        history += [txn(start, start + 50, [["append", "a", f"{i} "]], [None]) for i in order[::-1]]
        history.append(txn(start, None, [["set", "r", str(batch)]], None))
        value += "".join(f"{i} " for i in order)
        history.append(txn(start + 60, start + 70, [["get", "a"]], [value]))
    report = check(history, seconds=60, configurations=10_000)
    assert report.verdict is Verdict.VALID
    swapped = value.replace(" 7 ", " x ").replace(" 14 ", " 7 ").replace(" x ", " 14 ")
    history.append(txn(900, 910, [["get", "a"]], [swapped]))
    assert check(history, seconds=60, configurations=10_000).verdict is Verdict.INVALID
