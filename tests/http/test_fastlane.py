"""The fast lane answers as the general handlers do, and takes what common clients send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import pytest
import structlog
from fake_service import FakeService
from front_end import SMALL, Running
from http_wire import Answer, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftcache.http.fastlane import FastLane
from raftcache.machine import Machine
from raftcache.ops import INT64_MAX, Condition, Delete, Get, Incr, Match, Once, Op, Set, Status
from raftcache.service import Consistency

COMMON = {
    "curl": b"GET /v1/keys/user:1 HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nUser-Agent: curl/7.88.1\r\n"
    b"Accept: */*\r\n\r\n",
    "wrk": b"PUT /v1/keys/user:1 HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nContent-Length: 3\r\n\r\nabc",
    "aiohttp": b"PUT /v1/keys/user:1 HTTP/1.1\r\nHost: 127.0.0.1:8001\r\nAccept: */*\r\n"
    b"Accept-Encoding: gzip, deflate\r\nUser-Agent: Python/3.11 aiohttp/3.14\r\n"
    b"Content-Length: 3\r\nContent-Type: application/octet-stream\r\n\r\nabc",
    "requests": b"GET /v1/keys/user%3A1 HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n"
    b"User-Agent: python-requests/2.32\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n"
    b"Connection: keep-alive\r\n\r\n",
    "go": b"PUT /v1/keys/user:1 HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n"
    b"User-Agent: Go-http-client/1.1\r\nContent-Length: 3\r\nAccept-Encoding: gzip\r\n\r\nabc",
    "undici": b"PUT /v1/keys/user:1 HTTP/1.1\r\nhost: 127.0.0.1:8001\r\n"
    b"connection: keep-alive\r\naccept: */*\r\naccept-language: *\r\nx-trace: 1\r\n"
    b"user-agent: node\r\ncontent-length: 3\r\n\r\nabc",
}

QUERIES = {
    b"GET /v1/keys/k?timeout=250ms": (Get(b"k"), 0.25),
    b"PUT /v1/keys/k?ttl=60s": (Set(b"k", b"abc", 60_000), SMALL.default_timeout_s),
    b"PUT /v1/keys/k?ttl=5&timeout=2s": (Set(b"k", b"abc", 5_000), 2.0),
    b"PUT /v1/keys/k?timeout=2s": (Set(b"k", b"abc"), 2.0),
    b"DELETE /v1/keys/k": (Delete(b"k"), SMALL.default_timeout_s),
    b"DELETE /v1/keys/k?timeout=1s": (Delete(b"k"), 1.0),
    b"POST /v1/keys/k/incr": (Incr(b"k"), SMALL.default_timeout_s),
    b"POST /v1/keys/a/k/incr?by=-5": (Incr(b"a/k", -5), SMALL.default_timeout_s),
    b"POST /v1/keys/k/incr?by=9223372036854775807&timeout=1s": (Incr(b"k", INT64_MAX), 1.0),
}

FRESHNESS = {
    b"?consistency=lease": (Consistency.LEASE, None),
    b"?consistency=stale": (Consistency.STALE, None),
    b"?consistency=stale&max_staleness=250ms": (Consistency.STALE, 0.25),
    b"?consistency=stale&max_staleness=0&timeout=1s": (Consistency.STALE, 0.0),
}

WRITES = {
    b"PUT /v1/keys/k": Set(b"k", b"abc"),
    b"DELETE /v1/keys/k": Delete(b"k"),
    b"POST /v1/keys/k/incr?by=3": Incr(b"k", 3),
}
CONDITIONS = {
    b"If-Match: *": Condition(Match.EXISTS),
    b'if-match: "17"': Condition(Match.VERSION_IN, (17,)),
    b"If-None-Match: *": Condition(Match.ABSENT),
}
TOKENS = {b"Idempotency-Key: a-1": b"a-1", b'idempotency-key: "a-1"': b"a-1"}

UNUSUAL = [
    b"GET /v1/keys/k HTTP/1.0\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k HTTP/1.1\r\n\r\n",
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /v1/keys/k HTTP/1.1\nHost: a\n\n",
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
    b"GET /v1/keys/k HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET /v1/keys/k?timeout=0 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?timeout=999999d HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?timeout=1.5s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?timeout= HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?t HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k? HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?ttl=1s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?consistency=linearizable HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?consistency=staler HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?consistency=lease&max_staleness=1s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?max_staleness=1s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?consistency=stale&ttl=1s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /v1/keys/k?consistency=stale HTTP/1.1\r\nHost: a\r\n\r\n",
    b"DELETE /v1/keys/k?consistency=stale HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/incr?consistency=lease HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /v1/keys/k?ttl=0 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/keys/k?ttl=999999999999d HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/keys/k?ttl=1s&ttl=1s HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/keys/k?ttl=1stimeout=1s HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/keys/k?ttl=1s& HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/keys/k?&timeout=1s HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/keys/k?keep_ttl=true HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"DELETE /v1/keys/k?ttl=1s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"DELETE /v1/keys/k?by=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k?by=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /v1/keys/k?by=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"POST /v1/keys/k HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/incr HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys//incr HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/expire HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k%2Fincr HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/incr?ttl=1s HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/incr?by= HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/incr?by=1.5 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/incr?by=9223372036854775808 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/incr?by=1&by=1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/keys/k/incr HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b'PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nIf-Match: "1", "2"\r\n\r\nx',
    b'DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-Match: W/"1"\r\n\r\n',
    b'DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-Match: "9223372036854775808"\r\n\r\n',
    b'DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-Match: "1"\r\nIf-Match: "2"\r\n\r\n',
    b'DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-Match: "1"\r\nIf-None-Match: *\r\n\r\n',
    b"DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\nIf-Match: *\r\n\r\n",
    b'DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-None-Match: "1"\r\n\r\n',
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n",
    b'GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-Match: "1"\r\n\r\n',
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\r\n\r\n",
    b"DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a b\r\n\r\n",
    b'DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIdempotency-Key: ""\r\n\r\n',
    b"DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIdempotency-Key: " + b"y" * 257 + b"\r\n\r\n",
    b"DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIdempotency-Key: a\r\nIdempotency-Key: a\r\n\r\n",
    b"GET /v1/keys/k% HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k%4 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
    b"DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIdempotency-Key: \r\n\r\n",
    b"DELETE /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-Match: \r\n\r\n",
    b"GET /v1/keys/%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b'GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nIf-None-Match: "1"\r\n\r\n',
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
    b"HEAD /v1/keys/k HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Encoding: br\r\n\r\nx",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT /v1/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 4097\r\n\r\n" + b"x" * 4097,
    b"GET /v1/keys/" + b"k" * 1025 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /v1/keys/k HTTP/1.1\r\nHost: a\r\nX-Long: " + b"y" * 5000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("client", COMMON)
async def test_common_clients_are_in_the_lane(service: FakeService, client: str) -> None:
    taken = FastLane(service, SMALL).start(COMMON[client] + b"GET")
    assert taken is not None
    assert taken.end == len(COMMON[client])
    if taken.operation == "put":
        assert service.writes[0][0] == Set(b"user:1", b"abc")
    else:
        assert service.reads[0][0] == b"user:1"


@pytest.fixture
def asked(service: FakeService) -> list[tuple[Sequence[Op], float]]:
    """What the lane asks the service: operations, and seconds to their deadline."""
    noted: list[tuple[Sequence[Op], float]] = []
    submit = service.submit

    def note(ops: Sequence[Op], deadline: float, done: Callable[..., None]) -> None:
        noted.append((ops, deadline - service.now()))
        submit(ops, deadline, done)

    service.submit = note  # type: ignore[method-assign]
    return noted


def plain(line: bytes, *headers: bytes) -> bytes:
    body = b"abc" if line.startswith(b"PUT") else b""
    size = [b"Content-Length: 3"] if body else []
    return b"\r\n".join([line + b" HTTP/1.1", b"Host: a", *headers, *size, b"", body])


@pytest.mark.parametrize("line", QUERIES)
async def test_deadlines_times_to_live_and_counts_are_in_the_lane(
    service: FakeService, asked: list[tuple[Sequence[Op], float]], line: bytes
) -> None:
    operation, timeout_s = QUERIES[line]
    assert FastLane(service, SMALL).start(plain(line))
    assert asked == [((operation,), pytest.approx(timeout_s, abs=0.05))]


@pytest.mark.parametrize("query", FRESHNESS)
async def test_reads_that_may_be_older_are_in_the_lane(http: Running, query: bytes) -> None:
    http.service.apply(Set(b"k", b"v"))
    answer = await answered(http, plain(b"GET /v1/keys/k" + query), in_lane=True)
    assert (answer.code, answer.body) == (200, b"v")
    ((key, _, consistency, bound),) = http.service.reads
    assert (key, consistency, bound) == (b"k", *FRESHNESS[query])
    assert FastLane(http.service, SMALL).start(plain(b"GET /v1/keys/k" + query))


@pytest.mark.parametrize("token", [b"", *TOKENS])
@pytest.mark.parametrize("condition", [b"", *CONDITIONS])
@pytest.mark.parametrize("line", WRITES)
async def test_a_condition_and_an_idempotency_key_are_in_the_lane(
    service: FakeService,
    asked: list[tuple[Sequence[Op], float]],
    line: bytes,
    condition: bytes,
    token: bytes,
) -> None:
    headers = [header for header in (token, condition) if header]
    assert FastLane(service, SMALL).start(plain(line, *headers))
    assert FastLane(service, SMALL).start(plain(line, *reversed(headers)))
    operation: Set | Delete | Incr = WRITES[line]
    if condition:
        operation = msgspec.structs.replace(operation, condition=CONDITIONS[condition])
    expected = Once(TOKENS[token], 0, operation) if token else operation
    assert [ops for ops, _ in asked] == [(expected,)] * 2


@pytest.mark.parametrize("data", UNUSUAL)
async def test_anything_unusual_is_not(service: FakeService, data: bytes) -> None:
    assert FastLane(service, SMALL).start(data) is None
    assert not service.reads
    assert not service.writes


async def answered(http: Running, data: bytes, *, in_lane: bool) -> Answer:
    """The answer to ``data``; outside the lane, it comes behind a request that leaves it."""
    wire = await http.connect()
    if not in_lane:
        wire.send(request("GET", "/healthz", None, {"TE": "trailers"}))
        await wire.answer()
    wire.send(data)
    try:
        return await wire.answer()
    finally:
        wire.close()


async def on_a_fresh_cache(http: Running, data: bytes, *, in_lane: bool) -> Answer:
    http.service.machine = Machine()
    http.service.apply(Set(b"k", b"stored", 60_000, 7))
    http.service.apply(Set(b"n", b"17"))
    return await answered(http, data, in_lane=in_lane)


HEADERS = st.sampled_from(
    [
        "Accept: */*",
        "X-Any: thing",
        "Connection: keep-alive",
        "Content-Type: text/plain",
        "connection: close",
        "If-Match: *",
        'If-Match: "1"',
        'if-match: "2"',
        "If-None-Match: *",
        'If-None-Match: "1"',
        "Idempotency-Key: a",
        'Idempotency-Key: "a"',
        "Content-Length: 0",
        "Content-Encoding: gzip",
        "Origin:",
        "X-Odd: \x7f",
        "no header",
    ]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    method=st.sampled_from(["GET", "PUT", "DELETE", "POST"]),
    key=st.sampled_from(["k", "n", "a/b", "%6b", "%zz", "", "a b", "é"]) | st.text("k/%61?"),
    query=st.sampled_from(["", "?", "?ttl=5s", "?timeout=1s", "?ttl=1d&timeout=9s", "?by=-2"])
    | st.sampled_from([query.decode() for query in FRESHNESS])
    | st.lists(
        st.sampled_from(
            [
                *("ttl=", "timeout=", "by=", "consistency=stale", "consistency=lease"),
                *("max_staleness=", "&", "&", "5", "0", "-", "s", "ms", "d", ".5"),
            ]
        ),
        max_size=8,
    ).map(lambda parts: "?" + "".join(parts)),
    before=st.lists(HEADERS, max_size=3),
    after=st.lists(HEADERS, max_size=2),
    body=st.binary(max_size=20),
)
async def test_the_lane_and_the_general_handlers_answer_alike(
    http: Running,
    method: str,
    key: str,
    query: str,
    before: list[str],
    after: list[str],
    body: bytes,
) -> None:
    length = [f"Content-Length: {len(body)}"] if method == "PUT" else []
    action = "/incr" if method == "POST" else ""
    lines = [
        f"{method} /v1/keys/{key}{action}{query} HTTP/1.1",
        "Host: a",
        *before,
        *length,
        *after,
        "",
        "",
    ]
    data = "\r\n".join(lines).encode() + (body if method == "PUT" else b"")
    one = await on_a_fresh_cache(http, data, in_lane=True)
    left = [http.service.stored(key) for key in (b"k", b"n")]
    other = await on_a_fresh_cache(http, data, in_lane=False)
    assert (one.code, one.body) == (other.code, other.body)
    assert {**one.headers, "date": ""} == {**other.headers, "date": ""}
    assert [http.service.stored(key) for key in (b"k", b"n")] == left


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.CREATED])
async def test_they_tell_every_outcome_alike(http: Running, status: Status) -> None:
    http.service.fail_with = status
    stale = plain(b"GET /v1/keys/k?consistency=stale")
    for data in (COMMON["curl"], stale, *(plain(line) for line in WRITES)):
        one = await answered(http, data, in_lane=True)
        other = await answered(http, data, in_lane=False)
        assert (one.code, one.body) == (other.code, other.body)


async def test_what_is_sent_ahead_waits_its_turn_and_order_is_kept(http: Running) -> None:
    http.service.hold()
    wire = await http.connect()
    wire.send(request("PUT", "/v1/keys/a", b"1", {}))
    await http.until(lambda: len(http.service.writes) == 1)
    wire.send(request("GET", "/v1/keys/a", None, {}) + request("DELETE", "/v1/keys/a", None, {}))
    wire.send(request("GET", "/v1/keys/a", None, {}))
    http.service.release()
    assert [(await wire.answer()).code for _ in range(4)] == [201, 200, 204, 404]
    wire.close()


@pytest.mark.parametrize(
    ("first", "codes"),
    [
        pytest.param(request("PUT", "/v1/keys/a", b"1", {}), [201, 200], id="in the lane"),
        pytest.param(request("PUT", "/v1/keys/n?flags=1", b"", {}), [201, 201], id="at aiohttp"),
    ],
)
async def test_a_flood_sent_ahead_is_read_no_further_than_the_backlog(
    http: Running, first: bytes, codes: list[int]
) -> None:
    """``codes``: of ``first`` and of the first one behind it."""
    http.service.hold()
    wire = await http.connect()
    wire.send(first)
    await http.until(lambda: len(http.service.writes) == 1)
    count = 5_000
    wire.send(request("PUT", "/v1/keys/a", b"v" * 1000, {}) * count)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(http.service.writes) == 1
    http.service.release()
    expected = codes + [200] * (count - 1)
    assert [(await wire.answer()).code for _ in range(count + 1)] == expected
    wire.close()


async def test_a_client_that_does_not_read_is_not_answered_without_end(http: Running) -> None:
    http.service.apply(Set(b"big", b"v" * 1_000_000))
    wire = await http.connect()
    count = 200
    wire.send(request("GET", "/v1/keys/big", None, {}) * count)
    await http.until(lambda: len(http.service.reads) > 0)
    for _ in range(200):
        await asyncio.sleep(0)
    assert len(http.service.reads) < count
    for _ in range(count):
        assert len((await wire.answer()).body) == 1_000_000
    wire.close()


async def test_a_bug_in_the_service_is_a_500_in_the_lane_too(
    http: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("injected")

    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(http.service, "submit", broken)
        answer = await http.send("PUT", "/v1/keys/k", b"1")
    assert (answer.code, answer.problem) == (500, "internal")
    assert [entry["event"] for entry in logs] == ["request failed"]
