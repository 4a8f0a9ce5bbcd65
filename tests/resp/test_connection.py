"""One connection: order, pipelines, and clients that do not behave."""

from __future__ import annotations

import asyncio

import pytest

from raftcache.resp.connection import MAX_BATCH_COMMANDS
from raftcache.resp.parser import split_inline
from raftcache.resp.replies import RedisError

from .conftest import SMALL, Served
from .wire import command


async def test_a_pipeline_over_many_groups_keeps_its_order(served: Served) -> None:
    wire = await served.connect()
    sent = [command("SET", f"k{i}", i) + command("GET", f"k{i}") for i in range(200)]
    wire.writer.write(b"".join(sent))
    for i in range(200):
        assert await wire.reply() == b"+OK\r\n"
        assert await wire.reply() == b"$%d\r\n%d\r\n" % (len(str(i)), i)


async def test_a_read_sees_the_write_before_it_whatever_cuts_the_stream(served: Served) -> None:
    wire = await served.connect()
    stream = b"".join(command("INCR", "n") + command("GET", "n") for _ in range(50))
    for i in range(0, len(stream), 7):
        wire.writer.write(stream[i : i + 7])
        await wire.writer.drain()
        if i % 3 == 0:
            await asyncio.sleep(0)
    for i in range(1, 51):
        assert await wire.reply() == b":%d\r\n" % i
        assert await wire.reply() == b"$%d\r\n%d\r\n" % (len(str(i)), i)


async def test_more_commands_than_one_batch_holds_are_all_answered(served: Served) -> None:
    wire = await served.connect()
    count = 2 * MAX_BATCH_COMMANDS + 10
    wire.writer.write(command("INCR", "n") * count)
    for i in range(1, count + 1):
        assert await wire.reply() == b":%d\r\n" % i


async def test_commands_for_all_groups_stand_at_their_place(served: Served) -> None:
    wire = await served.connect()
    sent = [command(*words.split()) for words in ("SET a 1", "DBSIZE", "SET b 1", "FLUSHALL")]
    wire.writer.write(b"".join([*sent, command("DBSIZE"), command("KEYS", "*"), command("PING")]))
    expected = [b"+OK\r\n", b":1\r\n", b"+OK\r\n", b"+OK\r\n", b":0\r\n", b"*0\r\n", b"+PONG\r\n"]
    assert [await wire.reply() for _ in expected] == expected


async def test_watch_and_exec_in_one_pipeline(served: Served) -> None:
    wire = await served.connect()
    sent = [command(*words.split()) for words in ("WATCH a", "MULTI", "SET a 1", "EXEC", "GET a")]
    wire.writer.write(b"".join(sent))
    expected = [b"+OK\r\n", b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n+OK\r\n", b"$1\r\n1\r\n"]
    assert [await wire.reply() for _ in expected] == expected


async def test_a_transaction_is_refused_when_somebody_else_wrote(served: Served) -> None:
    wire = await served.connect()
    await wire.ask("SET", "{t}a", 1)
    await wire.ask("WATCH", "{t}a", "{t}b")
    assert await served.ask("SET", "{t}b", "other") == b"+OK\r\n"
    await wire.ask("MULTI")
    await wire.ask("SET", "{t}a", 2)
    assert await wire.ask("EXEC") == b"*-1\r\n"
    assert await wire.ask("GET", "{t}a") == b"$1\r\n1\r\n"


async def test_keys_of_different_slots_do_not_go_together(served: Served) -> None:
    wire = await served.connect()
    for words in ("RENAME a b", "COPY a b", "WATCH a b", "MSET a 1 b 2 c 3 d 4"):
        assert (await wire.ask(*words.split())).startswith(b"-CROSSSLOT ")
    await wire.ask("MULTI")
    await wire.ask("SET", "a", 1)
    await wire.ask("SET", "b", 1)
    assert (await wire.ask("EXEC")).startswith(b"-CROSSSLOT ")
    assert await wire.ask("EXISTS", "a", "b") == b":0\r\n"


@pytest.mark.parametrize(
    ("garbage", "answer", "typed"),
    [
        (b"*1\r\n:1\r\n", b"expected '$'", False),
        (b"+PING\r\n", b"expected '*'", False),
        (b"*x\r\n", b"invalid multibulk length", False),
        (b"*2000000000\r\n", b"invalid multibulk length", False),
        (b"*1048577\r\n", b"invalid multibulk length", False),
        (b"*1\r\n$x\r\n", b"invalid bulk length", False),
        (b"*1\r\n$-5\r\n", b"invalid bulk length", False),
        (b"*1\r\n$2000000000\r\n", b"invalid bulk length", False),
        (b"*1\r\nPING\r\n", b"expected '$', got 'P'", False),
        (b"GET 'unbalanced\r\n", b"unbalanced quotes in request", True),
        (b"x" * 70_000, b"too big inline request", True),
    ],
)
async def test_garbage_gets_redis_error_and_the_connection_ends(
    garbage: bytes, answer: bytes, typed: bool, served: Served
) -> None:
    wire = await served.connect()
    other = await served.connect()
    before = b"PING\r\n" if typed else command("PING")
    wire.writer.write(before + garbage)
    assert await wire.ended() == b"+PONG\r\n-ERR Protocol error: " + answer + b"\r\n"
    assert await other.ask("PING") == b"+PONG\r\n"


async def test_a_huge_length_in_two_pieces_is_refused_too(served: Served) -> None:
    wire = await served.connect()
    wire.writer.write(b"*20000")
    await wire.writer.drain()
    await asyncio.sleep(0.01)
    wire.writer.write(b"00000\r\n")
    assert b"invalid multibulk length" in await wire.ended()


async def test_a_value_that_looks_like_a_huge_length_is_a_value(served: Served) -> None:
    wire = await served.connect()
    for value in (
        b"*12345678\n$99999999 in\n*99999999\r\none",
        b"\n*1",
        b"\n$",
        b"\n$99999999\r\n",
    ):
        wire.writer.write(command("SET", "k", value) + command("GET", "k"))
        assert await wire.reply() == b"+OK\r\n"
        assert await wire.reply() == b"$%d\r\n%b\r\n" % (len(value), value)


async def test_values_come_whole_wherever_the_stream_is_cut(served: Served) -> None:
    wire = await served.connect()
    value = b"a\n*12345678\r\n$99999999\r\nb\n$"
    stream = command("SET", "k", value) + command("GET", "k")
    for cut in range(1, len(stream)):
        for piece in (stream[:cut], stream[cut:]):
            wire.writer.write(piece)
            await wire.writer.drain()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert await wire.reply() == b"+OK\r\n"
        assert await wire.reply() == b"$%d\r\n%b\r\n" % (len(value), value)


async def test_a_command_that_never_ends_is_cut_off(served: Served) -> None:
    wire = await served.connect()
    size = served.server.max_command_bytes // 2
    wire.writer.write(b"*4\r\n$3\r\nSET\r\n" + b"$%d\r\n" % size + b"x" * size + b"\r\n")
    wire.writer.write(b"$%d\r\n" % size + b"y" * size)
    assert b"-ERR Protocol error: invalid bulk length\r\n" in await wire.ended()


async def test_limits_are_named_in_their_errors(served: Served) -> None:
    wire = await served.connect()
    long_key = await wire.ask("GET", b"k" * (SMALL.max_key_bytes + 1))
    assert long_key == b"-ERR key has 201 bytes, max_key_bytes is 200\r\n"
    long_value = await wire.ask("SET", "k", b"v" * (SMALL.max_value_bytes + 1))
    assert long_value == b"-ERR value has 100001 bytes, max_value_bytes is 100000\r\n"
    appended = await wire.ask("SETRANGE", "k", SMALL.max_value_bytes, "v")
    assert appended.startswith(b"-ERR string exceeds maximum allowed size")
    assert await wire.ask("EXISTS", "k") == b":0\r\n"


async def test_a_client_that_reads_nothing_is_served_no_further(served: Served) -> None:
    """What it asked for is not rendered before it reads; all of it comes once it does."""
    wire = await served.connect()
    assert await wire.ask("SET", "k", b"v" * 100_000) == b"+OK\r\n"
    asked = 400
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    wire.writer.write(command("GET", "k") * asked + command("PING"))
    (connection,) = served.server._connections
    async with asyncio.timeout(20):
        while connection.stalled_since is None:
            await asyncio.sleep(0.001)
    assert connection._transport is not None
    assert connection._transport.get_write_buffer_size() < 2 * 1024 * 1024
    assert await served.ask("PING") == b"+PONG\r\n"
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(asked):
        assert len(await wire.reply()) == 100_000 + len(b"$100000\r\n\r\n")
    assert await wire.reply() == b"+PONG\r\n"


async def test_one_client_too_many_is_turned_away(served: Served) -> None:
    for _ in range(served.server.max_clients):
        await (await served.connect()).ask("PING")
    wire = await served.connect()
    assert await wire.ended() == b"-ERR max number of clients reached\r\n"


async def test_quit_answers_and_closes(served: Served) -> None:
    wire = await served.connect()
    wire.writer.write(command("SET", "k", 1) + command("QUIT") + command("SET", "k", 2))
    assert await wire.ended() == b"+OK\r\n+OK\r\n"
    assert await served.ask("GET", "k") == b"$1\r\n1\r\n"


async def test_replies_can_be_switched_off(served: Served) -> None:
    wire = await served.connect()
    wire.writer.write(command("CLIENT", "REPLY", "SKIP") + command("SET", "k", 1))
    assert await wire.ask("GET", "k") == b"$1\r\n1\r\n"
    wire.writer.write(command("CLIENT", "REPLY", "OFF") + command("SET", "k", 2) + command("PING"))
    assert await wire.ask("CLIENT", "REPLY", "ON") == b"+OK\r\n"
    assert await wire.ask("GET", "k") == b"$1\r\n2\r\n"


async def test_people_may_type_commands(served: Served) -> None:
    wire = await served.connect()
    wire.writer.write(b'  SET k "a b\\n\\x41"  \n\r\nGET k\r\n')
    assert await wire.reply() == b"+OK\r\n"
    assert await wire.reply() == b"$5\r\na b\nA\r\n"
    assert await wire.ask("GET", "k") == b"$5\r\na b\nA\r\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", []),
        (b"a  b\tc", [b"a", b"b", b"c"]),
        (b"'a b' \"c d\"", [b"a b", b"c d"]),
        (rb"'it\'s' \x41", [b"it's", rb"\x41"]),
        (rb'"\t\\\"\q\x4"', [b'\t\\"qx4']),
        (b"''", [b""]),
    ],
)
def test_words_are_split_as_in_a_shell(line: bytes, words: list[bytes]) -> None:
    assert split_inline(line) == words


@pytest.mark.parametrize("line", [b"'a", b'"a', b"'a'b", b'"a"b'])
def test_quotes_must_match(line: bytes) -> None:
    with pytest.raises(RedisError):
        split_inline(line)
