"""The fast lane: reads and writes of one key, without a task, a parser object or a header
dictionary per request.

Most requests of a busy cache look alike: ``GET``, ``PUT`` or ``DELETE`` of a key or ``POST`` of its
``incr``, with a time to live or a consistency and a timeout at most, writes with one condition and
an ``Idempotency-Key`` at most, the whole request in one read. One regular expression recognises
those, and nothing else. What it does not recognise, down to a header it has not heard of, goes to
aiohttp's parser as it came and is served by the general handlers. So the lane need not know what a
malformed request is, and a test holds the two ways to the same answers.

Measured on one core at 64 connections over a service that answers after 0.5 ms: the CPU time of a
request falls from 50 to 21 microseconds (GET) and from 65 to 30 (PUT).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from raftcache.http.conditions import ABSENT, EXISTS
from raftcache.http.exchange import Reply
from raftcache.http.keys import counted, deleted, found, session_in, stored
from raftcache.limits import Limits
from raftcache.ops import (
    INT64_MAX,
    INT64_MIN,
    MAX_TTL_MS,
    Condition,
    Delete,
    Get,
    Incr,
    Match,
    Once,
    Result,
    Set,
)
from raftcache.service import Consistency, Service
from raftcache.units import parse_duration_ms

_VALUE: Final = rb": [\x20-\x7e]*+\r\n"
_DURATION: Final = rb"([0-9]{1,12}+(?:ms|[smhd])?)"
_REQUEST: Final = re.compile(
    rb"(GET|PUT|DELETE|POST) /v1/keys/((?:[\w.~:@!$&'()*+,;=/-]++|%[0-9A-Fa-f]{2})+)"
    rb"(?:\?(?:ttl=" + _DURATION + rb"|by=(-?[0-9]{1,19}+)"
    rb"|consistency=(lease|stale)(?:(?<=stale)&max_staleness=" + _DURATION + rb")?)?"
    rb"(?:(?:(?<=\?)|(?<!\?)&)timeout=" + _DURATION + rb")?(?<!\?))?"
    rb" HTTP/1\.1\r\n"
    rb"(?i:Host): [\x21-\x7e]*+\r\n"
    rb"(?:"
    rb"(?(8)(?!))((?i:Content-Length): )([0-9]{1,15}+)\r\n"  # (?(8)(?!)): not a second time
    rb"|(?(10)(?!))((?i:User-Agent)" + _VALUE + rb")"
    rb"|(?(11)(?!))((?i:Content-Type)" + _VALUE + rb")"
    rb"|(?i:Accept|Accept-Encoding|Accept-Language|Referer|X-[A-Za-z0-9-]++)"
    + _VALUE
    + rb"|(?i:Connection: keep-alive)\r\n"
    rb"|(?(12)(?!))(?(13)(?!))(?i:If-Match): (\*|\"[1-9][0-9]{0,17}+\")\r\n"
    rb"|(?(12)(?!))(?(13)(?!))(?i:If-None-Match): (\*)\r\n"
    rb"|(?(14)(?!))(?i:Idempotency-Key): ([\x21-\x7e]++)\r\n"
    rb")*\r\n"
)
"""Linear in its input, whatever that is: no two alternatives begin alike, and runs of characters
are possessive. Groups are not: Python before 3.11.5 goes on where a repetition of a possessive one
has failed, not where it began (gh-106052)."""

_LONGEST_HEAD: Final = 4096
_INCR: Final = b"/incr"
_REPLIES: Final = {"get": found, "put": stored, "delete": deleted, "incr": counted}


class Plain:
    """One request in the lane: what was asked, its result (``None``: not yet) and who waits for it,
    where its bytes end, when it came."""

    __slots__ = ("answered", "end", "operation", "result", "started")

    def __init__(self, operation: str, end: int, started: float) -> None:
        self.operation = operation
        self.end = end
        self.started = started
        self.result: Result | None = None
        self.answered: Callable[[], None] | None = None

    def finish(self, results: Sequence[Result]) -> None:
        """The operation ended."""
        self.result = results[0]
        if self.answered is not None:
            self.answered()

    def reply(self) -> Reply:
        """The answer, once there is a ``result``."""
        assert self.result is not None
        return _REPLIES[self.operation](self.result)


class FastLane:
    """Recognises requests and starts their operations. One for all connections."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    def start(self, data: bytes) -> Plain | None:
        """The request at the front of ``data``, its operation under way; ``None`` when it is not
        for the lane."""
        match = _REQUEST.match(data, 0, _LONGEST_HEAD)
        if match is None:
            return None
        method, key, ttl, by, freshness, timeout, length = match.group(1, 2, 3, 4, 5, 7, 9)
        wanted, unwanted, token = match.group(12, 13, 14)
        if method == b"POST":
            if not key.endswith(_INCR):
                return None
            key = key[: -len(_INCR)]
        if b"%" in key:
            key = unquote_to_bytes(key)
        limits = self._limits
        timeout_s = limits.default_timeout_s
        if timeout is not None:
            timeout_s = parse_duration_ms(timeout.decode()) / 1000
            if not 0 < timeout_s <= limits.max_timeout_s:
                return None
        if not 0 < len(key) <= limits.max_key_bytes:
            return None
        end = match.end()
        size = -1 if length is None else int(length)
        if method == b"GET":
            if size > 0 or ttl or by or wanted or unwanted or token:
                return None
            if freshness:
                return self._read(key, freshness, match.group(6), end, timeout_s)
            return self._submit("get", Get(key), end, timeout_s)
        if freshness:
            return None
        condition = _condition(wanted, unwanted)
        if method == b"PUT":
            ttl_ms = 0
            if ttl is not None:
                ttl_ms = parse_duration_ms(ttl.decode())
                if not 0 < ttl_ms <= MAX_TTL_MS:
                    return None
            if by or not 0 <= size <= limits.max_value_bytes or len(data) - end < size:
                return None
            value = data[end : end + size]
            operation = Set(key, value, ttl_ms, 0, condition)
            return self._write("put", operation, token, end + size, timeout_s)
        if ttl or size > 0:
            return None
        if method == b"DELETE":
            if by:
                return None
            return self._write("delete", Delete(key, condition), token, end, timeout_s)
        number = int(by or 1)
        if not INT64_MIN <= number <= INT64_MAX:
            return None
        return self._write("incr", Incr(key, number, condition), token, end, timeout_s)

    def _read(
        self, key: bytes, freshness: bytes, staleness: bytes | None, end: int, timeout_s: float
    ) -> Plain:
        """A read that is not linearizable."""
        bound = None if staleness is None else parse_duration_ms(staleness.decode()) / 1000
        consistency = Consistency.LEASE if freshness == b"lease" else Consistency.STALE
        now = self._service.now()
        plain = Plain("get", end, now)
        future = self._service.read(key, now + timeout_s, consistency, bound)
        future.add_done_callback(lambda future: plain.finish((future.result(),)))
        return plain

    def _write(
        self,
        name: str,
        operation: Set | Delete | Incr,
        token: bytes | None,
        end: int,
        timeout_s: float,
    ) -> Plain | None:
        """``token``: the value of an ``Idempotency-Key``."""
        if token is None:
            return self._submit(name, operation, end, timeout_s)
        session = session_in(token.decode(), self._limits)
        if session is None:
            return None
        return self._submit(name, Once(session, 0, operation), end, timeout_s)

    def _submit(
        self, name: str, operation: Get | Set | Delete | Incr | Once, end: int, timeout_s: float
    ) -> Plain:
        now = self._service.now()
        plain = Plain(name, end, now)
        self._service.submit((operation,), now + timeout_s, plain.finish)
        return plain


def _condition(wanted: bytes | None, unwanted: bytes | None) -> Condition | None:
    """By the values of ``If-Match`` and ``If-None-Match``, of which there is one at most."""
    if unwanted:
        return ABSENT
    if wanted == b"*":
        return EXISTS
    return Condition(Match.VERSION_IN, (int(wanted[1:-1]),)) if wanted else None
