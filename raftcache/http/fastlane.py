"""The fast lane: plain reads and writes of one key, without a task, a parser object or a header
dictionary per request.

Most requests of a busy cache look alike: ``GET`` or ``PUT`` of a key, no query, no condition, the
whole request in one read. One regular expression recognises those, and nothing else. What it does
not recognise, down to a header it has not heard of, goes to aiohttp's parser as it came and is
served by the general handlers; the connection then stays there. So the lane need not know what a
malformed request is, and a test holds the two ways to the same answers.

Measured on one core at 64 connections over a service that answers after 0.5 ms: the CPU time of a
request falls from 50 to 21 microseconds (GET) and from 65 to 30 (PUT).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from raftcache.http.exchange import Reply
from raftcache.http.keys import found, stored
from raftcache.limits import Limits
from raftcache.ops import Get, Result, Set
from raftcache.service import Service

_VALUE: Final = rb": [\x20-\x7e]*+\r\n"
_REQUEST: Final = re.compile(
    rb"(GET|PUT) /v1/keys/((?:[\w.~:@!$&'()*+,;=/-]++|%[0-9A-Fa-f]{2})++) HTTP/1\.1\r\n"
    rb"(?i:Host): [\x21-\x7e]*+\r\n"
    rb"(?:"
    rb"(?(3)(?!))((?i:Content-Length): )([0-9]{1,15}+)\r\n"  # (?(3)(?!)): not a second time
    rb"|(?(5)(?!))((?i:User-Agent)" + _VALUE + rb")"
    rb"|(?(6)(?!))((?i:Content-Type)" + _VALUE + rb")"
    rb"|(?i:Accept|Accept-Encoding|Accept-Language|Referer|X-[A-Za-z0-9-]++)"
    + _VALUE
    + rb"|(?i:Connection: keep-alive)\r\n"
    rb")*+\r\n"
)
"""Possessive throughout: linear in its input, whatever that is."""

_LONGEST_HEAD: Final = 4096


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
        return found(self.result) if self.operation == "get" else stored(self.result)


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
        method, key, length = match.group(1, 2, 4)
        if b"%" in key:
            key = unquote_to_bytes(key)
        limits, service = self._limits, self._service
        if len(key) > limits.max_key_bytes:
            return None
        end = match.end()
        if method == b"GET":
            if length is not None and int(length):
                return None
            now = service.now()
            plain = Plain("get", end, now)
            service.submit((Get(key),), now + limits.default_timeout_s, plain.finish)
            return plain
        size = -1 if length is None else int(length)
        if not 0 <= size <= limits.max_value_bytes or len(data) - end < size:
            return None
        value = data[end : end + size]
        now = service.now()
        plain = Plain("put", end + size, now)
        service.submit((Set(key, value),), now + limits.default_timeout_s, plain.finish)
        return plain
