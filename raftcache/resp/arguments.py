"""Arguments of commands: the checks and error texts of Redis 7."""

from __future__ import annotations

from typing import Final

from raftcache.machine.evaluate import parse_integer
from raftcache.ops import MAX_TTL_MS
from raftcache.resp.replies import RedisError

SYNTAX: Final = "ERR syntax error"
NOT_INTEGER: Final = "ERR value is not an integer or out of range"
NOT_FLOAT: Final = "ERR value is not a valid float"

_UNITS: Final = {
    b"EX": (1000, False),
    b"PX": (1, False),
    b"EXAT": (1000, True),
    b"PXAT": (1, True),
}


def integer(text: bytes, message: str = NOT_INTEGER) -> int:
    """A signed 64-bit integer."""
    number = parse_integer(text)
    if number is None:
        raise RedisError(message)
    return number


def expiry_ms(option: bytes, text: bytes, command: str, wall: float) -> int:
    """Milliseconds from now for ``EX``, ``PX``, ``EXAT`` and ``PXAT``; negative or 0: in the past.
    An absolute time counts from this node's wall clock, where the command enters."""
    factor, absolute = _UNITS[option]
    number = integer(text)
    if number <= 0 or number * factor > 2**63 - 1:
        raise RedisError(f"ERR invalid expire time in '{command}' command")
    return relative_ms(number * factor, absolute, wall)


def relative_ms(milliseconds: int, absolute: bool, wall: float) -> int:
    """A time to live; absolute ones are Unix times."""
    if absolute:
        milliseconds -= int(wall * 1000)
    return min(milliseconds, MAX_TTL_MS)


def no_subcommand(args: list[bytes], *known: str) -> RedisError:
    """Redis's error for a subcommand that does not exist, or (``known``) has other arguments."""
    command, given = args[0].decode().lower(), args[1][:128].decode(errors="replace")
    if given.lower() in known:
        name = f"{command}|{given.lower()}"
        return RedisError(f"ERR wrong number of arguments for '{name}' command")
    return RedisError(f"ERR unknown subcommand '{given}'. Try {command.upper()} HELP.")
