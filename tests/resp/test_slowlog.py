"""``SLOWLOG`` and ``LATENCY``."""

from __future__ import annotations

import pytest

from raftcache.resp import slowlog
from raftcache.resp.slowlog import MAX_ENTRIES, SlowLog

from .conftest import Served
from .wire import command


@pytest.fixture
def everything_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftcache.resp.connection.SLOWER_THAN_S", 0.0)


@pytest.mark.usefixtures("everything_is_slow")
async def test_a_slow_command_is_kept_with_who_sent_it(served: Served) -> None:
    wire = await served.connect()
    await wire.ask("CLIENT", "SETNAME", "app")
    assert await wire.ask("SLOWLOG", "RESET") == b"+OK\r\n"
    await wire.ask("SET", "key", "value")
    (slow,) = [e for e in served.server.slow.entries if e.arguments[0] == b"SET"]
    assert slow.arguments == [b"SET", b"key", b"value"]
    assert slow.name == b"app" and slow.address.startswith("127.0.0.1:")
    reply = await wire.ask("SLOWLOG", "GET", "1")
    shown = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n"
    assert reply.startswith(b"*1\r\n*6\r\n") and shown in reply and reply.endswith(b"app\r\n")


@pytest.mark.usefixtures("everything_is_slow")
async def test_a_pipeline_is_one_entry(served: Served) -> None:
    wire = await served.connect()
    await wire.ask("SLOWLOG", "RESET")
    wire.writer.write(b"".join(command("GET", key) for key in "abc"))
    for _ in range(3):
        await wire.reply()
    kept = [e.arguments for e in served.server.slow.entries if e.arguments[0] == b"GET"]
    told = sum(1 + int(e[2].split()[1][1:]) if len(e) > 2 else 1 for e in kept)
    assert told == 3, "in as many entries as batches"
    assert [e[:2] for e in kept][-1] == [b"GET", b"a"]


async def test_a_quick_command_is_not_kept(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftcache.resp.connection.SLOWER_THAN_S", 60.0)
    await served.ask("SET", "key", "value")
    assert await served.ask("SLOWLOG", "LEN") == b":0\r\n"
    assert await served.ask("SLOWLOG", "GET") == b"*0\r\n"


async def test_what_is_kept_is_bounded(served: Served) -> None:
    log, wire = SlowLog(), await served.connect()
    await wire.ask("PING")
    (session,) = served.server.sessions()
    for _ in range(MAX_ENTRIES + 10):
        log.add([[b"MSET", *[b"x" * 1000] * 100]] * 5, 0.5, 1.0, session)
    assert len(log.entries) == MAX_ENTRIES
    first = log.entries[0]
    assert (first.number, first.microseconds) == (MAX_ENTRIES + 9, 500_000)
    assert len(first.arguments) == slowlog.MAX_ARGUMENTS + 1
    assert first.arguments[1] == b"x" * 128 + b"... (872 more bytes)"
    assert first.arguments[-2:] == [b"... (70 more arguments)", b"... (4 more commands)"]


@pytest.mark.parametrize("count", ["-2", "x", ""])
async def test_a_wrong_count_is_refused_as_redis_does(served: Served, count: str) -> None:
    expected = b"-ERR count should be greater than or equal to -1\r\n"
    assert await served.ask("SLOWLOG", "GET", count) == expected


async def test_latency_shows_the_distribution_of_each_command(served: Served) -> None:
    served.server.counters.observe("get", 0.0002, 3)
    served.server.counters.observe("get", 0.004)
    served.server.counters.observe("get", 60.0)
    reply = await served.ask("LATENCY", "HISTOGRAM", "get", "nosuch")
    assert reply == (
        b"*2\r\n$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:5\r\n$14\r\nhistogram_usec\r\n"
        b"*6\r\n$3\r\n250\r\n:3\r\n$4\r\n5000\r\n:4\r\n$8\r\n10000000\r\n:5\r\n"
    )
    assert await served.ask("LATENCY", "LATEST") == b"*0\r\n"
