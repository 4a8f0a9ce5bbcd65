"""``/v1/keys/{key}``: read, write, delete, count and expire one entry."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from aiohttp import hdrs

from raftcache.http import query as q
from raftcache.http.body import read_body, refuse_codings
from raftcache.http.conditions import etag, read_outcome, write_condition
from raftcache.http.exchange import Exchange, Reply
from raftcache.http.problems import Kind, ProblemError, bad_request, of_result, problem_reply
from raftcache.limits import Limits
from raftcache.ops import Condition, Delete, Expire, Incr, Once, Result, Set, Status
from raftcache.service import Consistency, Service

READ_PARAMETERS: Final = ("consistency", "max_staleness", "timeout")
PUT_PARAMETERS: Final = ("ttl", "keep_ttl", "flags", "timeout")
DELETE_PARAMETERS: Final = ("timeout",)
INCR_PARAMETERS: Final = ("by", "timeout")
EXPIRE_PARAMETERS: Final = ("ttl", "timeout")

ACTIONS: Final = ("incr", "expire")
MAX_FLAGS: Final = 2**32 - 1

IDEMPOTENCY_KEY: Final = "Idempotency-Key"

_VALUE_HEADERS: Final = (
    b'Content-Type: application/octet-stream\r\nCache-Control: no-cache\r\nETag: "%d"\r\n'
)
_JSON: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]+")
_encode: Final = msgspec.json.Encoder().encode


class Counter(msgspec.Struct):
    """The answer to ``incr``."""

    value: int
    version: int


class Expiry(msgspec.Struct):
    """The answer to ``expire``; ``ttl_ms`` is ``null`` when the entry does not expire."""

    version: int
    ttl_ms: int | None


def session_of(exchange: Exchange, limits: Limits) -> bytes | None:
    """The ``Idempotency-Key``, bare or as a quoted string (draft-ietf-httpapi-idempotency-key),
    which mean the same."""
    headers = exchange.parsed.headers
    if IDEMPOTENCY_KEY not in headers:
        return None
    values = headers.getall(IDEMPOTENCY_KEY)
    session = session_in(values[0], limits)
    if len(values) > 1 or session is None:
        longest = limits.max_idempotency_key_bytes
        raise bad_request(
            f"Idempotency-Key takes one value of 1 to {longest} visible ASCII characters."
        )
    return session


def session_in(text: str, limits: Limits) -> bytes | None:
    """What the value of an ``Idempotency-Key`` names; ``None`` when that is nothing."""
    if len(text) >= 2 and text[0] == '"' == text[-1]:
        text = text[1:-1]
    if not _VISIBLE_ASCII.fullmatch(text) or len(text) > limits.max_idempotency_key_bytes:
        return None
    return text.encode()


def found(result: Result) -> Reply:
    """The answer to a read without conditions."""
    if result.status is not Status.OK:
        return of_result(result)
    block = _VALUE_HEADERS % result.version
    if result.ttl_ms >= 0:
        block += b"Raftcache-TTL-Ms: %d\r\n" % result.ttl_ms
    if result.flags:
        block += b"Raftcache-Flags: %d\r\n" % result.flags
    return Reply(200, block, result.value or b"")


def stored(result: Result) -> Reply:
    """The answer to a PUT."""
    if result.status is Status.OK:
        return Reply(200, etag(result.version))
    if result.status is Status.CREATED:
        return Reply(201, etag(result.version))
    return of_result(result)


def deleted(result: Result) -> Reply:
    """The answer to a DELETE."""
    return Reply(204) if result.status is Status.OK else _missing_first(result)


def counted(result: Result) -> Reply:
    """The answer to an ``incr``."""
    if result.status is Status.OK or result.status is Status.CREATED:
        answer = Counter(result.number, result.version)
        return Reply(200, _JSON + etag(result.version), _encode(answer))
    return of_result(result)


class Keys:
    """The handlers. Each takes the exchange, the raw key and the raw query."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    async def get(self, exchange: Exchange, raw_key: str, raw_query: str) -> Reply:
        """GET and HEAD."""
        service, limits = self._service, self._limits
        key = q.parse_key(raw_key, limits)
        if raw_query:
            query = q.parse_query(raw_query, READ_PARAMETERS)
            consistency, max_staleness = _freshness(query)
            deadline = service.now() + q.timeout_s(query, limits)
            result = await service.read(key, deadline, consistency, max_staleness)
        else:
            result = await service.read(key, service.now() + limits.default_timeout_s)
        headers = exchange.parsed.headers
        if result.status is Status.OK and (
            hdrs.IF_NONE_MATCH in headers or hdrs.IF_MATCH in headers
        ):
            outcome = read_outcome(headers, result.version)
            if outcome == 304:
                return Reply(304, b"Cache-Control: no-cache\r\n" + etag(result.version))
            if outcome == 412:
                return _changed(result)
        return found(result)

    async def put(self, exchange: Exchange, raw_key: str, raw_query: str) -> Reply:
        limits = self._limits
        key = q.parse_key(raw_key, limits)
        query = q.parse_query(raw_query, PUT_PARAMETERS) if raw_query else q.NO_QUERY
        ttl_ms, flags, keep_ttl = _set_options(query) if query else (0, 0, False)
        timeout_s = q.timeout_s(query, limits) if query else limits.default_timeout_s
        deadline = self._service.now() + timeout_s
        refuse_codings(exchange)
        condition = write_condition(exchange.parsed.headers)
        session = session_of(exchange, limits)
        value = await read_body(exchange, limits.max_value_bytes, Kind.VALUE_TOO_LARGE, timeout_s)
        operation = Set(key, value, ttl_ms, flags, condition, keep_ttl)
        return stored(await self._write(operation, session, deadline))

    async def delete(self, exchange: Exchange, raw_key: str, raw_query: str) -> Reply:
        key, _, condition, session, deadline = self._write_request(
            exchange, raw_key, raw_query, DELETE_PARAMETERS
        )
        return deleted(await self._write(Delete(key, condition), session, deadline))

    async def incr(self, exchange: Exchange, raw_key: str, raw_query: str) -> Reply:
        key, query, condition, session, deadline = self._write_request(
            exchange, raw_key, raw_query, INCR_PARAMETERS
        )
        by = q.int64(query, "by", 1)
        return counted(await self._write(Incr(key, by, condition), session, deadline))

    async def expire(self, exchange: Exchange, raw_key: str, raw_query: str) -> Reply:
        key, query, condition, session, deadline = self._write_request(
            exchange, raw_key, raw_query, EXPIRE_PARAMETERS
        )
        ttl_ms = q.duration_ms(query, "ttl")
        if ttl_ms is None:
            raise bad_request("expire needs ?ttl=, such as ?ttl=30s; ?ttl=0 removes the expiry.")
        if ttl_ms:
            q.check_ttl(ttl_ms, zero_means="0 removes the expiry")
        result = await self._write(Expire(key, ttl_ms, condition), session, deadline)
        if result.status is not Status.OK:
            return _missing_first(result)
        answer = Expiry(result.version, ttl_ms or None)
        return Reply(200, _JSON + etag(result.version), _encode(answer))

    def _write_request(
        self, exchange: Exchange, raw_key: str, raw_query: str, parameters: tuple[str, ...]
    ) -> tuple[bytes, q.Query, Condition | None, bytes | None, float]:
        """What every write without a body takes: key, query, condition, session, deadline."""
        key = q.parse_key(raw_key, self._limits)
        query = q.parse_query(raw_query, parameters)
        deadline = self._service.now() + q.timeout_s(query, self._limits)
        condition = write_condition(exchange.parsed.headers)
        return key, query, condition, session_of(exchange, self._limits), deadline

    async def _write(
        self, operation: Set | Delete | Incr | Expire, session: bytes | None, deadline: float
    ) -> Result:
        if session is None:
            return await self._service.write(operation, deadline)
        return await self._service.write(Once(session, 0, operation), deadline)


def _freshness(query: q.Query) -> tuple[Consistency, float | None]:
    word = query.get("consistency", Consistency.LINEARIZABLE.value)
    try:
        consistency = Consistency(word)
    except ValueError:
        known = ", ".join(choice.value for choice in Consistency)
        raise bad_request(f"The query parameter 'consistency' should be one of {known}.") from None
    staleness_ms = q.duration_ms(query, "max_staleness")
    if staleness_ms is None:
        return consistency, None
    if consistency is not Consistency.STALE:
        raise bad_request("max_staleness goes with consistency=stale only.")
    return consistency, staleness_ms / 1000


def _set_options(query: q.Query) -> tuple[int, int, bool]:
    """TTL in ms (0: none), flags, keep_ttl."""
    keep_ttl = q.boolean(query, "keep_ttl")
    ttl_ms = q.duration_ms(query, "ttl")
    if ttl_ms is not None:
        if keep_ttl:
            raise bad_request("ttl and keep_ttl=true exclude each other; send one of them.")
        q.check_ttl(ttl_ms, zero_means="leave it out for a value that does not expire")
    return ttl_ms or 0, q.integer(query, "flags", 0, 0, MAX_FLAGS), keep_ttl


def _changed(result: Result) -> Reply:
    return problem_reply(
        Kind.PRECONDITION_FAILED,
        "The entry's ETag is none of those in If-Match.",
        version=result.version,
    )


def _missing_first(result: Result) -> Reply:
    """Preconditions do not count where the answer without them were 404 (RFC 9110 section
    13.2.1): a failed condition on a missing key is reported as the missing key."""
    if result.status is Status.PRECONDITION_FAILED and result.version == 0:
        return of_result(Result(Status.NOT_FOUND))
    return of_result(result)


def split_action(raw_key: str) -> tuple[str, str] | None:
    """Key and action of a POST below ``/v1/keys/``: the last raw segment is the action, so that
    keys with ``/`` work here too."""
    key, slash, action = raw_key.rpartition("/")
    if not slash or action not in ACTIONS:
        return None
    return key, action


def method_not_allowed(allow: str) -> ProblemError:
    """405 with ``Allow`` (RFC 9110 section 15.5.6)."""
    return ProblemError(
        Kind.METHOD_NOT_ALLOWED,
        f"This path takes {allow}.",
        headers=f"Allow: {allow}\r\n".encode(),
    )
