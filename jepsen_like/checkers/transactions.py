"""Atomic transactions on the keys of one tag, as one operation on one object.

The object is the tag; its state is all of the tag's keys with their values. So the checker decides
whether there is one order of whole transactions that explains every answer and respects real time:
strict serializability. The state is kept as JSON text, which is hashable, and readable in reports.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

MICROS: Final = {"get": 0, "set": 1, "append": 1, "incr": 1, "del": 0}
"""Name and number of arguments behind the key."""

Micro = tuple[Any, ...]


def canonical(micro: Any) -> Micro:
    """One micro-operation as a tuple; ``TypeError`` when it is none."""
    if not isinstance(micro, list | tuple) or len(micro) < 2 or micro[0] not in MICROS:
        raise TypeError(f"{micro!r} is no part of a transaction")
    name, key, *arguments = micro
    if not isinstance(key, str) or len(arguments) != MICROS[name]:
        raise TypeError(f"{micro!r} has the wrong arguments")
    kind = int if name == "incr" else str
    if any(not isinstance(argument, kind) or argument is True for argument in arguments):
        raise TypeError(f"{micro!r} has the wrong arguments")
    return tuple(micro)


def reads_only(micros: Sequence[Micro]) -> bool:
    """Whether the transaction changes nothing."""
    return all(micro[0] == "get" for micro in micros)


def run(state: str | None, micros: Sequence[Micro]) -> tuple[str | None, list[Any]]:
    """The state after the transaction, and what each part answers. ``None``: nothing was ever
    written. An ``incr`` of a value that is no number answers ``None`` and changes nothing; the
    other parts stand, as in Redis."""
    values, answers = dict(values_of(state)), []
    for name, key, *arguments in micros:
        answer: Any = None
        if name == "get":
            answer = values.get(key)
        elif name == "set":
            values[key] = arguments[0]
        elif name == "append":
            values[key] = values.get(key, "") + arguments[0]
        elif name == "del":
            values.pop(key, None)
        else:
            answer = _number(values.get(key, "0"), arguments[0])
            if answer is not None:
                values[key] = str(answer)
        answers.append(answer)
    return json.dumps(values, sort_keys=True) if values else None, answers


def _number(value: str, by: int) -> int | None:
    try:
        return int(value) + by
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def values_of(state: str | None) -> dict[str, str]:
    """Key -> value; not to be changed."""
    return {} if state is None else json.loads(state)
