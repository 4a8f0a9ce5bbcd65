"""``MULTI``, ``EXEC``, ``DISCARD``, ``WATCH``: one atomic operation of one group.

``WATCH`` reads the keys' versions, linearizably; ``EXEC`` sends them along with the commands, and
the group applies all of it only while the versions still are what they were. A transaction's keys,
watched ones included, have to belong to one group (put the same ``{tag}`` into them).
"""

from __future__ import annotations

from collections.abc import Sequence

from raftcache.ops import Atomic, Get, Result, Simple, Status
from raftcache.resp.outcomes import checked
from raftcache.resp.replies import (
    EMPTY,
    NULL_ARRAY,
    OK,
    RedisError,
    array,
    error,
)
from raftcache.resp.session import Ask, Plan, Render, Session


def multi(session: Session, args: list[bytes]) -> Plan:
    if session.queue is not None:
        raise RedisError("ERR MULTI calls can not be nested")
    session.queue = []
    return OK


def discard(session: Session, args: list[bytes]) -> Plan:
    if session.queue is None:
        raise RedisError("ERR DISCARD without MULTI")
    session.end_transaction()
    return OK


def watch(session: Session, args: list[bytes]) -> Plan:
    if session.queue is not None:
        raise RedisError("ERR WATCH inside MULTI is not allowed")
    keys = args[1:]
    session.server.same_slot([*session.watched, *keys])

    def render(results: Sequence[Result]) -> bytes:
        for key, result in zip(keys, results, strict=True):
            session.watched.setdefault(key, checked(result).version)
        return OK

    return Ask(tuple(Get(key) for key in keys), render)


def unwatch(session: Session, args: list[bytes]) -> Plan:
    session.watched = {}
    return OK


def exec_(session: Session, args: list[bytes]) -> Plan:
    queue, watched, dirty = session.queue, tuple(session.watched.items()), session.dirty
    if queue is None:
        raise RedisError("ERR EXEC without MULTI")
    session.end_transaction()
    if dirty:
        raise RedisError("EXECABORT Transaction discarded because of previous errors.")
    resp3 = session.resp3
    ops: list[Simple] = []
    parts: list[bytes | tuple[int, int, Render]] = []
    for command, arguments in queue:
        try:
            plan = command.handler(session, arguments)
        except RedisError as refusal:
            parts.append(error(str(refusal)))
            continue
        if isinstance(plan, bytes):
            parts.append(plan)
        elif isinstance(plan, Ask):
            wanted = [op for op in plan.ops if isinstance(op, Simple)]
            parts.append((len(ops), len(wanted), plan.render))
            ops += wanted
        else:
            parts.append(error(f"ERR {command.name} is not available inside MULTI"))
    if not ops and not watched:
        return array([part for part in parts if isinstance(part, bytes)]) if parts else EMPTY
    session.server.same_slot([*(key for key, _ in watched), *keys_of(ops)])

    def render(results: Sequence[Result]) -> bytes:
        result = checked(results[0])
        if result.status is Status.PRECONDITION_FAILED:
            return NULL_ARRAY[resp3]
        return array(_render(part, result.parts) for part in parts)

    return Ask((Atomic(tuple(ops), independent=True, watched=watched),), render)


def keys_of(ops: Sequence[Simple]) -> list[bytes]:
    """The key of each that decides its group."""
    return [op.key for op in ops]


def _render(part: bytes | tuple[int, int, Render], results: Sequence[Result]) -> bytes:
    if isinstance(part, bytes):
        return part
    start, count, render = part
    try:
        return render(results[start : start + count])
    except RedisError as refusal:
        return error(str(refusal))
