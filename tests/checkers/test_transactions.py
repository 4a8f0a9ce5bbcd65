"""Transactions on the keys of a tag: strict serializability."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.checkers.history import HistoryError, Operation, load, parse
from jepsen_like.checkers.linearizability import Verdict, check
from jepsen_like.checkers.transactions import run


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
