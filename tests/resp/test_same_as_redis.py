"""The same commands to a real Redis and to a node: the same bytes come back.

Skipped where no Redis server is installed. What is compared is written down as a script of lines,
and then drawn at random. ``{t}`` keeps the keys in one slot, so that commands with two keys work.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from raftcache.resp.parser import split_inline

from .conftest import Served
from .wire import Wire

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


TIMES = (b"TTL", b"EXPIRETIME")
SLACK_S = 5
"""The two are asked one after the other, and the machine may be busy."""


async def both(served: Served, port: int) -> tuple[Wire, Wire]:
    ours, theirs = await served.connect(), await Wire.open(port)
    assert await theirs.ask("FLUSHALL") == await ours.ask("FLUSHALL")
    return ours, theirs


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
async def test_a_script_gets_the_same_replies(
    script: Path, served: Served, redis_port: int
) -> None:
    ours, theirs = await both(served, redis_port)
    for number, line in enumerate(script.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            words = split_inline(line.encode())
            expected, got = await theirs.ask(*words), await ours.ask(*words)
            assert same(words[0], got, expected), (number, line, got, expected)
    theirs.close()


def same(name: bytes, got: bytes, expected: bytes) -> bool:
    """Byte for byte, but for seconds that have passed between the two."""
    timed = name.upper() in TIMES and got[:1] == expected[:1] == b":"
    return got == expected or (timed and abs(int(got[1:]) - int(expected[1:])) <= SLACK_S)


def glob(rng: random.Random) -> str:
    pieces = [
        "*",
        "?",
        "a",
        "b",
        "[ab]",
        "[^a]",
        "[a-c]",
        "[c-a]",
        "\\\\",
        "\\*",
        "[",
        "]",
        "[^",
        "-",
        "[\\]a]",
    ]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 6)))


async def test_patterns_match_the_same_keys(served: Served, redis_port: int) -> None:
    rng = random.Random(1)
    ours, theirs = await both(served, redis_port)
    for _ in range(150):
        key = "".join(rng.choice("abc*?[]\\^-") for _ in range(rng.randint(1, 5)))
        assert await ours.ask("SET", key, 1) == await theirs.ask("SET", key, 1)
    for _ in range(400):
        pattern = glob(rng)
        found, expected = await ours.ask("KEYS", pattern), await theirs.ask("KEYS", pattern)
        assert sorted(found.split(b"\r\n")) == sorted(expected.split(b"\r\n")), pattern
    theirs.close()


KEYS = ["{t}a", "{t}b", "{t}c", "{t}none"]
VALUES = ["", "0", "7", "-12", "3.5", "1e3", "text", "9223372036854775807", " 5", "x" * 50]
NUMBERS = ["0", "1", "-1", "2", "5", "-100", "100", "99999999999999", "x", "1.5", "", "-0"]


def draw(rng: random.Random) -> list[str]:
    """A random command, right or wrong. Times to live are long and differ, so that no clock is
    seen."""
    seconds = str(rng.randrange(1000, 1_000_000, 10))
    key, other, value = rng.choice(KEYS), rng.choice(KEYS), rng.choice(VALUES)
    number, name = rng.choice(NUMBERS), rng.choice
    options = ["NX", "XX", "GET", "KEEPTTL", "EX", "PX", "1000", "0", "nx", "xx", "bogus"]
    flags = ["NX", "XX", "GT", "LT", "gt", "bogus"]
    some = [name(options) for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 4]))]
    return name(
        [
            ["SET", key, value, *some],
            ["SET", key, value],
            [name(["GET", "STRLEN", "GETDEL", "TYPE", "TTL", "PERSIST", "EXISTS", "DEL"]), key],
            ["GETEX", key, *name([[], ["PERSIST"], ["EX", number], ["EX", "100"], ["bogus"]])],
            [name(["GETSET", "SETNX", "APPEND", "INCRBYFLOAT"]), key, value],
            [name(["INCR", "DECR", "TTL", "INCRBY", "GETRANGE"]), key],
            [name(["INCRBY", "DECRBY", "INCRBYFLOAT"]), key, number],
            ["SETEX", key, number, value],
            [name(["GETRANGE", "SUBSTR"]), key, number, name(NUMBERS)],
            ["SETRANGE", key, name(["0", "3", "-1", "x", "20"]), value],
            ["MGET", key, other],
            ["MSET", key, value, other, name(VALUES)],
            ["MSETNX", key, value, other, name(VALUES)],
            [name(["DEL", "UNLINK", "EXISTS", "TOUCH"]), key, other],
            ["EXPIRE", key, name(["1000", "5000", "-1", "0", "x"])],
            ["EXPIRE", key, name([seconds, seconds, "-1"]), *(name(flags) for _ in range(2))],
            ["EXPIRE", key, name([seconds, seconds, "-1"]), name(flags)],
            [name(["RENAME", "RENAMENX"]), key, other],
            ["COPY", key, other, *name([[], ["REPLACE"], ["DB", "0"], ["bogus"]])],
            [name(["PING", "MULTI", "EXEC", "DISCARD", "UNWATCH", "EXEC", "MULTI"])],
            ["WATCH", key],
            ["ECHO", value],
            ["NOSUCHCOMMAND", key, value],
        ]
    )


@pytest.mark.parametrize("seed", range(8))
async def test_random_commands_get_the_same_replies(
    seed: int, served: Served, redis_port: int
) -> None:
    rng = random.Random(seed)
    ours, theirs = await both(served, redis_port)
    if seed % 2:
        assert await ours.ask("HELLO", "3") != await theirs.ask("HELLO", "2")
        await theirs.ask("HELLO", "3")
    said: list[list[str]] = []
    for _ in range(700):
        said.append(draw(rng))
        expected = await theirs.ask(*said[-1])
        got = await ours.ask(*said[-1])
        name = said[-1][0].encode()
        assert same(name, got, expected), f"seed {seed}, after {said[-12:]}: {got!r}, {expected!r}"
    theirs.close()
