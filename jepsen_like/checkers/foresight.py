"""What the answers of a history rule out before the search meets them.

A search that tries one order after the other notices a blind write in the wrong place at the next
read only. With many clients on one key or tag it would try all orders of what lies between.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from jepsen_like.checkers.history import Operation
from jepsen_like.checkers.transactions import values_of

_NEVER: Final = 2**63


class Readers:
    """A value that is written once at most may end when all have seen it that did, not before.

    ``known``: operations on a register in the order of their positions; ``unknown``: those that may
    have happened."""

    def __init__(self, known: Sequence[Operation], unknown: Sequence[Operation]) -> None:
        writes = Counter(_written(x) for x in [*known, *unknown])
        self._readers: dict[str, list[int]] = {}
        for index, operation in enumerate(known):
            value = _needed(operation)
            if value is not None and writes[value] == 1:
                self._readers.setdefault(value, []).append(index)

    def lets_go(self, low: int, mask: int, value: str | None) -> bool:
        """Whether nobody is left who has to see ``value``, when all before ``low`` happened, and
        those at ``low`` and behind it whose bit of ``mask`` is set."""
        readers = self._readers.get(value, ()) if value is not None else ()
        return all(index < low or mask >> (index - low) & 1 for index in readers)


def _written(operation: Operation) -> str | None:
    """The value that a register has after the operation, if it did anything."""
    match operation.op:
        case "set":
            return str(operation.args[0])
        case "cas" if operation.result is not False:
            return str(operation.args[1])
    return None


def _needed(operation: Operation) -> str | None:
    """The value that a register had before an operation that answered as it did."""
    match operation.op:
        case "get":
            return None if operation.result is None else str(operation.result)
        case "cas" if operation.result is True and operation.args[0] is not None:
            return str(operation.args[0])
    return None


class Foresight:
    """A value that is only ever appended to has to be a beginning of what is read of it later.

    ``known``: transactions in the order of their positions; ``unknown``: those that may have
    happened. A key counts up to the first transaction that might set or delete it."""

    def __init__(self, known: Sequence[Operation], unknown: Sequence[Operation]) -> None:
        self._reads: dict[str, list[tuple[int, str]]] = {}
        until = _resets([*known, *unknown])
        for index, operation in enumerate(known):
            for key, value in _seen(operation):
                if operation.end is not None and operation.end < until.get(key, _NEVER):
                    self._reads.setdefault(key, []).append((index, value))

    def allows(self, low: int, mask: int, state: str | None) -> bool:
        """Whether a configuration may lead to a whole order: all before ``low`` happened, and those
        at ``low`` and behind it whose bit of ``mask`` is set."""
        values, beyond = values_of(state), low + mask.bit_length()
        for key, reads in self._reads.items():
            value = values.get(key, "")
            for at in range(bisect_left(reads, (low, "")), len(reads)):
                index, seen = reads[at]
                if not mask >> (index - low) & 1:
                    if not seen.startswith(value):
                        return False
                    if index >= beyond:
                        break
        return True


def _resets(operations: Sequence[Operation]) -> dict[str, int]:
    """Key -> when the first transaction begins that does anything but read it and append to it."""
    first: dict[str, int] = {}
    for operation in operations:
        for name, key, *_ in operation.args:
            if name not in ("get", "append"):
                first[key] = min(first.get(key, _NEVER), operation.start)
    return first


def _seen(operation: Operation) -> list[tuple[str, str]]:
    """The keys that a transaction read, and their values; of those that it appended to, longer ones
    than before, which will do."""
    parts = zip(operation.args, operation.result, strict=True)
    return [(key, answer or "") for (name, key, *_), answer in parts if name == "get"]


def traceless(operation: Operation, history: Iterable[Operation]) -> bool:
    """Whether a transaction of unknown outcome explains nothing: it only sets keys, none of what it
    set was ever read, and nothing but reads and such writes happened to these keys."""
    values = {key: rest[0] for name, key, *rest in operation.args if name == "set"}
    if any(name not in ("get", "set") for name, *_ in operation.args):
        return False
    for other in history:
        answers = other.result if other.ok is True else [None] * len(other.args)
        for (name, key, *_), answer in zip(other.args, answers, strict=True):
            if key not in values:
                continue
            if name not in ("get", "set", "del") or (name == "get" and answer == values[key]):
                return False
    return True
