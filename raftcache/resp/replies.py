"""Replies as bytes: RESP2 (https://redis.io/docs/reference/protocol-spec/) and RESP3.

The two differ in nulls, maps and a few types; ``resp3`` says which one a connection speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

OK: Final = b"+OK\r\n"
QUEUED: Final = b"+QUEUED\r\n"
EMPTY: Final = b"*0\r\n"
NULL: Final = (b"$-1\r\n", b"_\r\n")
"""No such value, by ``resp3``."""
NULL_ARRAY: Final = (b"*-1\r\n", b"_\r\n")
"""No such list (an aborted ``EXEC``), by ``resp3``."""
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"

Reply = bytes | str | int | None | list["Reply"] | dict[str, "Reply"]
"""What ``encode`` takes: bulk strings, integers, null, arrays and maps."""


class RedisError(Exception):
    """Ends a command with this error reply; starts with the error's code."""


def simple(text: str) -> bytes:
    """A simple string."""
    return b"+%s\r\n" % text.encode()


def error(text: str) -> bytes:
    """An error, such as ``ERR syntax error``. Line breaks would end it early."""
    return b"-%s\r\n" % text.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace")


def integer(number: int) -> bytes:
    """An integer."""
    return b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def bulk_or_null(value: bytes | None, resp3: bool) -> bytes:
    """A bulk string, or null."""
    return NULL[resp3] if value is None else bulk(value)


def array(parts: Iterable[bytes]) -> bytes:
    """An array of replies."""
    parts = list(parts)
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def mapping(pairs: Mapping[str, bytes], resp3: bool) -> bytes:
    """A map of replies; in RESP2 an array of keys and values."""
    head = b"%%%d\r\n" % len(pairs) if resp3 else b"*%d\r\n" % (2 * len(pairs))
    return head + b"".join(bulk(key.encode()) + value for key, value in pairs.items())


def encode(value: Reply, resp3: bool) -> bytes:
    """Any nested reply of bulk strings and integers."""
    if value is None:
        return NULL[resp3]
    if isinstance(value, str):
        return bulk(value.encode())
    if isinstance(value, bytes):
        return bulk(value)
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, list):
        return array(encode(each, resp3) for each in value)
    return mapping({key: encode(each, resp3) for key, each in value.items()}, resp3)
