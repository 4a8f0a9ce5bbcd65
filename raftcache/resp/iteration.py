"""``SCAN``, ``KEYS``, ``RANDOMKEY`` and keys by slot: all groups, one after the other.

A cursor is the group in its upper bits and the place in it (``machine.scan``) in the lower 53, so
that any node can go on from it. What a full iteration promises is what Redis promises: a key that
was there all the time is returned, one that never was is not, others may be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftcache.ops import RandomKey, Result, Scan, Status, decode_keys
from raftcache.resp.arguments import NOT_INTEGER, SYNTAX, integer
from raftcache.resp.replies import NULL, RedisError, array, bulk
from raftcache.resp.replies import integer as integer_reply
from raftcache.resp.session import Plan, Session, Steps

PLACE_BITS: Final = 53
DEFAULT_COUNT: Final = 10
PAGE: Final = 5_000
"""Keys looked at in one step of ``KEYS``."""


def scan(session: Session, args: list[bytes]) -> Plan:
    """``SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]``."""
    cursor = _cursor(args[1])
    pattern, count, none = None, DEFAULT_COUNT, False
    if len(args) % 2:
        raise RedisError(SYNTAX)
    for option, value in zip(args[2::2], args[3::2], strict=True):
        name = option.upper()
        if name == b"MATCH":
            pattern = value
        elif name == b"COUNT":
            count = integer(value)
            if count < 1:
                raise RedisError(SYNTAX)
        elif name == b"TYPE":
            none = value.lower() != b"string"
        else:
            raise RedisError(SYNTAX)
    group, place = cursor >> PLACE_BITS, cursor & ((1 << PLACE_BITS) - 1)
    groups = session.server.groups
    if group >= groups:
        return _page(0, [])

    def then(result: Result) -> bytes:
        following = 0
        if result.number:
            following = group << PLACE_BITS | result.number
        elif group + 1 < groups:
            following = (group + 1) << PLACE_BITS
        keys = [] if none else decode_keys(result.value or b"\x90")
        return _page(following, keys)

    return Steps(Scan(place, count, pattern), group, then)


def _cursor(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20 or int(text) >= 2**64:
        raise RedisError("ERR invalid cursor")
    return int(text)


def _page(cursor: int, keys: list[bytes]) -> bytes:
    return array([bulk(b"%d" % cursor), array(bulk(key) for key in keys)])


def _all(
    groups: list[int], pattern: bytes | None, slot: int, finish: Callable[[list[bytes]], bytes]
) -> Steps:
    """Every matching key of some groups."""
    found: list[bytes] = []
    left = list(groups)

    def then(result: Result) -> Steps | bytes:
        found.extend(decode_keys(result.value or b"\x90"))
        if result.number:
            return Steps(Scan(result.number, PAGE, pattern, slot), left[0], then)
        left.pop(0)
        return Steps(Scan(0, PAGE, pattern, slot), left[0], then) if left else finish(found)

    return Steps(Scan(0, PAGE, pattern, slot), left[0], then)


def keys(session: Session, args: list[bytes]) -> Plan:
    groups = list(range(session.server.groups))
    return _all(groups, args[1], -1, lambda found: array(bulk(key) for key in found))


def count_in_slot(session: Session, slot: int) -> Plan:
    """``CLUSTER COUNTKEYSINSLOT``."""
    group = session.server.group_of_slot(slot)
    return _all([group], None, slot, lambda found: integer_reply(len(found)))


def keys_in_slot(session: Session, slot: int, count: bytes) -> Plan:
    """``CLUSTER GETKEYSINSLOT``."""
    most, group = integer(count, NOT_INTEGER), session.server.group_of_slot(slot)
    if most < 0:
        raise RedisError("ERR Invalid number of keys")
    return _all([group], None, slot, lambda found: array(map(bulk, found[:most])))


def random_key(session: Session, args: list[bytes]) -> Plan:
    """Of some group, the next one when that is empty; groups are about equal in size."""
    server, resp3 = session.server, session.resp3
    draw = server.service.draw()
    first, left = draw % server.groups, server.groups

    def then(result: Result) -> Steps | bytes:
        nonlocal left
        left -= 1
        if result.status is Status.OK:
            return bulk(result.value or b"")
        if left == 0:
            return NULL[resp3]
        return Steps(RandomKey(draw), (first + server.groups - left) % server.groups, then)

    return Steps(RandomKey(draw), first, then)
