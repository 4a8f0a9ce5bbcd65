"""A connection's requests go through the fast lane and through aiohttp by turns, one after the
other."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser
from front_end import Running
from http_wire import request
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raftcache.http import HttpServer
from raftcache.http.fastlane import FastLane, Plain
from raftcache.http.framing import request_end
from raftcache.machine import Machine
from raftcache.ops import Set

BATCH = json.dumps([{"op": "get", "key": "a"}, {"op": "incr", "key": "n"}]).encode()
TAKEN_BACK = [
    request("GET", "/healthz", None, {}),
    request("GET", "/v1/cluster", None, {}),
    request("GET", "/nowhere", None, {}),
    request("HEAD", "/v1/keys/a", None, {}),
    request("POST", "/v1/keys/n/incr?by=%31", b"", {}),
    request("POST", "/v1/batch", BATCH, {}),
    request("POST", "/v1/batch", b"{", {}),
    request("GET", "/v1/keys/a?consistency=linearizable", None, {}),
    request("PUT", "/v1/keys/a?ttl=0", b"x", {}),
    request("PUT", "/v1/keys/a", b"new", {"If-Match": '"1", "2"'}),
    request("PUT", "/v1/keys/a", b"once", {"Idempotency-Key": "k-1", "Authorization": "Basic x"}),
    request("DELETE", "/v1/keys/a", b"a body", {}),
]
FOR_GOOD = [
    request("GET", "/v1/keys/a", None, {"TE": "trailers"}),
    b"PUT /v1/keys/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n",
    b"GET /v1/keys/a HTTP/1.1\r\nHost: a\r\nX-Long: " + b"y" * 5000 + b"\r\n\r\n",
]
PLAIN = [
    request("GET", "/v1/keys/a", None, {}),
    request("PUT", "/v1/keys/a", b"value", {}),
    request("DELETE", "/v1/keys/a", None, {}),
    request("POST", "/v1/keys/n/incr", None, {}),
]
LAST = request("GET", "/v1/keys/a", None, {"Connection": "close"})


@pytest.fixture
def in_lane(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the lane took, in order."""
    taken: list[bytes] = []
    start = FastLane.start

    def noted(self: FastLane, data: bytes) -> Plain | None:
        plain = start(self, data)
        if plain is not None:
            taken.append(data[: plain.end])
        return plain

    monkeypatch.setattr(FastLane, "start", noted)
    return taken


@pytest.mark.parametrize("data", TAKEN_BACK)
async def test_the_next_request_is_in_the_lane_again(
    http: Running, in_lane: list[bytes], data: bytes
) -> None:
    wire = await http.connect()
    for _ in range(3):
        wire.send(data)
        await wire.answer(to_head=data.startswith(b"HEAD"))
        wire.send(PLAIN[0])
        await wire.answer()
    wire.send(PLAIN[0] + data + PLAIN[0])
    await wire.answer()
    await wire.answer(to_head=data.startswith(b"HEAD"))
    await wire.answer()
    assert in_lane == [PLAIN[0]] * 5
    wire.close()


@pytest.mark.parametrize("data", FOR_GOOD)
async def test_a_request_whose_end_is_not_known_keeps_the_connection_out_of_it(
    http: Running, in_lane: list[bytes], data: bytes
) -> None:
    wire = await http.connect()
    for each in (PLAIN[1], data, PLAIN[0], TAKEN_BACK[0], PLAIN[0]):
        wire.send(each)
        assert (await wire.answer()).code < 300
    assert in_lane == [PLAIN[1]]
    wire.close()


async def test_no_timer_of_aiohttp_ends_a_connection_that_the_lane_serves(
    http: Running, server: HttpServer
) -> None:
    wire = await http.connect()
    wire.send(TAKEN_BACK[0])
    await wire.answer()
    (connection,) = server._connections()
    assert connection._keepalive_handle is not None
    wire.send(PLAIN[1])
    await wire.answer()
    assert connection._keepalive_handle is None
    wire.close()


async def test_nonsense_behind_a_request_costs_it_nothing(http: Running) -> None:
    wire = await http.connect()
    wire.send(TAKEN_BACK[4] + PLAIN[1] + TAKEN_BACK[4] + b"nonsense\r\n\r\n" + PLAIN[1])
    assert [(await wire.answer()).code for _ in range(4)] == [200, 201, 200, 400]
    assert await wire.ended()
    wire.close()


async def answers(http: Running, pieces: list[bytes], heads: list[bool]) -> list[object]:
    """To requests that come in ``pieces``, until one closes the connection; ``heads``: which ask
    for a head only."""
    http.service.machine = Machine()
    http.service.apply(Set(b"a", b"stored", 60_000, 7))
    wire = await http.connect()
    for piece in pieces:
        wire.send(piece)
        await asyncio.sleep(0)
    found: list[object] = []
    for head_only in heads:
        answer = await wire.answer(to_head=head_only)
        found.append((answer.code, answer.body, {**answer.headers, "date": ""}))
        if answer.headers.get("connection") == "close":
            break
    wire.close()
    return [*found, http.service.stored(b"a")]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    requests=st.lists(st.sampled_from(TAKEN_BACK + PLAIN * 4 + FOR_GOOD), max_size=8),
    last=st.sampled_from([[], [LAST]]),
    cuts=st.lists(st.integers(0, 1500), max_size=6),
)
@example(requests=[TAKEN_BACK[5], PLAIN[0]], last=[], cuts=[len(TAKEN_BACK[5]) - 3])
@example(requests=[TAKEN_BACK[5], PLAIN[0]], last=[], cuts=[len(TAKEN_BACK[5]) + 3])
async def test_answers_and_their_order_are_those_of_aiohttp_alone(
    http: Running, requests: list[bytes], last: list[bytes], cuts: list[int]
) -> None:
    requests = requests + last
    data = b"".join(requests)
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(places) if a < b]
    heads = [each.startswith(b"HEAD") for each in requests]
    mixed = await answers(http, pieces, heads)
    alone = await answers(http, [FOR_GOOD[0].replace(b"/a ", b"/- "), *pieces], [False, *heads])
    assert mixed == alone[1:]


LINES = st.lists(
    st.sampled_from(
        [
            b"Host: a\r\n",
            b"Accept: */*\r\n",
            b"X-Empty: \r\n",
            b"X-Empty:\r\n",
            b"X-Odd: \x7f\r\n",
            b"X-Many: a, b;q=1\r\n",
            b" folded\r\n",
            b"Content-Length: 3\r\n",
            b"content-length: 0\r\n",
            b"Content-Length: 007\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length : 3\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: keep-alive\r\n",
            b"Connection: upgrade\r\n",
            b"Upgrade: websocket\r\n",
            b"Expect: 100-continue\r\n",
            b"Content-Encoding: gzip\r\n",
            b"no header\r\n",
            b"Bare: cr\r\r\n",
            b"Bare: lf\n",
        ]
    ),
    max_size=5,
)


@settings(max_examples=500, deadline=None)
@given(
    method=st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"CONNECT", b"get"]),
    target=st.sampled_from([b"/", b"/v1/keys/a?b=c%20", b"*", b"a b", b"/\xc3\xa9", b"http://h/p"]),
    version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]),
    lines=LINES,
    body=st.sampled_from([b"", b"abc", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]),
)
async def test_aiohttps_parser_sees_the_same_end(
    method: bytes, target: bytes, version: bytes, lines: list[bytes], body: bytes
) -> None:
    head = method + b" " + target + b" " + version + b"\r\n" + b"".join(lines) + b"\r\n"
    data = head + body
    end = request_end(data)
    if end is None or end > len(data):
        return
    loop = asyncio.get_running_loop()
    parser = HttpRequestParser(BaseProtocol(loop), loop, 65_536)
    try:
        messages, upgraded, tail = parser.feed_data(data[:end])
    except HttpProcessingError:
        return  # answered with an error, which ends the connection
    assert [payload.is_eof() for _, payload in messages] == [True]
    assert not upgraded
    assert not tail
    follower = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    assert [message.path for message, _ in parser.feed_data(follower)[0]] == ["/next"]


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"PUT /k HTTP/1.1\r\nContent-Length: 3\r\n\r\n", 41),
        (b"PUT /k HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcd", 41),
        (b"PUT /k HTTP/1.1\r\nContent-Length: 65494\r\n\r\n", 65_536),
        (b"PUT /k HTTP/1.1\r\nContent-Length: 65495\r\n\r\n", None),
        (b"PUT /k HTTP/1.1\r\nContent-Length: 3\r\n", None),
        (b"", None),
    ],
)
def test_an_end_is_known_before_all_has_come(data: bytes, end: int | None) -> None:
    assert request_end(data) == end
