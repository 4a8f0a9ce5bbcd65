"""Floating point sums as Redis's ``INCRBYFLOAT`` has them, the same on every replica.

Redis adds 80-bit ``long double``s of x86: 64 bits of significand, rounded to nearest, ties to even,
and writes the sum with 17 decimals less trailing zeros. What the host's C library would do must not
matter to a replicated state machine, so the arithmetic is exact (fractions) and rounded here. Text
goes through ``Decimal``: ``int`` refuses to convert more digits than the process is configured for.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

MAX_TEXT_BYTES: Final = 5 * 1024 - 1
"""Longer numbers are none (Redis's ``string2ld``)."""
SIGNIFICAND_BITS: Final = 64
MAX_EXPONENT: Final = 16384
"""Numbers are below 2 to this power."""
MIN_EXPONENT: Final = -16445
"""The smallest number above 0 is 2 to this power."""
DECIMALS: Final = 17

_NUMBER: Final = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,9}))?\Z")
_INFINITE: Final = re.compile(rb"[+-]?inf(?:inity)?\Z", re.IGNORECASE)


class FloatError(ValueError):
    """``overflow``: the sum is infinite; else an operand is no number."""

    def __init__(self, *, overflow: bool) -> None:
        super().__init__("overflow" if overflow else "not a number")
        self.overflow = overflow


def _round(exact: Fraction) -> Fraction:
    """To the nearest number of 64 significant bits; ``FloatError`` when that is none."""
    if not exact:
        return exact
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** max(exponent - SIGNIFICAND_BITS + 1, MIN_EXPONENT)
    rounded = round(exact / unit) * unit
    if abs(rounded) >= Fraction(2) ** MAX_EXPONENT:
        raise FloatError(overflow=True)
    return rounded


def _parse(text: bytes) -> Fraction:
    if len(text) > MAX_TEXT_BYTES:
        raise FloatError(overflow=False)
    match = _NUMBER.match(text)
    if match is None:
        raise FloatError(overflow=_INFINITE.match(text) is not None)
    if match[1] is not None and abs(int(match[1])) > 6000:
        raise FloatError(overflow=False)
    exact = Fraction(Decimal(text.decode()))
    try:
        number = _round(exact)
    except FloatError:
        raise FloatError(overflow=False) from None
    if exact and not number:
        raise FloatError(overflow=False)
    return number


def is_float(text: bytes) -> bool:
    """Whether ``text`` is a number, or infinite."""
    try:
        _parse(text)
    except FloatError as error:
        return error.overflow
    return True


def add_floats(text: bytes, by: bytes) -> bytes:
    """The sum, as text; ``FloatError``."""
    total = _round(_parse(text) + _parse(by))
    scaled = round(total * 10**DECIMALS)
    sign = b"-" if scaled < 0 else b""
    whole, part = divmod(abs(scaled), 10**DECIMALS)
    decimals = (b"%0*d" % (DECIMALS, part)).rstrip(b"0")
    digits = format(Decimal(whole), "f").encode()
    return sign + digits + (b"." + decimals if decimals else b"")
