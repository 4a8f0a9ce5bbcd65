"""``SLOWLOG`` and ``LATENCY``: which commands took long, and how long commands take.

A command's time is from its coming to its reply: unlike Redis's it includes what the command waited
for, which is what a client feels. Commands of one pipeline are answered together, and are one
entry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from raftcache.metrics import Histogram
from raftcache.resp.arguments import no_subcommand
from raftcache.resp.replies import EMPTY, OK, RedisError, Reply, array, bulk, encode, integer
from raftcache.resp.session import Plan

if TYPE_CHECKING:
    from raftcache.resp.session import Session

SLOWER_THAN_S: Final = 0.01
MAX_ENTRIES: Final = 128
MAX_ARGUMENTS: Final = 32
MAX_ARGUMENT_BYTES: Final = 128
DEFAULT_COUNT: Final = 10
"""Entries that ``SLOWLOG GET`` shows."""


class Slow(NamedTuple):
    """One entry. ``at``: Unix time in seconds."""

    number: int
    at: int
    microseconds: int
    arguments: list[bytes]
    address: str
    name: bytes


class SlowLog:
    """The latest slow commands of all clients of one node."""

    def __init__(self) -> None:
        self.entries: deque[Slow] = deque(maxlen=MAX_ENTRIES)
        self._next = 0

    def add(
        self, commands: Sequence[list[bytes]], seconds: float, wall: float, session: Session
    ) -> None:
        """``commands``, a pipeline, took so long."""
        shown = [_shortened(argument) for argument in commands[0][:MAX_ARGUMENTS]]
        if len(commands[0]) > MAX_ARGUMENTS:
            left = len(commands[0]) - MAX_ARGUMENTS + 1
            shown[-1] = b"... (%d more arguments)" % left
        if len(commands) > 1:
            shown.append(b"... (%d more commands)" % (len(commands) - 1))
        microseconds = int(seconds * 1e6)
        entry = Slow(self._next, int(wall), microseconds, shown, session.address, session.name)
        self._next += 1
        self.entries.appendleft(entry)


def _shortened(argument: bytes) -> bytes:
    left = len(argument) - MAX_ARGUMENT_BYTES
    if left <= 0:
        return argument
    return argument[:MAX_ARGUMENT_BYTES] + b"... (%d more bytes)" % left


def slowlog(session: Session, args: list[bytes]) -> Plan:
    """``SLOWLOG GET [count] | LEN | RESET``."""
    log, name = session.server.slow, args[1].upper()
    if name == b"GET" and len(args) <= 3:
        count = DEFAULT_COUNT
        if len(args) == 3:
            try:
                count = int(args[2])
            except ValueError:
                count = -2
            if count < -1:
                raise RedisError("ERR count should be greater than or equal to -1")
        shown = list(log.entries)[: None if count == -1 else count]
        return array(_entry(each) for each in shown)
    if name == b"LEN" and len(args) == 2:
        return integer(len(log.entries))
    if name == b"RESET" and len(args) == 2:
        log.entries.clear()
        return OK
    raise no_subcommand(args, "len", "reset")


def _entry(slow: Slow) -> bytes:
    return array(
        [
            integer(slow.number),
            integer(slow.at),
            integer(slow.microseconds),
            array(bulk(argument) for argument in slow.arguments),
            bulk(slow.address.encode()),
            bulk(slow.name),
        ]
    )


def latency(session: Session, args: list[bytes]) -> Plan:
    """``LATENCY HISTOGRAM [command ...]``. Events are not watched, so there are none of those."""
    name = args[1].upper()
    if name == b"HISTOGRAM":
        seconds = session.server.counters.seconds
        asked = [arg.decode(errors="replace").lower() for arg in args[2:]] or list(seconds)
        found: dict[str, Reply] = {
            each: _distribution(seconds[each]) for each in asked if each in seconds
        }
        return encode(found, session.resp3)
    if (name == b"LATEST" and len(args) == 2) or (name == b"HISTORY" and len(args) == 3):
        return EMPTY
    if name == b"RESET":
        return integer(0)
    raise no_subcommand(args, "latest", "history")


def _distribution(histogram: Histogram) -> Reply:
    """Calls up to each bound that has some, in microseconds; the last bound has all."""
    buckets: dict[str, Reply] = {}
    below = 0
    for bound, count in zip([*histogram.bounds, 10.0], histogram.counts, strict=True):
        below += count
        if count:
            buckets[f"{bound * 1e6:.0f}"] = below
    return {"calls": histogram.count, "histogram_usec": buckets}
