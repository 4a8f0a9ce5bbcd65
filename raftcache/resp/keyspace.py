"""Commands on keys (https://redis.io/docs/latest/commands/?group=generic)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftcache.machine.costs import ENTRY, entry_cost
from raftcache.machine.evaluate import parse_integer
from raftcache.ops import Clear, Condition, Count, Delete, Expire, Get, Match, Move, Result, Status
from raftcache.resp.arguments import SYNTAX, integer, no_subcommand, relative_ms
from raftcache.resp.outcomes import checked
from raftcache.resp.replies import NULL, OK, ONE, ZERO, RedisError, bulk, simple
from raftcache.resp.replies import integer as integer_reply
from raftcache.resp.session import Ask, Everywhere, Plan, Session

_FLAGS: Final = {
    frozenset(): None,
    frozenset({b"NX"}): Condition(Match.PERSISTENT),
    frozenset({b"XX"}): Condition(Match.VOLATILE),
    frozenset({b"GT"}): Condition(Match.LATER),
    frozenset({b"LT"}): Condition(Match.SOONER),
    frozenset({b"XX", b"GT"}): Condition(Match.LATER),
    frozenset({b"XX", b"LT"}): Condition(Match.VOLATILE_SOONER),
}
_NO_KEY: Final = "ERR no such key"


def _found(result: Result) -> bool:
    return checked(result).status <= Status.CREATED


def _number_found(results: Sequence[Result]) -> bytes:
    return integer_reply(sum(_found(result) for result in results))


def delete(session: Session, args: list[bytes]) -> Plan:
    """``DEL`` and ``UNLINK``: each key for itself."""
    return Ask(tuple(Delete(key) for key in args[1:]), _number_found)


def exists(session: Session, args: list[bytes]) -> Plan:
    """``EXISTS`` and ``TOUCH``: reading is a use. A key named twice counts twice."""
    return Ask(tuple(Get(key) for key in args[1:]), _number_found)


def type_(session: Session, args: list[bytes]) -> Plan:
    return Ask((Get(args[1]),), lambda r: simple("string" if _found(r[0]) else "none"))


# -- expiry


def _ttl(convert: Callable[[int, float], int]) -> Callable[[Session, list[bytes]], Plan]:
    def handler(session: Session, args: list[bytes]) -> Plan:
        wall = session.server.service.wall

        def render(results: Sequence[Result]) -> bytes:
            result = checked(results[0])
            if result.status is Status.NOT_FOUND:
                return integer_reply(-2)
            left = result.ttl_ms
            return integer_reply(-1 if left < 0 else convert(left, wall()))

        return Ask((Get(args[1]),), render)

    return handler


ttl = _ttl(lambda left, _: (left + 500) // 1000)
pttl = _ttl(lambda left, _: left)
expiretime = _ttl(lambda left, wall: (int(wall * 1000) + left + 500) // 1000)
pexpiretime = _ttl(lambda left, wall: int(wall * 1000) + left)


def _expire(factor: int, absolute: bool, name: str) -> Callable[[Session, list[bytes]], Plan]:
    def handler(session: Session, args: list[bytes]) -> Plan:
        number, flags = integer(args[2]), _flags(args[3:])
        if not -(2**63) <= number * factor < 2**63:
            raise RedisError(f"ERR invalid expire time in '{name}' command")
        ttl_ms = relative_ms(number * factor, absolute, session.server.service.wall())
        if ttl_ms <= 0:
            # Past already. Any expiry is later than that.
            past = {Match.LATER: Match.VERSION_IN, Match.VOLATILE_SOONER: Match.VOLATILE}
            past[Match.SOONER] = Match.EXISTS
            condition = flags and Condition(past.get(flags.match, flags.match))
            return Ask((Delete(args[1], condition),), _one_if_found)
        return Ask((Expire(args[1], ttl_ms, flags),), _one_if_found)

    return handler


def _flags(args: list[bytes]) -> Condition | None:
    given = frozenset(arg.upper() for arg in args)
    for arg, name in zip(args, (arg.upper() for arg in args), strict=True):
        if name not in (b"NX", b"XX", b"GT", b"LT"):
            raise RedisError(f"ERR Unsupported option {arg.decode(errors='replace')}")
    if b"NX" in given and len(given) > 1:
        raise RedisError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {b"GT", b"LT"} <= given:
        raise RedisError("ERR GT and LT options at the same time are not compatible")
    return _FLAGS[given]


def _one_if_found(results: Sequence[Result]) -> bytes:
    return ONE if _found(results[0]) else ZERO


expire = _expire(1000, False, "expire")
pexpire = _expire(1, False, "pexpire")
expireat = _expire(1000, True, "expireat")
pexpireat = _expire(1, True, "pexpireat")


def persist(session: Session, args: list[bytes]) -> Plan:
    return Ask((Expire(args[1], 0, Condition(Match.VOLATILE)),), _one_if_found)


# -- two keys of one group


def rename(session: Session, args: list[bytes]) -> Plan:
    session.server.same_slot(args[1:3])

    def render(results: Sequence[Result]) -> bytes:
        if not _found(results[0]):
            raise RedisError(_NO_KEY)
        return OK

    return Ask((Move(args[1], args[2]),), render)


def renamenx(session: Session, args: list[bytes]) -> Plan:
    session.server.same_slot(args[1:3])

    def render(results: Sequence[Result]) -> bytes:
        if checked(results[0]).status is Status.NOT_FOUND:
            raise RedisError(_NO_KEY)
        return _one_if_found(results)

    return Ask((Move(args[1], args[2], replace=False),), render)


def copy(session: Session, args: list[bytes]) -> Plan:
    replace, rest = False, iter(args[3:])
    for arg in rest:
        if arg.upper() == b"REPLACE":
            replace = True
        elif arg.upper() == b"DB":
            if integer(next(rest, b"")) != 0:
                raise RedisError("ERR DB index is out of range")
        else:
            raise RedisError(SYNTAX)
    if args[1] == args[2]:
        raise RedisError("ERR source and destination objects are the same")
    session.server.same_slot(args[1:3])
    return Ask((Move(args[1], args[2], copy=True, replace=replace),), _one_if_found)


# -- all of them


def dbsize(session: Session, args: list[bytes]) -> Plan:
    """The sum over all groups, each linearizable."""
    return Everywhere(Count(), lambda r: integer_reply(sum(checked(each).number for each in r)))


def flushall(session: Session, args: list[bytes]) -> Plan:
    """``FLUSHALL`` and ``FLUSHDB``: every group, one after the other."""
    if len(args) > 2 or (len(args) == 2 and args[1].upper() not in (b"ASYNC", b"SYNC")):
        raise RedisError(SYNTAX)

    def render(results: Sequence[Result]) -> bytes:
        for result in results:
            checked(result)
        return OK

    return Everywhere(Clear(), render)


# -- about a value


def object_(session: Session, args: list[bytes]) -> Plan:
    name, resp3 = args[1].upper(), session.resp3
    if len(args) != 3 or name not in (b"ENCODING", b"REFCOUNT", b"IDLETIME", b"FREQ"):
        raise no_subcommand(args, "encoding", "refcount", "idletime", "freq")
    if name == b"FREQ":
        raise RedisError(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note"
            " that when switching between policies at runtime LRU and LFU data will take some time"
            " to adjust."
        )

    def render(results: Sequence[Result]) -> bytes:
        value = checked(results[0]).value
        if value is None:
            return NULL[resp3]
        if name == b"ENCODING":
            return bulk(encoding_of(value))
        return ONE if name == b"REFCOUNT" else ZERO

    return Ask((Get(args[2]),), render)


def encoding_of(value: bytes) -> bytes:
    """How Redis would hold the value."""
    if parse_integer(value) is not None:
        return b"int"
    return b"embstr" if len(value) <= 44 else b"raw"


def memory(session: Session, args: list[bytes]) -> Plan:
    if args[1].upper() != b"USAGE" or len(args) not in (3, 5):
        raise RedisError(SYNTAX)
    key, resp3 = args[2], session.resp3

    def render(results: Sequence[Result]) -> bytes:
        result = checked(results[0])
        if result.value is None:
            return NULL[resp3]
        entry = (result.value, result.version, max(0, result.ttl_ms))
        return integer_reply(entry_cost(key, entry, ENTRY))

    return Ask((Get(key),), render)
