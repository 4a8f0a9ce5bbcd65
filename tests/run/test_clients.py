"""What clients make of a node's answers: surely not done, why not, and what nobody knows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jepsen_like.run.http_client import HttpClient, Versions
from jepsen_like.run.resp_client import RespClient
from jepsen_like.run.system import Client, Refused, StorageFull, Unknown
from raftcache.http.problems import code_of, of_result
from raftcache.ops import Result, Status
from raftcache.resp.outcomes import checked
from raftcache.resp.replies import RedisError, error
from tests.run.answering import answering

PARTS = (("set", "k", ("1",)), ("get", "k", ()), ("incr", "n", (2,)), ("del", "k", ()))


def http_failure(status: Status) -> bytes:
    reply = of_result(Result(status))
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (
        reply.code,
        len(reply.content),
        reply.content,
    )


def resp_failure(status: Status) -> bytes:
    with pytest.raises(RedisError) as raised:
        checked(Result(status))
    return error(str(raised.value))


def http_batch(*results: dict[str, Any]) -> bytes:
    body = json.dumps({"results": results}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def failed(status: Status) -> dict[str, Any]:
    return {"status": status.name.lower(), "code": code_of(status)}


async def outcome(client: Client, op: str, args: tuple[Any, ...] = ()) -> Any:
    """The result, or the type of what was raised."""
    try:
        return await client.invoke(op, "k", args, 5.0)
    except (Refused, Unknown) as failure:
        return type(failure)
    finally:
        await client.close()


FAILURES = [
    (Status.STORAGE_FULL, StorageFull),
    (Status.UNAVAILABLE, Refused),
    (Status.UNKNOWN, Unknown),
]


@pytest.mark.parametrize(("status", "expected"), FAILURES)
async def test_full_disks_are_told_from_other_refusals(status: Status, expected: type) -> None:
    async with answering(lambda _: http_failure(status)) as address:
        assert await outcome(HttpClient(address, Versions()), "set", ("1",)) is expected
        assert await outcome(HttpClient(address, Versions()), "batch", PARTS) is expected
    async with answering(lambda _: resp_failure(status)) as address:
        assert await outcome(RespClient(address, ifeq=True), "set", ("1",)) is expected


async def test_each_part_of_a_pipeline_has_an_outcome_of_its_own() -> None:
    full, unknown = resp_failure(Status.STORAGE_FULL), resp_failure(Status.UNKNOWN)
    async with answering(lambda _: full + b"$1\r\n7\r\n" + unknown + b":1\r\n") as address:
        results = await outcome(RespClient(address, ifeq=True), "batch", PARTS)
    assert isinstance(results[0], StorageFull) and isinstance(results[2], Unknown)
    assert results[1::2] == ["7", True]


async def test_each_part_of_a_batch_has_an_outcome_of_its_own() -> None:
    answer = http_batch(
        failed(Status.STORAGE_FULL),
        {"status": "ok", "code": 200, "value": "7", "version": 3},
        failed(Status.UNKNOWN),
        failed(Status.NOT_FOUND),
    )
    async with answering(lambda _: answer) as address:
        results = await outcome(HttpClient(address, Versions()), "batch", PARTS)
    assert isinstance(results[0], StorageFull) and isinstance(results[2], Unknown)
    assert results[1::2] == ["7", False]


async def test_a_transaction_that_nobody_knows_of_is_not_refused() -> None:
    answer = http_batch(failed(Status.ABORTED), failed(Status.UNKNOWN))
    async with answering(lambda _: answer) as address:
        parts = (("get", "{k}a"), ("set", "{k}a", "1"))
        assert await outcome(HttpClient(address, Versions()), "txn", parts) is Unknown


async def test_a_version_that_came_with_a_batch_serves_a_cas() -> None:
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        asked.append(request)
        if b"/v1/batch" in request:
            return http_batch({"status": "created", "code": 201, "version": 42})
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    async with answering(answer) as address:
        client = HttpClient(address, Versions())
        assert await client.invoke("batch", "", PARTS[:1], 5.0) == [True]
        assert await outcome(client, "cas", ("1", "2")) is True
    assert len(asked) == 2 and b'If-Match: "42"' in asked[1]


async def test_only_stale_reads_go_over_a_connection_that_has_said_readonly() -> None:
    asked: list[list[bytes]] = []

    def answer(request: bytes) -> bytes:
        words = [x for x in request.split(b"\r\n") if x in (b"GET", b"READONLY")]
        asked.append(words)
        return b"".join(b"$1\r\n7\r\n" if word == b"GET" else b"+OK\r\n" for word in words)

    async with answering(answer) as address:
        client = RespClient(address, ifeq=True)
        for op in ("stale", "get", "stale"):
            assert await client.invoke(op, "k", (100,) if op == "stale" else (), 5.0) == "7"
        await client.close()
        assert await client.invoke("stale", "k", (100,), 5.0) == "7"
        await client.close()
    assert asked == [[b"READONLY", b"GET"], [b"GET"], [b"GET"], [b"READONLY", b"GET"]]
