"""What is counted of clients and their commands: ``INFO``, and the counters behind ``/metrics``."""

from __future__ import annotations

from .conftest import Served


async def info(served: Served, section: str) -> dict[str, str]:
    reply = (await served.ask("INFO", section)).decode()
    lines = [line for line in reply.split("\r\n") if ":" in line]
    return dict(line.split(":", 1) for line in lines)


def calls(fields: dict[str, str], command: str) -> int:
    text = fields[f"cmdstat_{command}"].split(",")[0]
    return int(text.removeprefix("calls="))


async def test_every_command_of_a_pipeline_is_counted_by_its_name(served: Served) -> None:
    wire = await served.connect()
    for key in "abc":
        await wire.ask("SET", key, "1")
        await wire.ask("GET", key)
    await wire.ask("MGET", "a", "b")
    await wire.ask("mget", "a", "b")
    await wire.ask("NOSUCH")
    fields = await info(served, "commandstats")
    assert [calls(fields, name) for name in ("set", "get", "mget", "unknown")] == [3, 3, 2, 1]
    stats = await info(served, "stats")
    assert int(stats["total_commands_processed"]) == 3 + 3 + 2 + 1 + 1, "and the INFO before"


async def test_command_statistics_are_shown_when_asked_for(served: Served) -> None:
    await served.ask("GET", "a")
    assert b"cmdstat_get" not in await served.ask("INFO")
    assert b"cmdstat_get" not in await served.ask("INFO", "default")
    for section in ("all", "everything", "Commandstats"):
        assert b"cmdstat_get:calls=1" in await served.ask("INFO", section)


async def test_errors_are_counted_by_their_first_word(served: Served) -> None:
    await served.ask("SET", "text", "text")
    for args in (("INCR", "text"), ("NOSUCH",), ("AUTH", "x", "y", "z"), ("EXEC",)):
        assert (await served.ask(*args))[:1] == b"-"
    wire = await served.connect()
    await wire.ask("MULTI")
    await wire.ask("NOSUCH")
    assert (await wire.ask("EXEC")).startswith(b"-EXECABORT")
    fields = await info(served, "errorstats")
    assert fields == {"errorstat_ERR": "count=5", "errorstat_EXECABORT": "count=1"}
    assert (await info(served, "stats"))["total_error_replies"] == "6"


async def test_a_value_that_looks_like_an_error_is_none(served: Served) -> None:
    await served.ask("SET", "k", "-ERR")
    assert await served.ask("GET", "k") == b"$4\r\n-ERR\r\n"
    assert await info(served, "errorstats") == {}


async def test_resetstat_begins_anew(served: Served) -> None:
    await served.ask("GET", "a")
    await served.ask("NOSUCH")
    assert await served.ask("CONFIG", "RESETSTAT") == b"+OK\r\n"
    fields = await info(served, "all")
    assert "cmdstat_get" not in fields and "errorstat_ERR" not in fields


async def test_connections_are_counted(served: Served) -> None:
    counters = served.server.counters
    for _ in range(3):
        await served.ask("PING")
    assert (counters.accepted, counters.connections()) == (3, 3)
