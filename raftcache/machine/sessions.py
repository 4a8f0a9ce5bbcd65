"""Exactly-once: the last result of every client session (Raft dissertation, section 6.3).

A session is a name and a rising sequence number. The same number with the same operation gets the
first answer again; with another operation it is a mistake and is refused; a lower number is past.

Bounded in every way: by number and by bytes (on average 1 KiB per session allowed, and an eighth of
the byte budget), where the least recently used goes first, and by machine time. A forgotten session
executes again, so the bounds say for how long a client may retry."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

import mmh3
import msgspec

from raftcache.ops import Configure, Once, Result

BYTES_PER_SESSION: Final = 1024
BUDGET_SHARE: Final = 8
"""Sessions take at most so small a part of the byte budget, beside the entries."""
_RECORD_COST: Final = 400
"""Measured: the table's share, the record, its integers, fingerprint and result."""
_RESULT_COST: Final = 112
_DROPS: Final = 1024
"""At most so many are forgotten at once."""

_encoder = msgspec.msgpack.Encoder()


class Record(NamedTuple):
    """``used_ms``: machine time of the last use."""

    seq: int
    fingerprint: bytes
    result: Result
    used_ms: int


def fingerprint(op: msgspec.Struct) -> bytes:
    """128 bits that tell one operation from another."""
    digest: bytes = mmh3.mmh3_x64_128_digest(_encoder.encode(op))
    return digest


class Sessions:
    """Least recently used first, which is also soonest to expire first."""

    def __init__(self, settings: Configure) -> None:
        self.table: OrderedDict[bytes, Record] = OrderedDict()
        self.bytes = 0
        self.configure(settings)

    def configure(self, settings: Configure) -> None:
        """New bounds; those beyond them go a bounded number per batch."""
        self.ttl_ms = settings.session_ttl_ms
        self.max_sessions = settings.max_sessions
        self.max_bytes = settings.max_sessions * BYTES_PER_SESSION
        if settings.budget_bytes:
            self.max_bytes = min(self.max_bytes, settings.budget_bytes // BUDGET_SHARE)

    def find(self, session: bytes, now_ms: int) -> Record | None:
        """The session's last record, unless it has expired."""
        record = self.table.get(session)
        if record is None or record.used_ms + self.ttl_ms <= now_ms:
            return None
        return record

    def use(self, session: bytes, now_ms: int) -> None:
        """A retry keeps the session alive."""
        self.table[session] = self.table[session]._replace(used_ms=now_ms)
        self.table.move_to_end(session)

    def remember(self, op: Once, print_: bytes, result: Result, now_ms: int) -> None:
        """``op`` ended with ``result``."""
        old = self.table.pop(op.session, None)
        if old is not None:
            self.bytes -= record_cost(op.session, old)
        if not self.ttl_ms:
            return
        self.insert(op.session, Record(op.seq, print_, result, now_ms))
        for _ in range(_DROPS):
            if not self.over():
                break
            self._drop_oldest()

    def insert(self, session: bytes, record: Record) -> None:
        """As the most recently used; must be new."""
        self.table[session] = record
        self.bytes += record_cost(session, record)

    def settle(self, now_ms: int) -> None:
        """Forget what expired or is beyond the bounds; a bounded number."""
        for _ in range(_DROPS):
            expiry = self.next_expiry_ms()
            if expiry is None or (expiry > now_ms and not self.over()):
                break
            self._drop_oldest()

    def next_expiry_ms(self) -> int | None:
        """When the first session expires."""
        if not self.table:
            return None
        return next(iter(self.table.values())).used_ms + self.ttl_ms

    def over(self) -> bool:
        """Whether sessions are to be forgotten; a single one may have a large result."""
        count = len(self.table)
        return count > self.max_sessions or (count > 1 and self.bytes > self.max_bytes)

    def _drop_oldest(self) -> None:
        session, record = self.table.popitem(last=False)
        self.bytes -= record_cost(session, record)


def record_cost(session: bytes, record: Record) -> int:
    """In bytes, for the bound and the statistics."""
    return _RECORD_COST + len(session) + _result_cost(record.result)


def _result_cost(result: Result) -> int:
    own = _RESULT_COST + len(result.value or b"")
    return own + sum(map(_result_cost, result.parts))
