"""INCRBYFLOAT's arithmetic: Redis's to the last digit (x86's long double), on any machine."""

from __future__ import annotations

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftcache.machine.floats import FloatError, add_floats

# The nearest number of 64 significant bits to 10**4500.
_UNIT = 2 ** ((10**4500).bit_length() - 64)
_1E4500 = (10**4500 + _UNIT // 2) // _UNIT * _UNIT


@pytest.mark.parametrize(
    ("text", "by", "total"),
    [
        # Answers of Redis 7.0 on x86-64.
        (b"10.50", b"0.1", b"10.6"),
        (b"5.0e3", b"2.0e2", b"5200"),
        (b"0.1", b"0.2", b"0.3"),
        (b"-1", b"1", b"0"),
        (b"-0", b"0", b"0"),
        (b"1.", b"1", b"2"),
        (b"1e15", b"0.000001", b"1000000000000000"),
        (b"1e17", b"0.5", b"100000000000000000.5"),
        (b"1e4500", b"0", b"%b" % format(Decimal(_1E4500), "f").encode()),
        (b"0" * 5000 + b"7", b"1", b"8"),
        (b"123456789.123456789", b"9.87654321e-5", b"123456789.12355555443355115"),
    ],
)
def test_sums_are_those_of_redis(text: bytes, by: bytes, total: bytes) -> None:
    assert add_floats(text, by) == total


@pytest.mark.parametrize(
    "text",
    [b"", b" 1", b"1 ", b"nan", b"1_0", b"1e", b".", b"1e-4951", b"1e999999999", b"0" * 5120],
)
def test_what_is_no_number_is_refused(text: bytes) -> None:
    with pytest.raises(FloatError) as error:
        add_floats(text, b"1")
    assert not error.value.overflow


@pytest.mark.parametrize(("text", "by"), [(b"inf", b"1"), (b"1", b"-inf"), (b"1e4932", b"1e4932")])
def test_infinite_sums_are_an_overflow(text: bytes, by: bytes) -> None:
    with pytest.raises(FloatError) as error:
        add_floats(text, by)
    assert error.value.overflow


@given(st.decimals(-(10**9), 10**9, places=6), st.decimals(-(10**9), 10**9, places=6))
def test_a_sum_is_right_to_its_nineteen_digits(one: Decimal, other: Decimal) -> None:
    total = Decimal(add_floats(str(one).encode(), str(other).encode()).decode())
    assert abs(total - (one + other)) <= Decimal(2) ** -32


@given(st.binary(max_size=40))
def test_any_bytes_are_a_number_or_refused(text: bytes) -> None:
    with contextlib.suppress(FloatError):
        add_floats(text, b"0")
