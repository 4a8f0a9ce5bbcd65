"""SCAN, KEYS and their like over all groups, and the index below them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftcache.machine.scan import KeyIndex, matcher, place
from raftcache.partition import slot_of

from .conftest import Served
from .wire import Wire, command


def strings(reply: bytes) -> list[bytes]:
    """The bulk strings of a reply."""
    return re.findall(rb"\$\d+\r\n([^\r]*)\r\n", reply)


async def scan(wire: Wire, *options: str | int) -> list[bytes]:
    """A full iteration's keys."""
    found: list[bytes] = []
    cursor = b"0"
    while True:
        cursor, *keys = strings(await wire.ask("SCAN", cursor, *options))
        found += keys
        if cursor == b"0":
            return found


async def fill(wire: Wire, count: int) -> set[bytes]:
    for i in range(count):
        wire.writer.write(command("SET", f"key:{i}", i))
    for _ in range(count):
        assert await wire.reply() == b"+OK\r\n"
    return {b"key:%d" % i for i in range(count)}


async def test_an_iteration_finds_every_key_once(served: Served) -> None:
    wire = await served.connect()
    keys = await fill(wire, 500)
    found = await scan(wire)
    assert len(found) == 500 and set(found) == keys
    assert set(await scan(wire, "COUNT", 1000)) == keys
    tens = {b"key:1%d" % i for i in range(10)}
    assert set(await scan(wire, "MATCH", "key:1?", "COUNT", 7)) == tens
    assert await scan(wire, "TYPE", "list") == []
    assert set(await scan(wire, "TYPE", "STRING")) == keys


async def test_keys_there_all_the_time_are_found_whatever_else_changes(served: Served) -> None:
    wire, other = await served.connect(), await served.connect()
    keys = await fill(wire, 300)
    found: list[bytes] = []
    cursor, round_ = b"0", 0
    while True:
        cursor, *page = strings(await wire.ask("SCAN", cursor, "COUNT", 20))
        found += page
        round_ += 1
        assert await other.ask("SET", f"new:{round_}", "x") == b"+OK\r\n"
        assert await other.ask("SET", f"key:{round_}", "changed") == b"+OK\r\n"
        assert await other.ask("DEL", f"new:{round_ - 1}") in (b":0\r\n", b":1\r\n")
        if cursor == b"0":
            break
    assert keys <= set(found)


async def test_a_new_iteration_sees_new_keys(served: Served) -> None:
    wire = await served.connect()
    await fill(wire, 20)
    assert len(await scan(wire)) == 20
    await wire.ask("SET", "one more", 1)
    assert len(await scan(wire)) == 21


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("SCAN x", b"-ERR invalid cursor\r\n"),
        ("SCAN -1", b"-ERR invalid cursor\r\n"),
        ("SCAN 0 COUNT 0", b"-ERR syntax error\r\n"),
        ("SCAN 0 COUNT x", b"-ERR value is not an integer or out of range\r\n"),
        ("SCAN 0 MATCH", b"-ERR syntax error\r\n"),
        ("SCAN 0 BOGUS 1", b"-ERR syntax error\r\n"),
        ("SCAN 18446744073709551615", b"*2\r\n$1\r\n0\r\n*0\r\n"),
        ("RANDOMKEY", b"$-1\r\n"),
        ("CLUSTER COUNTKEYSINSLOT 99999", b"-ERR Invalid slot\r\n"),
    ],
)
async def test_answers_without_keys(words: str, answer: bytes, served: Served) -> None:
    assert await served.ask(*words.split()) == answer


async def test_a_random_key_is_one_of_them(served: Served) -> None:
    wire = await served.connect()
    await wire.ask("SET", "only", 1)
    assert await wire.ask("RANDOMKEY") == b"$4\r\nonly\r\n"
    keys = await fill(wire, 50)
    found = {strings(await wire.ask("RANDOMKEY"))[0] for _ in range(60)}
    assert len(found) > 5 and found <= keys | {b"only"}


async def test_keys_are_found_by_their_slot(served: Served) -> None:
    wire = await served.connect()
    for i in range(5):
        await wire.ask("SET", f"{{tag}}{i}", i)
    slot = slot_of(b"{tag}")
    assert await wire.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == b":5\r\n"
    assert len(strings(await wire.ask("CLUSTER", "GETKEYSINSLOT", slot, 3))) == 3
    assert await wire.ask("CLUSTER", "COUNTKEYSINSLOT", (slot + 1) % 16384) == b":0\r\n"


@given(st.sets(st.binary(max_size=8), max_size=60), st.integers(1, 20))
def test_pages_cover_all_places_once(keys: set[bytes], count: int) -> None:
    index = KeyIndex(keys)
    for _ in index.steps():
        pass
    found: list[bytes] = []
    at = 0
    while True:
        page, following = index.page(at, count, keys)
        assert len(page) >= count or following == 0
        assert following == 0 or following > at
        found += page
        at = following
        if not at:
            break
    assert found == sorted(keys, key=lambda key: (place(key), key))


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_pattern_compiles(pattern: bytes, key: bytes) -> None:
    assert matcher(pattern, -1)(key) in (True, False)
    assert matcher(b"*" + re.sub(rb"([*?\[\\])", rb"\\\1", key) + b"*", -1)(b"x" + key + b"y")
