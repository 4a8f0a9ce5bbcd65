"""Durations and sizes as people write them (``raftcache.units``)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftcache.units import (
    DURATION_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_duration_ms,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500ms", 500),
        ("30s", 30_000),
        ("5m", 300_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1.5h", 5_400_000),
        ("0.001s", 1),
        ("30", 30_000),
        ("0", 0),
        ("007s", 7_000),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds
    assert parse_duration(text) == milliseconds / 1000


@pytest.mark.parametrize(
    "text",
    ["", "s", "-1s", "+1s", "1 s", "1e3", "1S", "1w", ".5s", "5.s", "٣s", "nan", "1" * 30, "1s\n"],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 500ms"):
        parse_duration_ms(text)


def test_a_fraction_of_a_millisecond_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of milliseconds"):
        parse_duration_ms("0.5ms")


@given(st.integers(0, 2**53))
def test_a_formatted_duration_reads_back(milliseconds: int) -> None:
    text = format_duration(milliseconds)
    assert parse_duration_ms(text) == milliseconds
    assert re.search(DURATION_PATTERN, text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256mb", 256 * 1024**2),
        ("1gb", 1024**3),
        ("64kib", 65_536),
        ("64K", 65_536),
        ("1.5 GB", 1024**3 * 3 // 2),
        ("2tb", 2 * 1024**4),
        ("12b", 12),
        ("12", 12),
        ("0", 0),
    ],
)
def test_a_size_is_a_number_and_a_unit_of_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "mb", "-1mb", "1pb", "1mbb", "1 000", "1e6", "many"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 256mb"):
        parse_size(text)


def test_a_fraction_of_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_size("0.3b")


@given(st.integers(0, 2**60))
def test_a_formatted_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size
