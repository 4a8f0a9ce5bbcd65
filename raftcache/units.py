"""Durations and sizes as people write them: ``30s``, ``500ms``, ``1.5h``; ``256mb``, ``64kib``.

Settings, flags and query parameters all read them here, so that ``30s`` means the same everywhere.
A number without a unit is seconds (durations) or bytes (sizes). Arithmetic is exact: ``0.1s`` is
100 ms, never 99. Everything that cannot be read is a ``ValueError`` whose message says what to
write instead.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

DURATION_PATTERN: Final = r"^[0-9]{1,20}(\.[0-9]{1,9})?(ms|s|m|h|d)?$"
"""What ``parse_duration_ms`` reads, as a JSON Schema pattern."""

_NUMBER: Final = r"([0-9]{1,20}(?:\.[0-9]{1,9})?)"
_DURATION: Final = re.compile(_NUMBER + r"(ms|s|m|h|d)?")
_SIZE: Final = re.compile(_NUMBER + r" ?([a-z]{0,3})")

_MS: Final = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}

_BYTES: Final = {"": 1, "b": 1} | {
    prefix + suffix: 1024**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix in ("", "b", "ib")
}


def parse_duration_ms(text: str) -> int:
    """Milliseconds in ``text``: digits, an optional fraction, an optional unit of ``ms``, ``s``
    (when there is none), ``m``, ``h``, ``d``. Zero is allowed; signs, spaces, exponents and
    fractions of a millisecond are not."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{_shown(text)} is not a duration: write a number and one of ms, s, m, h, d,"
            " such as 500ms, 30s or 1.5h (no unit: seconds)"
        )
    number, unit = match.groups()
    factor = _MS[unit or "s"]
    if number.isdigit():
        return int(number) * factor
    milliseconds = Decimal(number) * factor
    if milliseconds != int(milliseconds):
        raise ValueError(f"{_shown(text)} is not a whole number of milliseconds")
    return int(milliseconds)


def parse_duration(text: str) -> float:
    """Seconds in ``text``; see ``parse_duration_ms``."""
    return parse_duration_ms(text) / 1000


def format_duration(milliseconds: int) -> str:
    """The shortest text that ``parse_duration_ms`` reads back as ``milliseconds``."""
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % _MS[unit] == 0:
            return f"{milliseconds // _MS[unit]}{unit}"
    return f"{milliseconds}ms"


def parse_size(text: str) -> int:
    """Bytes in ``text``: a number and an optional unit of ``b``, ``kb``, ``mb``, ``gb``, ``tb``
    in any case. As in memory sizes everywhere, ``kb`` is 1024 bytes; ``k`` and ``kib`` mean the
    same."""
    match = _SIZE.fullmatch(text.strip().lower())
    factor = _BYTES.get(match.group(2)) if match else None
    if match is None or factor is None:
        raise ValueError(
            f"{_shown(text)} is not a size: write a number and one of b, kb, mb, gb, tb,"
            " such as 256mb or 64kib (no unit: bytes; 1 kb is 1024 bytes)"
        )
    size = Decimal(match.group(1)) * factor
    if size != int(size):
        raise ValueError(f"{_shown(text)} is not a whole number of bytes")
    return int(size)


def format_size(size: int) -> str:
    """The shortest text that ``parse_size`` reads back as ``size``."""
    for power, unit in ((4, "tb"), (3, "gb"), (2, "mb"), (1, "kb")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return f"{size}b"


def _shown(text: str) -> str:
    """``text`` quoted, cut to a length fit for an error message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")
