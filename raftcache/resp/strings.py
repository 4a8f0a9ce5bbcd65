"""Commands on string values (https://redis.io/docs/latest/commands/?group=string)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from raftcache.machine.floats import is_float
from raftcache.ops import (
    Append,
    Condition,
    Delete,
    Expire,
    Get,
    Incr,
    IncrFloat,
    Match,
    Result,
    Set,
    SetMany,
    SetRange,
    Status,
)
from raftcache.resp.arguments import NOT_FLOAT, SYNTAX, expiry_ms, integer
from raftcache.resp.outcomes import TOO_LONG, checked
from raftcache.resp.replies import (
    NULL,
    OK,
    ONE,
    ZERO,
    RedisError,
    array,
    bulk,
    bulk_or_null,
)
from raftcache.resp.replies import integer as integer_reply
from raftcache.resp.session import Ask, Plan, Render, Session

_EXPIRIES: Final = (b"EX", b"PX", b"EXAT", b"PXAT")
_CONDITIONS: Final = {b"NX": Condition(Match.ABSENT), b"XX": Condition(Match.EXISTS)}


# -- reading


def _value(resp3: bool, result: Result) -> bytes:
    return bulk_or_null(checked(result).value, resp3)


def _its_value(session: Session) -> Render:
    """The reply that is the one result's value."""
    resp3 = session.resp3
    return lambda results: _value(resp3, results[0])


def get(session: Session, args: list[bytes]) -> Plan:
    return Ask((Get(args[1]),), _its_value(session))


def mget(session: Session, args: list[bytes]) -> Plan:
    """Each group's part is linearizable; the parts may be of different moments."""
    resp3 = session.resp3
    keys = tuple(Get(key) for key in args[1:])
    return Ask(keys, lambda results: array(_value(resp3, result) for result in results))


def strlen(session: Session, args: list[bytes]) -> Plan:
    return Ask((Get(args[1]),), lambda r: integer_reply(len(checked(r[0]).value or b"")))


def getrange(session: Session, args: list[bytes]) -> Plan:
    """``start`` and ``end`` count from the end when negative, and are both included."""
    start, end = integer(args[2]), integer(args[3])

    def render(results: Sequence[Result]) -> bytes:
        value = checked(results[0]).value or b""
        if start < 0 and end < 0 and start > end:
            return bulk(b"")
        first = max(0, start + len(value) if start < 0 else start)
        last = max(0, end + len(value) if end < 0 else end)
        return bulk(value[first : last + 1])

    return Ask((Get(args[1]),), render)


def getex(session: Session, args: list[bytes]) -> Plan:
    key, render = args[1], _its_value(session)
    if len(args) == 2:
        return Ask((Get(key),), render)
    option = args[2].upper()
    if option == b"PERSIST" and len(args) == 3:
        return Ask((Expire(key, 0, get=True),), render)
    if option not in _EXPIRIES or len(args) != 4:
        raise RedisError(SYNTAX)
    try:
        ttl_ms = expiry_ms(option, args[3], "getex", session.server.service.wall())
    except RedisError as refusal:
        # Only where there is something that could expire.
        return Ask((Get(key),), _nothing_or(str(refusal), session.resp3))
    return Ask((Expire(key, ttl_ms, get=True) if ttl_ms > 0 else Delete(key, get=True),), render)


def _nothing_or(refusal: str, resp3: bool) -> Render:
    def render(results: Sequence[Result]) -> bytes:
        if checked(results[0]).value is None:
            return NULL[resp3]
        raise RedisError(refusal)

    return render


# -- writing


def set_(session: Session, args: list[bytes]) -> Plan:
    """``SET key value [NX | XX | IFEQ value] [GET] [EX | PX | EXAT | PXAT | KEEPTTL]``."""
    if len(args) == 3:
        return Ask((Set(args[1], session.server.value(args[2])),), _set_reply)
    key, value = args[1], session.server.value(args[2])
    condition, expiry, get_old, keep = None, None, False, False
    rest = iter(args[3:])
    for each in rest:
        option = each.upper()
        if option in _CONDITIONS and condition is None:
            condition = _CONDITIONS[option]
        elif option == b"IFEQ" and condition is None:
            condition = Condition(Match.VALUE, value=_next(rest))
        elif option == b"GET":
            get_old = True
        elif option == b"KEEPTTL" and expiry is None:
            keep = True
        elif option in _EXPIRIES and expiry is None and not keep:
            expiry = (option, _next(rest))
        elif option in _CONDITIONS and _CONDITIONS[option] == condition:
            continue
        else:
            raise RedisError(SYNTAX)
    resp3, ttl_ms = session.resp3, 0
    if expiry is not None:
        # In the past: stored, and dead in the same moment.
        ttl_ms = max(1, expiry_ms(*expiry, "set", session.server.service.wall()))

    def render(results: Sequence[Result]) -> bytes:
        result = checked(results[0])
        if get_old:
            return bulk_or_null(result.value, resp3)
        return NULL[resp3] if result.status is Status.PRECONDITION_FAILED else OK

    return Ask((Set(key, value, ttl_ms, 0, condition, keep, get_old),), render)


def _next(rest: object) -> bytes:
    value = next(rest, None)  # type: ignore[call-overload]
    if value is None:
        raise RedisError(SYNTAX)
    assert isinstance(value, bytes)
    return value


def _set_reply(results: Sequence[Result]) -> bytes:
    checked(results[0])
    return OK


def setnx(session: Session, args: list[bytes]) -> Plan:
    write = Set(args[1], session.server.value(args[2]), condition=Condition(Match.ABSENT))
    return Ask((write,), lambda r: ONE if checked(r[0]).status is Status.CREATED else ZERO)


def setex(session: Session, args: list[bytes]) -> Plan:
    return _set_for(session, args, b"EX", "setex")


def psetex(session: Session, args: list[bytes]) -> Plan:
    return _set_for(session, args, b"PX", "psetex")


def _set_for(session: Session, args: list[bytes], unit: bytes, name: str) -> Plan:
    ttl_ms = expiry_ms(unit, args[2], name, 0.0)
    return Ask((Set(args[1], session.server.value(args[3]), ttl_ms),), _set_reply)


def getset(session: Session, args: list[bytes]) -> Plan:
    write = Set(args[1], session.server.value(args[2]), get=True)
    return Ask((write,), _its_value(session))


def getdel(session: Session, args: list[bytes]) -> Plan:
    return Ask((Delete(args[1], get=True),), _its_value(session))


def _pairs(session: Session, args: list[bytes], name: str) -> tuple[tuple[bytes, bytes], ...]:
    if len(args) % 2 == 0:
        raise RedisError(f"ERR wrong number of arguments for '{name}' command")
    server = session.server
    server.same_group(args[1::2])
    return tuple((k, server.value(v)) for k, v in zip(args[1::2], args[2::2], strict=True))


def mset(session: Session, args: list[bytes]) -> Plan:
    return Ask((SetMany(_pairs(session, args, "mset")),), _set_reply)


def msetnx(session: Session, args: list[bytes]) -> Plan:
    write = SetMany(_pairs(session, args, "msetnx"), only_new=True)
    return Ask((write,), lambda r: ONE if checked(r[0]).status is Status.OK else ZERO)


def append(session: Session, args: list[bytes]) -> Plan:
    limit = session.server.limits.max_value_bytes
    write = Append(args[1], args[2], limit)
    return Ask((write,), lambda r: integer_reply(checked(r[0], TOO_LARGE=TOO_LONG).number))


def setrange(session: Session, args: list[bytes]) -> Plan:
    offset = integer(args[2])
    if offset < 0:
        raise RedisError("ERR offset is out of range")
    write = SetRange(args[1], offset, args[3], session.server.limits.max_value_bytes)
    return Ask((write,), lambda r: integer_reply(checked(r[0], TOO_LARGE=TOO_LONG).number))


# -- counting


def _number(results: Sequence[Result]) -> bytes:
    return integer_reply(checked(results[0]).number)


def incr(session: Session, args: list[bytes]) -> Plan:
    return Ask((Incr(args[1]),), _number)


def decr(session: Session, args: list[bytes]) -> Plan:
    return Ask((Incr(args[1], -1),), _number)


def incrby(session: Session, args: list[bytes]) -> Plan:
    return Ask((Incr(args[1], integer(args[2])),), _number)


def decrby(session: Session, args: list[bytes]) -> Plan:
    by = integer(args[2])
    if by == -(2**63):
        raise RedisError("ERR decrement would overflow")
    return Ask((Incr(args[1], -by),), _number)


def incrbyfloat(session: Session, args: list[bytes]) -> Plan:
    if not is_float(args[2]):
        raise RedisError(NOT_FLOAT)

    def render(results: Sequence[Result]) -> bytes:
        overflow = "ERR increment would produce NaN or Infinity"
        result = checked(results[0], NOT_AN_INTEGER=NOT_FLOAT, OVERFLOW=overflow)
        return bulk(result.value or b"")

    return Ask((IncrFloat(args[1], args[2]),), render)
