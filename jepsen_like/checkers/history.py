"""Operations as clients saw them, and the files that keep them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from jepsen_like.checkers.transactions import canonical

OPS: Final = {
    "get": (0, 0),
    "set": (1, 2),
    "cas": (2, 2),
    "incr": (0, 1),
    "del": (0, 0),
    "stale": (1, 1),
    "txn": (1, 1000),
}
"""Name and least and largest number of arguments. ``expire`` is added by the checker only."""


class HistoryError(ValueError):
    """The file is no history; the message has the line."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; the fields are those of the file format (see the package's docstring)."""

    process: int
    op: str
    key: str
    args: tuple[Any, ...]
    result: Any
    start: int
    end: int | None
    ok: bool | None
    index: int = -1
    """Position in the history: how reports name the operation."""
    pipeline: int | None = None

    def __str__(self) -> str:
        arguments = ", ".join(json.dumps(argument) for argument in self.args)
        answer = "?" if self.ok is None else json.dumps(self.result)
        end = "?" if self.end is None else f"{self.end / 1e9:.6f}"
        return (
            f"[{self.index}] process {self.process}: {self.op}({arguments}) -> {answer}"
            f"  {self.start / 1e9:.6f} .. {end} s"
        )

    def to_json(self) -> str:
        names = ("process", "op", "key", "args", "result", "start", "end", "ok")
        fields = {name: getattr(self, name) for name in names}
        if self.pipeline is not None:
            fields["pipeline"] = self.pipeline
        return json.dumps(fields)


def parse(line: str, index: int) -> Operation:
    """One line of a file; ``HistoryError`` when it is not as the format says."""
    try:
        fields = json.loads(line)
        operation = Operation(
            process=int(fields["process"]),
            op=fields["op"],
            key=fields["key"],
            args=tuple(fields.get("args") or ()),
            result=fields.get("result"),
            start=int(fields["start"]),
            end=None if fields.get("end") is None else int(fields["end"]),
            ok=fields["ok"],
            index=index,
            pipeline=None if fields.get("pipeline") is None else int(fields["pipeline"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HistoryError(f"line {index + 1}: {type(error).__name__}: {error}") from error
    return validated(operation)


def validated(operation: Operation) -> Operation:
    """The operation with values in canonical form; ``HistoryError`` when it makes no sense."""

    def refuse(why: str) -> HistoryError:
        return HistoryError(f"line {operation.index + 1}: {why}: {operation}")

    if operation.op not in OPS:
        raise refuse(f"unknown op {operation.op!r}")
    if not isinstance(operation.key, str) or operation.ok not in (True, False, None):
        raise refuse("key must be a string, ok must be true, false or null")
    least, most = OPS[operation.op]
    if not least <= len(operation.args) <= most:
        raise refuse("wrong number of arguments")
    if operation.ok is True and operation.end is None:
        raise refuse("an operation that succeeded has ended")
    if operation.end is not None and operation.end < operation.start:
        raise refuse("it ends before it starts")
    try:
        args, result = _canonical(operation)
    except TypeError as error:
        raise refuse(str(error)) from error
    return replace(operation, args=args, result=result)


def _canonical(operation: Operation) -> tuple[tuple[Any, ...], Any]:
    args, result = operation.args, operation.result
    if operation.op == "set":
        args = (_value(args[0]), *(_integer(argument) for argument in args[1:]))
        if args[0] is None:
            raise TypeError("a set needs a value")
        result = result if isinstance(result, bool) else None
    elif operation.op == "cas":
        args = (_value(args[0]), _value(args[1]))
        result = _flag(result, "cas")
        if operation.ok and result is None:
            result = True
    elif operation.op == "incr":
        args = (_integer(args[0]) if args else 1,)
        if operation.ok and result is not None:
            result = _integer(result)
    elif operation.op == "stale":
        args = (None if args[0] is None else _integer(args[0]),)
        result = _value(result)
    elif operation.op == "txn":
        args = tuple(canonical(micro) for micro in args)
        if operation.ok:
            if not isinstance(result, list | tuple) or len(result) != len(args):
                raise TypeError("a transaction has a result for each of its parts")
            result = tuple(result)
    elif operation.op == "get":
        result = _value(result)
    elif operation.op == "del":
        result = _flag(result, "del")
    return args, result


def _flag(value: Any, op: str) -> bool | None:
    """True, false or null; some clients say 1 and 0."""
    if value not in (True, False, None):
        raise TypeError(f"the result of a {op} is true, false or null")
    return None if value is None else bool(value)


def _value(value: Any) -> str | None:
    """A string, or null; anything else is its JSON text."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not an integer")
    return value


def load(path: str | Path) -> list[Operation]:
    """All operations of a file, in its order. Empty lines are skipped."""
    with open(path, encoding="utf-8") as file:
        lines = [(number, line) for number, line in enumerate(file) if line.strip()]
    return [parse(line, number) for number, line in lines]


def dump(history: Iterable[Operation], path: str | Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(operation.to_json() + "\n" for operation in history)


def by_key(history: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The parts of a history, in order of each key's first appearance."""
    parts: dict[str, list[Operation]] = {}
    for operation in history:
        parts.setdefault(operation.key, []).append(operation)
    return parts
