"""The load generator counts what a client sees."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from raftcache.bench import load
from raftcache.bench.dialects import DIALECTS
from raftcache.bench.load import BenchError, fill, measure
from raftcache.bench.report import Report
from raftcache.bench.workload import Workload
from tests.cli.conftest import raftcache

from .conftest import RespServer, ServerFactory, Store


def run(
    server: RespServer, workload: Workload, dialect: str = "resp", *, fill_first: bool = True
) -> Report:
    where = [("127.0.0.1", server.port)]
    return asyncio.run(
        measure(DIALECTS[dialect], where, workload, 4, 0.3, 0.05, fill_first=fill_first)
    )


def test_reads_find_every_key_since_all_are_stored_before(resp_server: ServerFactory) -> None:
    store = Store()
    report = run(resp_server(store), Workload("get", keys=700, pipeline=8))
    assert len(store.values) == 700
    assert report.latencies.count > 0
    assert report.latencies.count % 8 == 0
    assert (report.misses, report.errors) == (0, 0)
    assert report.client_cpu_s > 0


def test_what_is_not_there_is_counted_as_missed(resp_server: ServerFactory) -> None:
    report = run(resp_server(Store()), Workload("get", keys=10), fill_first=False)
    assert report.misses >= report.latencies.count > 0


def test_an_error_is_counted_and_the_first_one_kept(resp_server: ServerFactory) -> None:
    report = run(resp_server(lambda command: b"-ERR no\r\n"), Workload("set"))
    assert report.errors >= report.latencies.count > 0
    assert report.first_error == "ERR no"


def test_a_server_that_refuses_to_be_filled_ends_the_load(resp_server: ServerFactory) -> None:
    server = resp_server(lambda command: b"-ERR full\r\n")
    with pytest.raises(BenchError, match="ERR full"):
        asyncio.run(fill(DIALECTS["resp"], [("127.0.0.1", server.port)], Workload("get", 10)))


def test_a_server_that_does_not_answer_ends_the_filling(
    resp_server: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "ANSWER_TIMEOUT_S", 0.2)
    server = resp_server(lambda command: b"")
    with pytest.raises(BenchError, match="no answer"):
        asyncio.run(fill(DIALECTS["resp"], [("127.0.0.1", server.port)], Workload("get", 10)))


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "without Content-Length"),
        (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 4\r\n\r\nbusy", "busy"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "missed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nvalue", "found"),
    ],
)
def test_http_answers_are_told_apart(answer: bytes, seen: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(answer)
        writer.close()

    async def talked() -> Report:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        where = [server.sockets[0].getsockname()[:2]]
        report = await measure(
            DIALECTS["http"], where, Workload("get"), 2, 0.2, 0.0, fill_first=False
        )
        server.close()
        return report

    report = asyncio.run(talked())
    if seen in ("missed", "found"):
        assert report.latencies.count > 0
        assert report.errors == 0
        assert (report.misses > 0) == (seen == "missed")
    else:
        assert report.errors > 0
        assert seen in report.first_error


def test_redis_pipelines_end_with_a_wait_that_counts_as_no_operation(
    resp_server: ServerFactory,
) -> None:
    from peers import load_peers

    load_peers()
    from peers.redis_servers import WAIT_DIALECT

    replicas = b":1\r\n"
    server = resp_server(lambda command: replicas if command[0] == b"WAIT" else b"+OK\r\n")
    where = [("127.0.0.1", server.port)]
    good = asyncio.run(measure(WAIT_DIALECT, where, Workload("set", pipeline=3), 2, 0.2, 0.0))
    assert good.latencies.count % 3 == 0
    assert good.latencies.count > 0
    assert good.errors == 0
    assert [c[0] for c in server.commands[:4]] == [b"SET", b"SET", b"SET", b"WAIT"]
    replicas = b":0\r\n"
    bad = asyncio.run(measure(WAIT_DIALECT, where, Workload("set", pipeline=3), 2, 0.2, 0.0))
    assert bad.errors >= bad.latencies.count // 3 > 0
    assert bad.first_error == "WAIT: no replica has it"


def test_the_command_prints_what_it_measured(resp_server: ServerFactory) -> None:
    store = Store()
    address = f"127.0.0.1:{resp_server(store).port}"
    flags = ("-s", "0.3", "--warm-up", "0", "--keys", "50", "-P", "4", "-c", "4", "--json")
    done = raftcache("bench", "-a", address, "--workload", "set,mixed", *flags)
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert list(found) == ["set", "mixed"]
    assert all(each["operations"] > 0 and each["errors"] == 0 for each in found.values())
    assert len(store.values) == 50
